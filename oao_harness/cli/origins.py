"""Where the agent and the policies of a stored run are found again: where `oao run` was told, unless somebody says."""

from __future__ import annotations

from collections.abc import Sequence

from oao_harness.errors import UsageError
from oao_harness.journal.timeline import mapping, text
from oao_hookspecs import Record

__all__ = ["agent_of", "policies_of"]


def agent_of(started: Record, given: str | None, command: str) -> str:
    """Return `module:agent` of a run.

    Args:
        started: Its first record.
        given: What the user says.
        command: What the user has typed, for the message.

    Raises:
        UsageError: Neither the user nor the journal says.
    """
    found = given or text(mapping(started, "origin"), "agent")
    if not found:
        raise UsageError(f"the journal does not say where the agent is; write: {command} module:agent")
    return found


def policies_of(started: Record, given: Sequence[str]) -> list[str]:
    """Return the names of a run's policies, or of those that the user names."""
    named = mapping(started, "origin").get("policy")
    return list(given) or [str(name) for name in (named if isinstance(named, list) else [])]
