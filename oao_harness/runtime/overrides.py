"""Another model in place of the one that the agent asks for: what is judged, written, priced and sent is that one."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from oao_harness.errors import ConfigError, RunHalted
from oao_harness.runtime.context import frame
from oao_harness.runtime.run import Run
from oao_hookspecs import Call, ModelCall

__all__ = ["is_swap", "overridden", "refuse_swap"]


def overridden(run: Run, call: Call) -> Call:
    """Return a model call under the name that the run, or one that it is nested in, puts in place; else the call.

    Args:
        run: The run that makes it.
        call: As the agent made it.
    """
    if call.kind == "model":
        for member in run.lineage:
            if member.model_override is not None and member.model_override != call.name:
                return replace(call, name=member.model_override)
    return call


def is_swap(judged: Call, asked: Call) -> bool:
    """Return True where a call differs from what was asked for in the name of the model alone."""
    return (
        isinstance(judged, ModelCall)
        and isinstance(asked, ModelCall)
        and judged.name != asked.name
        and (judged.messages, judged.tools, judged.params) == (asked.messages, asked.tools, asked.params)
    )


def refuse_swap(judged: Call, asked: str, why: str) -> NoReturn:
    """Halt the run whose call is being made: a leaf that cannot send it to another model must not send it at all.

    Args:
        judged: The call under the name of the other model.
        asked: The model that the agent asks for.
        why: What stands in the way.

    Raises:
        RunHalted: Always.
    """
    inside = frame.get()
    reason = f"model {asked!r} cannot be swapped for {judged.name!r}: {why}"
    if inside is None:
        raise ConfigError(reason)
    inside.run.halt_now(RunHalted(reason, rule="model_override", plugin="oao", n=inside.n))
    raise inside.run.require_halt()
