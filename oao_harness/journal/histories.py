"""What happened in recorded runs, in order, for who judges it again: calls begin, calls end. Pure, runs nothing.

A history is a run with all runs nested in it: one budget and one set of policies hold for them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, cast

from oao_harness.errors import RecordingError
from oao_harness.journal.events import HTTP, RecordedEvent
from oao_harness.journal.questions import principal_from_json
from oao_harness.journal.recording import Recording
from oao_harness.journal.records import error_from_json, usage_from_json
from oao_hookspecs import Call, Json, ModelCall, Outcome, Principal, ProposedCall, Record, ToolCall, Usage

__all__ = ["HistoricCall", "History", "Moment", "histories_of_recording", "history_of_records"]

Moment: TypeAlias = tuple[Literal["begin", "end", "step"], int]
"""What happens, and the index of the call that it happens to; -1 for a step of the agent's framework."""

_OUTER: Final = "main"


@dataclass(slots=True, kw_only=True)
class HistoricCall:
    """One recorded call."""

    call: Call
    """As the agent made it, before a policy modified it; `id` is empty."""
    agent: str
    """Name of the agent whose run made it."""
    place: str
    """How a person finds it in its run: `#3`, or `helper #3` for a call of a nested run."""
    outcome: Outcome | None = None
    """None where nobody knows how it ended, or it never happened. `proposed` is set for two and more calls."""
    abandoned: bool = False
    """True where it was allowed and then not made."""

    @property
    def usage(self) -> Usage | None:
        """Tokens; None where they are not recorded, or it never ended."""
        return self.outcome.usage if self.outcome is not None else None


@dataclass(slots=True, kw_only=True)
class History:
    """One recorded run, the runs nested in it included."""

    name: str
    """What people call it: an id, or a file and what is in it."""
    agent: str
    recording: str = ""
    """Name of the whole recording that this is a party of, where there are several; else empty."""
    task: Json = None
    principal: Principal | None = None
    has_output: bool = False
    output: Json = None
    calls: list[HistoricCall] = field(default_factory=list[HistoricCall])
    moments: list[Moment] = field(default_factory=list[Moment])
    notes: Sequence[str] = ()
    """What is not recorded of it."""


