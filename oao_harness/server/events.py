"""Records of journals as the events that a listener knows by name. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from oao_hookspecs import (
    ApprovalAnswered,
    ApprovalRequested,
    CallDecided,
    CallFinished,
    CallRetried,
    Json,
    Record,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    StateEntered,
    StepStarted,
    ViolationFound,
)

__all__ = ["event_of"]

_NAMES: Final[Mapping[str, str]] = {
    "run.started": RunStarted.NAME,
    "run.resumed": RunResumed.NAME,
    "state": StateEntered.NAME,
    "step": StepStarted.NAME,
    "call": CallDecided.NAME,
    "outcome": CallFinished.NAME,
    "retry": CallRetried.NAME,
    "approval.requested": ApprovalRequested.NAME,
    "approval.answered": ApprovalAnswered.NAME,
    "violation": ViolationFound.NAME,
    "run.suspended": RunPaused.NAME,
    "run.queued": RunPaused.NAME,
    "run.finished": RunFinished.NAME,
}


def event_of(execution_id: str, record: Record) -> dict[str, Json]:
    """Return a record as an event: `event`, `execution_id`, then the fields of the record.

    A record that no listener has a name for has its type as name, in capitals.
    """
    type_ = str(record["type"])
    name = _NAMES.get(type_) or type_.upper().replace(".", "_")
    return {**record, "event": name, "execution_id": execution_id}
