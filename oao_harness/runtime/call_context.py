"""What the body of a tool may know of the call it answers, such as the key that makes repeating it harmless."""

from __future__ import annotations

from dataclasses import dataclass

from oao_harness.runtime.context import frame
from oao_hookspecs import Principal

__all__ = ["CallContext", "current_call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """The governed call whose body is running."""

    execution_id: str
    """Id of the run."""
    agent_name: str
    name: str
    """Name of the tool."""
    n: int
    """Number of the call in its run, from 1."""
    idempotency_key: str
    """`execution_id#n`: the same each time this call is made, by a retry or by a resumed run; unique among all calls.

    Hand it to the service that the tool calls, so that a second time changes nothing.
    """
    attempt: int
    """Which try of this process it is, from 1."""
    is_repeated: bool
    """True where the call began before the run was interrupted, and may have happened."""
    principal: Principal | None
    """Who the run acts for."""


def current_call() -> CallContext | None:
    """Return the call whose body is running here, or None outside of every tool and model."""
    inside = frame.get()
    if inside is None:
        return None
    run = inside.run
    return CallContext(
        execution_id=run.execution_id,
        agent_name=run.agent_name,
        name=inside.call.name,
        n=inside.n,
        idempotency_key=f"{run.execution_id}#{inside.n}",
        attempt=inside.attempts,
        is_repeated=inside.again,
        principal=run.principal,
    )