def history_of_records(tape: Iterable[tuple[str, Record]], name: str) -> History:
    """Return what the journals of a run and of the runs nested in it tell.

    Args:
        tape: From `nesting.tape_of`.
        name: What people call the run.

    Raises:
        RecordingError: A record is damaged.
    """
    teller = _Teller(name)
    for run, record in tape:
        try:
            teller.hear(run, record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"record {record.get('seq')} ({record.get('type')})"
            raise RecordingError(f"run {name}: {what} is damaged: {type(error).__name__} {error}") from error
    return teller.history


class _Teller:
    """Makes a history of records."""

    def __init__(self, name: str) -> None:
        self.history = History(name=name, agent="")
        self._by_number: dict[tuple[str, int], int] = {}
        self._held: dict[str, tuple[str, int]] = {}
        """By the id of an open question: its run, and the index of the call that waits for the answer."""
        self._agents: dict[str, str] = {}

    def hear(self, run: str, record: Record) -> None:
        kind = record["type"]
        if record.get("redacted") is not None:
            self._note("parts of its journal are redacted: they are judged as they stand there now")
        if kind == "call":
            self._call(run, record)
        elif kind == "outcome" or (kind == "resolved" and record.get("landed") is True):
            self._outcome(run, record)
        elif kind == "step":
            self.history.moments.append(("step", -1))
        elif kind == "run.started":
            self._started(run, record)
        elif kind == "approval.requested" and record.get("kind") == "tool":
            arguments = cast("Mapping[str, Json]", record.get("arguments") or {})
            call_id = cast("str | None", record.get("call_id"))
            held = ToolCall(name=str(record["tool"]), arguments=arguments, call_id=call_id)
            self._held[str(record["id"])] = run, self._begin(run, held, "held")
        elif kind == "run.resumed":
            # What is still held is asked about again.
            for id_ in [id_ for id_, (of, _) in self._held.items() if of == run]:
                self._forget(id_)
        elif kind == "run.finished" and run == _OUTER and record.get("status") == "SUCCESS":
            self.history.has_output, self.history.output = True, record.get("output")

    def _started(self, run: str, record: Record) -> None:
        self._agents[run] = str(record["agent"])
        if record.get("forked") is not None:
            self._note("it is a fork: its beginning is that of another run, and counts in both")
        if run == _OUTER:
            history = self.history
            history.agent = str(record["agent"])
            history.task = record.get("task")
            history.principal = principal_from_json(record.get("principal"))

    def _note(self, text: str) -> None:
        if text not in self.history.notes:
            self.history.notes = (*self.history.notes, text)

    def _call(self, run: str, record: Record) -> None:
        n = cast("int", record["n"])
        if (run, n) in self._by_number:
            return  # a denial of a call that a resumed run made again
        call = _call_in(record)
        passed = cast("list[Json]", record.get("approvals") or [])
        for id_, (of, index) in list(self._held.items()):
            held = self.history.calls[index].call
            if id_ in passed or (of == run and held.name == call.name and held.request == call.request):
                self._forget(id_)
        self._by_number[run, n] = self._begin(run, call, f"#{n}")

    def _begin(self, run: str, call: Call, place: str) -> int:
        history, agent = self.history, self._agents.get(run, run)
        shown = place if run == _OUTER else f"{run} {place}"
        history.calls.append(HistoricCall(call=call, agent=agent, place=shown))
        history.moments.append(("begin", len(history.calls) - 1))
        return len(history.calls) - 1

    def _forget(self, id_: str) -> None:
        """Take a held call out again: it was made after all, and is told there, or it is asked about anew."""
        _, index = self._held.pop(id_)
        history = self.history
        del history.calls[index]
        history.moments = [
            (what, at - (at > index)) for what, at in history.moments if not (what != "step" and at == index)
        ]
        self._by_number = {key: at - (at > index) for key, at in self._by_number.items()}
        self._held = {key: (of, at - (at > index)) for key, (of, at) in self._held.items()}

    def _outcome(self, run: str, record: Record) -> None:
        index = self._by_number.get((run, cast("int", record["n"])))
        if index is None:
            return
        told = self.history.calls[index]
        if told.outcome is not None:
            return
        error, usage = record.get("error"), record.get("usage")
        value = record.get("res")
        told.abandoned = record.get("abandoned") is True
        told.outcome = Outcome(
            value=value,
            error=error_from_json(cast("Mapping[str, Json]", error)) if error is not None else None,
            usage=usage_from_json(cast("Mapping[str, Json]", usage)) if usage is not None else None,
            proposed=_proposed_in(value) if isinstance(record.get("batch"), list) else (),
            attempts=cast("int", record.get("attempts", 1)),
            duration_s=cast("float", record.get("duration_s") or 0.0),
        )
        self.history.moments.append(("end", index))


def _call_in(record: Record) -> Call:
    name = str(record["name"])
    request = cast("Mapping[str, Any]", record.get("given") or record["req"])
    scope = str(record.get("scope", ""))
    if record["kind"] == "model":
        params = {key: value for key, value in request.items() if key not in {"messages", "tools"}}
        messages, tools = request.get("messages") or (), request.get("tools") or ()
        return ModelCall(name=name, messages=messages, tools=tools, params=params, scope=scope)
    effect, access = cast("Any", record.get("effect")), cast("Any", record.get("access"))
    call_id = cast("str | None", record.get("call_id"))
    return ToolCall(name=name, arguments=request, call_id=call_id, effect=effect, access=access, scope=scope)


def _proposed_in(value: Json) -> tuple[ProposedCall, ...]:
    """Return the tool calls that a recorded answer asks for; nothing where it is not in a form of ours."""
    if not isinstance(value, Mapping):
        return ()
    message = value.get("message")
    holder = message if isinstance(message, Mapping) else value
    listed = holder.get("calls") or holder.get("tool_calls")
    found: list[ProposedCall] = []
    for item in listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ():
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            return ()
        arguments, call_id = item.get("args", item.get("arguments")), item.get("id")
        found.append(
            ProposedCall(
                name=cast("str", item["name"]),
                arguments=arguments if isinstance(arguments, Mapping) else {},
                call_id=call_id if isinstance(call_id, str) else None,
            )
        )
    return tuple(found) if len(found) > 1 else ()


def histories_of_recording(recording: Recording, name: str) -> list[History]:
    """Return the runs of a recording: those that are not nested in another, each with the ones nested in it.

    Args:
        recording: Of a test, of a stored run, or imported.
        name: What people call it.
    """
    header = recording.header
    outermost: dict[int, str] = {}
    lanes: dict[str, list[RecordedEvent]] = {}
    for event in recording.events:
        # A parent comes before what is inside of it; so it is known.
        lane = outermost.get(event.parent, event.run) if event.parent is not None else event.run
        outermost[event.n] = lane
        if event.kind != HTTP:
            lanes.setdefault(lane, []).append(event)
    said, agent = header.get("notes"), header.get("agent")
    notes = [str(note) for note in said] if isinstance(said, list) else []
    if "task" not in header:
        notes.append("the task is not recorded: rules that read it judge without")
    found = [
        _lane(events, lane if len(lanes) > 1 or not isinstance(agent, str) else agent, header)
        for lane, events in (lanes or {str(agent or ""): []}).items()
    ]
    # The agent that the recording is of comes first.
    found.sort(key=lambda history: history.agent != agent)
    for history in found:
        if len(found) > 1:
            history.recording = name
        history.name = name if len(found) == 1 else f"{name} ({history.agent})"
        history.notes = tuple(notes)
        if history.agent != agent and isinstance(agent, str):
            history.task = None
    return found


def _lane(events: Sequence[RecordedEvent], agent: str, header: Mapping[str, Json]) -> History:
    history = History(name="", agent=agent, task=header.get("task"))
    members: dict[int, list[ProposedCall]] = {}
    for event in events:
        if event.batch is not None and event.kind == "tool":
            asked = ProposedCall(name=event.name, arguments=event.request, call_id=event.call_id)
            members.setdefault(event.batch, []).append(asked)
    ticks: list[tuple[int, int, Moment]] = []
    for index, event in enumerate(events):
        nested = f"{event.run} " if event.run != events[0].run else ""
        told = HistoricCall(call=event.call, agent=event.run or agent, place=f"{nested}#{event.n}")
        ticks.append((event.start, 0, ("begin", index)))
        if event.finished and not event.denied:
            proposed: Sequence[ProposedCall] = ()
            if event.kind == "model":
                proposed = _proposed_in(event.value) or members.get(event.n, ())
            told.outcome = Outcome(
                value=event.value, error=event.error, usage=event.usage, proposed=tuple(proposed),
                attempts=event.attempts, duration_s=event.took_s or 0.0,
            )  # fmt: skip
            ticks.append((event.end, 1, ("end", index)))
        history.calls.append(told)
    history.moments = [moment for _, _, moment in sorted(ticks)]
    return history
