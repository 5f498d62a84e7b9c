"""Makes journal records of recorded calls: the other way round than `compiling`."""

from __future__ import annotations

from oao_harness.journal.events import HTTP, RecordedEvent
from oao_harness.journal.recording import Recording
from oao_harness.journal.records import error_to_json, usage_to_json
from oao_hookspecs import Json

__all__ = ["Times", "decompiled"]


class Times:
    """When the calls of a recording were made; a call of which nobody knows it ended with the last before it.

    Args:
        recording: Its header may say `clock`, in Unix seconds; without one the times begin at 0.
    """

    def __init__(self, recording: Recording) -> None:
        began = recording.header.get("clock")
        self.clock = float(began) if isinstance(began, int | float) else 0.0
        """When the recording began, in Unix seconds."""
        self.last = self.clock
        """When the last of the calls so far ended, in Unix seconds."""

    def of(self, event: RecordedEvent) -> tuple[float, float]:
        """Return when a call began and ended, in Unix seconds; asked once for each, in order."""
        ended = self.last if event.at is None else self.clock + event.at
        self.last = max(self.last, ended)
        return max(self.clock, ended - (event.took_s or 0.0)), ended


def decompiled(
    event: RecordedEvent, *, n: int, parent: int | None, times: tuple[float, float], run: str = ""
) -> tuple[dict[str, Json], dict[str, Json] | None]:
    """Return the record that a call begins with and the one that it ends with, without `v` and `seq`.

    Args:
        event: The call.
        n: Its number in the journal; a request by HTTP keeps its own.
        parent: Number of the call in the journal inside whose body it was made.
        times: When it began and ended, in Unix seconds.
        run: Whose call it is, where the records of several runs stand in one journal.

    Returns:
        `call` and `outcome`, or `http` and `http.ended`. The second is None where the call was denied or nobody knows
        how it ended.
    """
    began, ended = times
    told: dict[str, Json] = {"duration_s": event.took_s or 0.0}
    told |= {"error": error_to_json(event.error)} if event.error is not None else {"res": event.value}
    if event.kind == HTTP:
        sent: dict[str, Json] = {"type": "http", "at": began, "h": event.n, "name": event.name}
        sent["req"] = dict(event.request)
        return {**sent, **_said(parent=parent, run=run)}, {"type": "http.ended", "at": ended, "h": event.n, **told}
    verdict, _, rule = event.decision.partition(" ")
    call: dict[str, Json] = {"type": "call", "at": began, "n": n, "kind": event.kind, "name": event.name}
    call |= {"req": dict(event.request), "decision": {"verdict": verdict, "rule": rule, "plugin": ""}}
    call |= _said(run=run, call_id=event.call_id, scope=event.scope, parent=parent)
    if not event.finished or event.denied:
        return call, None
    outcome: dict[str, Json] = {"type": "outcome", "at": ended, "n": n, **told}
    outcome |= {"usage": usage_to_json(event.usage)} if event.usage is not None else {}
    outcome |= {"attempts": event.attempts} if event.attempts > 1 else {}
    return call, outcome


def _said(**fields: Json) -> dict[str, Json]:
    return {key: value for key, value in fields.items() if value}
