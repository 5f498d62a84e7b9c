"""A recording becomes a run in a store again: suspended where the recording ends, so that it can go on from there.

Runs that were nested in it become nested runs. What a recording does not say - the policies' reasons, the fingerprints
of the code, who approved - the journal does not say either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final, cast

from oao_harness.errors import RecordingError
from oao_harness.journal.branching import new_id
from oao_harness.journal.decompiling import Times, decompiled
from oao_harness.journal.events import HTTP, RecordedEvent
from oao_harness.journal.leases import claim
from oao_harness.journal.recording import Recording
from oao_harness.journal.records import VERSION
from oao_harness.journal.wire_replay import LAYER, WIRE
from oao_hookspecs import Json, Record, Store

__all__ = ["store_recording"]

# What a recording of several runs calls the outer one.
_MAIN: Final = "main"


def store_recording(recording: Recording, store: Store, *, source: str, task: Json = None, agent: str = "") -> str:
    """Write a recording as the journal of a suspended run, and of the runs nested in it; return its id.

    Args:
        recording: What was recorded.
        store: Where to.
        source: Where it was read, for who looks at the run.
        task: What the agent was asked; by default what the recording says, if anything.
        agent: `module:agent`, for who goes on with the run.

    Raises:
        RecordingError: It holds no calls of an agent.
    """
    if recording.header.get(LAYER) == WIRE:
        raise RecordingError(
            f"{source!r} holds the requests of a provider's client, and no calls of an agent; only a test can play it"
        )
    if not recording.events:
        raise RecordingError(f"{source!r} holds no call, so there is nothing to go on from")
    return _Journals(recording, source, recording.header.get("task") if task is None else task, agent).write(store)


class _Journals:
    """The journals of one recording, by the name of the run."""

    def __init__(self, recording: Recording, source: str, task: Json, agent: str) -> None:
        self._times = Times(recording)
        self._events = recording.events
        self._by_number = {event.n: event for event in recording.events}
        runs = list(dict.fromkeys(event.run for event in recording.events))
        # Where it only started others, the outer run has no call of its own.
        self._outer = runs[0] if len(runs) == 1 else _MAIN
        self._ids = {run: new_id() for run in dict.fromkeys([self._outer, *runs])}
        self._numbers: dict[int, int] = {}
        """Number of a call in its run, by that of the event."""
        self._records: dict[str, list[tuple[int, int, dict[str, Json]]]] = {run: [] for run in self._ids}
        self._counts: dict[str, int] = dict.fromkeys(self._ids, 0)
        self._add_starts(recording, source, task, agent)
        self._batches: defaultdict[int, list[Json]] = defaultdict(list)
        """Ids of the calls that the answer of a model event asks for, in the order of the recording."""
        for event in self._events:
            if event.batch is not None:
                self._batches[event.batch].append(event.call_id)
        for event in sorted(self._events, key=lambda event: event.start):
            self._add(event)

    def _add_starts(self, recording: Recording, source: str, task: Json, agent: str) -> None:
        for run, id_ in self._ids.items():
            of_run = (event for event in self._events if event.run == run)
            first = min(of_run, key=lambda event: event.start, default=self._events[0])
            fields: dict[str, Json] = {"execution_id": id_, "agent": run.partition("#")[0] or "agent"}
            if run == self._outer:
                named = agent.rpartition(":")[2] or recording.test.rpartition("::")[2] or fields["agent"]
                fields |= {"agent": named, "task": task, "origin": {"imported": source, "agent": agent}}
            else:
                fields |= {"task": None, "parent": self._ids[self._outer_of(first)]}
            self._records[run].append((0, 0, {"type": "run.started", "at": self._times.clock, **fields}))

    def _outer_of(self, first: RecordedEvent) -> str:
        """Return the run in which a run was started whose first call this is."""
        parent = self._by_number.get(first.parent or 0)
        return self._outer if parent is None or parent.run == first.run else parent.run

    def _add(self, event: RecordedEvent) -> None:
        records = self._records[event.run]
        if event.run != self._outer and len(records) == 1:
            self._add_child(event)
        number = self._numbers[event.n] = self._counts[event.run] + 1
        parent = self._by_number.get(event.parent or 0)
        inside = self._numbers.get(parent.n) if parent is not None and parent.run == event.run else None
        first, last = decompiled(event, n=number, parent=inside, times=self._times.of(event))
        # A request by HTTP is no call of the run: it takes no number.
        if event.kind != HTTP:
            self._counts[event.run] = number
            first |= {"effect": event.effect} if event.effect else {}
            batch = self._batches[event.n]
            if last is not None and len(batch) > 1:
                last["batch"] = batch
        records.append((event.start, 1, first))
        if last is not None:
            records.append((event.end, 0, last))

    def _add_child(self, first: RecordedEvent) -> None:
        """Say in the outer run that a nested one began; before its first call, so that it is known then."""
        parent = self._by_number.get(first.parent or 0)
        child: dict[str, Json] = {"type": "child", "at": self._times.last, "execution_id": self._ids[first.run]}
        outer = self._outer_of(first)
        if parent is not None and parent.run == outer:
            child["n"] = self._numbers[parent.n]
            self._records[first.run][0][2]["parent_call"] = child["n"]
        self._records[outer].append((first.start, 0, child))

    def write(self, store: Store) -> str:
        """Append all journals, the outer one last; return its id."""
        for run in reversed(self._ids):
            self._append(store, run, is_outer=run == self._outer)
        return self._ids[self._outer]

    def _append(self, store: Store, run: str, *, is_outer: bool) -> None:
        told = [record for _, _, record in sorted(self._records[run], key=lambda one: one[:2])]
        calls = [record for record in told if record["type"] == "call"]
        tokens = sum(
            cast("int", usage.get("in", 0)) + cast("int", usage.get("out", 0))
            for record in told
            if isinstance(usage := record.get("usage"), Mapping)
        )
        models = sum(record["kind"] == "model" for record in calls)
        totals: Json = {"steps": len(calls), "model_calls": models, "tool_calls": len(calls) - models, "tokens": tokens}
        if is_outer:
            fields: dict[str, Json] = {"reason": "imported; it goes on where the recording ends", "approvals": []}
            told.append({"type": "run.suspended", "at": self._times.last, **fields, "totals": totals})
        else:
            ended: dict[str, Json] = {"status": "SUCCESS", "error": None, "output": None, "totals": totals}
            told.append({"type": "run.finished", "at": self._times.last, **ended})
        numbered: list[Record] = [{"v": VERSION, "seq": seq, **record} for seq, record in enumerate(told, start=1)]
        store.append(self._ids[run], claim(store, self._ids[run]), *numbered)
