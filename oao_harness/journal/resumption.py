"""Answers the calls of a resumed run from its own journal; what the journal does not hold is new, and is made.

The agent's code runs again from the start. A finished call is served. A call that began and has no outcome is in
doubt: it is made again only where its tool says that this is safe, where its own body waited for a person, or where a
person says that it did not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from oao_harness.journal.codec import alike
from oao_harness.journal.doubts import doubts_of, repeatable
from oao_harness.journal.events import HTTP
from oao_harness.journal.matcher import Matcher
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.replay import Divergence, Served
from oao_hookspecs import Call, Json, Outcome, Record

__all__ = ["Resumption"]


class Resumption(Matcher):
    """Serves what the run did before, and lets what is new pass.

    Args:
        records: The run's journal.
        read: Returns the journal of a run that was nested in it; nothing where it is not in the store.
    """

    def __init__(self, records: Sequence[Record], read: Callable[[str], Sequence[Record]]) -> None:
        self._read = read
        self.last_number = max((cast("int", one["n"]) for one in records if one["type"] == "call"), default=0)
        records = _without_failures(_without_abandoned(records))
        # Exactly: a call that a new id sets apart from a recorded one is another effect.
        made = Recording.from_records(records)
        calls = tuple(event for event in made.events if event.kind != HTTP)
        super().__init__(replace(made, events=calls), volatile=())
        self.is_over = any(record["type"] == "run.finished" for record in records)
        """True where the run had ended: all of it is served, nothing of it is written again."""
        self.doubts = doubts_of(records)
        """Calls that a person must decide about first."""
        self._repeatable = repeatable(records)
        self._numbered = {event.n: event for event in self._events}
        self._swapped: dict[str, set[str]] = {}
        for record in records:
            if record["type"] == "call" and "given_name" in record:
                self._swapped.setdefault(str(record["given_name"]), set()).add(str(record["name"]))
        self._before = _ended_before_the_break(records)
        self._played: set[int] = set()
        """Numbers of the calls served so far."""
        self.version = 0
        """Grows with every call that is served, and every nested run that goes on."""
        self._runs_of: dict[int | None, list[str]] = {}
        for record in records:
            if record["type"] == "child":
                self._runs_of.setdefault(cast("int | None", record.get("n")), []).append(str(record["execution_id"]))

    def child(self, parent_call: int | None, agent: str, task: Json) -> str | None:
        """Return the id of the run that a call's body started before: of this agent with this task, else the next one.

        Args:
            parent_call: Number of the call; None for runs that the agent itself started.
            agent: Name of the nested agent. Nested runs that overlapped may start in another order this time.
            task: What it is asked.
        """
        with self._lock:
            started = self._runs_of.get(parent_call)
            if not started:
                return None
            index = next((i for i, nested in enumerate(started) if self._is_of(nested, agent, task)), 0)
            self.version += 1
            return started.pop(index)

    def has_other_children(self, parent_call: int | None, agent: str, task: Json) -> bool:
        """Return True where a call's body started runs that nobody has started again yet, and this is none of them.

        Args:
            parent_call: See `child`.
            agent: See `child`.
            task: See `child`.
        """
        with self._lock:
            started = self._runs_of.get(parent_call)
            return bool(started) and not any(self._is_of(nested, agent, task) for nested in started or ())

    def _is_of(self, nested: str, agent: str, task: Json) -> bool:
        first = next(iter(self._read(nested)), None)
        return first is not None and first.get("agent") == agent and alike(first.get("task"), task)

    def is_ahead(self, number: int) -> bool:
        """Return True where a call that had ended before a served one was not asked for yet.

        Args:
            number: Of the served event.
        """
        with self._lock:
            event = self._numbered.get(number)
            return event is not None and self._runs[event.run].reach() < event.end

    def swapped(self, call: Call) -> Sequence[str]:
        """Return the names of the models that were asked in place of the one that a call is for."""
        return sorted(self._swapped.get(call.name, ())) if call.kind == "model" else ()

    def holds(self, call: Call) -> bool:
        """Return True where the proposed call was made before, so that nobody is asked about it again."""
        return call.call_id is not None and any(event.call_id == call.call_id for event in self._events)

    def _may_be_new(self, call: Call) -> bool:
        if self.is_over or not self._before <= self._played:
            return False
        # A sibling of what was held may have ended after it, and what began may have happened: asked for in other
        # words, it would be done twice, the second time with another idempotency key.
        return not any(
            (event.kind, event.name) == (call.kind, call.name)
            for event in self._events
            if event.n not in self._served and (event.outcome is not None or self._may_have_happened(event))
        )

    def _may_have_happened(self, event: RecordedEvent) -> bool:
        repeats_nothing = event.kind == "model" or event.effect == "pure"
        return not (event.denied or repeats_nothing or event.call_n in self._repeatable)

    def _may_be_made_again(self, event: RecordedEvent) -> bool:
        """Return True for a call without an outcome that was denied, repeats nothing, waited, or did not happen."""
        return (
            event.denied
            or event.kind == "model"
            or event.effect in {"pure", "idempotent"}
            or event.call_n in self._repeatable
        )

    def _take(self, event: RecordedEvent) -> Served | Divergence:
        self._mark_served(event)
        self.version += 1
        self._played.add(event.call_n)
        if event.outcome is None:
            if self._may_be_made_again(event):
                return Served(outcome=Outcome(), decision=event.decision, n=event.call_n, event=event.n, again=True)
            return _in_doubt(event)
        if "result" in event.redacted and not self.is_over:
            # What the agent does next would be done with what is not there.
            what = f"step {event.n} {event.kind} {event.name}"
            text = f"{what}: its result was redacted, so that nobody can go on with it; run the agent anew"
            return Divergence(kind="unreadable", text=text, step=event.n, name=event.name)
        children = list(self._descendants(event))
        for child in children:
            self._mark_served(child)
            self._played.add(child.call_n)
        inside = [(child.call, child.outcome, child.denied) for child in children]
        for n in (event.call_n, *(child.call_n for child in children)):
            for nested in self._runs_of.pop(n, ()):
                found = self.calls_of(nested)
                if isinstance(found, str):
                    return Divergence(kind="doubt", text=found, step=event.n, name=event.name)
                inside += found
        return Served(
            outcome=event.outcome,
            children=inside,
            decision=event.decision,
            n=event.call_n,
            event=event.n,
            known=True,
        )

    def calls_of(self, nested: str) -> list[tuple[Call, Outcome | None, bool]] | str:
        """Return the calls of a nested run and of those nested in it, or why nobody knows them."""
        records = self._read(nested)
        if not records:
            return (
                f"run {nested} was nested in this one, and its journal is not in this store: nobody knows what it "
                "spent and did; give the inner orchestrator the store that it had, or none, so that its runs are kept "
                "beside the outer one"
            )
        events = Recording.from_records(_without_abandoned(records)).events
        calls = [(event.call, event.outcome, event.denied) for event in events]
        for record in records:
            if record["type"] == "child":
                found = self.calls_of(str(record["execution_id"]))
                if isinstance(found, str):
                    return found
                calls += found
        return calls


def _in_doubt(event: RecordedEvent) -> Divergence:
    text = (
        f"tool {event.name} (#{event.call_n}) is in doubt: it began before the run was interrupted, and nobody knows "
        "whether it happened; a tool declared idempotent or pure would be called again"
    )
    return Divergence(kind="doubt", text=text, step=event.n, name=event.name)


def _without_abandoned(records: Sequence[Record]) -> list[Record]:
    """Return the records without the calls that were allowed and then never made: they are made anew."""
    never_made = {cast("int", one["n"]) for one in records if one["type"] == "outcome" and one.get("abandoned")}
    return [one for one in records if one["type"] not in {"call", "outcome"} or one["n"] not in never_made]


def _without_failures(records: Sequence[Record]) -> list[Record]:
    """Return the records without the outcomes for which the run is tried again: those calls are made once more."""
    again: set[tuple[int, int]] = set()
    last: dict[int, int] = {}
    for record in records:
        if record["type"] == "outcome":
            last[cast("int", record["n"])] = cast("int", record["seq"])
        elif record["type"] in {"run.queued", "run.suspended"}:
            again.update((n, last[n]) for n in cast("Sequence[int]", record.get("again") or ()) if n in last)
    return [one for one in records if one["type"] != "outcome" or (one["n"], one["seq"]) not in again]


def _ended_before_the_break(records: Sequence[Record]) -> set[int]:
    """Return the calls that had ended before the earliest one that never did: without them nothing new may happen."""
    began: dict[int, int] = {}
    ended: dict[int, int] = {}
    asked: dict[str, int] = {}
    break_at: list[int] = []
    for record in records:
        seq = cast("int", record["seq"])
        if record["type"] == "call":
            began[cast("int", record["n"])] = seq
        elif record["type"] == "outcome" or (record["type"] == "resolved" and record["landed"]):
            ended[cast("int", record["n"])] = seq
        elif record["type"] == "approval.requested":
            asked[str(record["id"])] = seq
        elif record["type"] == "run.suspended":
            held = cast("Sequence[str]", record.get("approvals") or ())
            break_at = [asked[id_] for id_ in held if id_ in asked]
    break_at += [seq for n, seq in began.items() if n not in ended]
    horizon = min(break_at, default=None)
    return {n for n, seq in ended.items() if horizon is None or seq < horizon}
