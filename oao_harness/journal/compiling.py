"""Makes recorded calls of journal records: pairs each call with its outcome, and counts ticks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.records import error_from_json, usage_from_json
from oao_harness.journal.shape import Shaper
from oao_harness.journal.sharing import Shared
from oao_hookspecs import Effect, Json, Record

__all__ = ["compiled"]


def compiled(records: Iterable[Record | tuple[str, Record]], clock: float | None = None) -> tuple[RecordedEvent, ...]:
    """Return the calls of a journal in the order they started.

    Args:
        records: Records of one run in order, or `(run name, record)` pairs of several runs in the order they were
            written.
        clock: When the recording's clock began, in Unix seconds; None where the times are not kept.
    """
    builder = _Builder(clock)
    for item in records:
        run, record = item if isinstance(item, tuple) else ("", item)
        builder.add(run, record)
    return builder.events()


class _Builder:
    """Pairs calls with their outcomes and counts ticks."""

    def __init__(self, clock: float | None) -> None:
        self._clock = clock
        self._tick = 0
        self._open: dict[tuple[str, int], dict[str, Json]] = {}
        self._open_http: dict[tuple[str, int], dict[str, Json]] = {}
        self._calls: list[dict[str, Json]] = []
        self._ids: dict[str, str] = {}
        self._batches: dict[tuple[str, Json], int] = {}
        self._names: dict[str, str] = {}
        # The call inside whose body a run was started.
        self._inside: dict[str, Json] = {}
        self._shared = Shared()
        self._shaper = Shaper()

    def add(self, run: str, record: Record) -> None:
        type_ = record["type"]
        if type_ in {"http", "http.ended"}:
            self._add_http(run, record)
            return
        if type_ == "resolved" and record["landed"]:
            # A person says how it ended, because nobody else knows.
            record, type_ = {**record, "duration_s": 0.0}, "outcome"
        if type_ not in {"call", "outcome"}:
            if type_ == "run.started":
                self._start(run, record)
            return
        self._tick += 1
        n = cast("int", record["n"])
        if type_ == "call":
            call: dict[str, Json] = {**record, "run": run or self._ids.get("", ""), "start": self._tick}
            self._open[run, n] = call
            self._calls.append(call)
            call["number"] = len(self._calls)
            call["batch"] = self._batches.get((run, record.get("call_id")))
            parent = self._open.get((run, cast("int", record.get("parent") or 0)))
            call["parent_number"] = parent["number"] if parent is not None else self._inside.get(run)
        elif (run, n) in self._open:
            self._open[run, n].update({"outcome": dict(record), "end": self._tick})
            for call_id in cast("list[Json]", record.get("batch") or ()):
                if call_id is not None:
                    self._batches[run, call_id] = cast("int", self._open[run, n]["number"])

    def _add_http(self, run: str, record: Record) -> None:
        self._tick += 1
        key = run, cast("int", record["h"])
        if record["type"] == "http":
            parent = self._open.get((run, cast("int", record.get("parent") or 0)))
            self._open_http[key] = {
                "kind": "http",
                "name": record["name"],
                "req": record["req"],
                "decision": {"verdict": "allow", "rule": ""},
                "n": 0,
                "run": run or self._ids.get("", ""),
                "start": self._tick,
                "number": len(self._calls) + 1,
                "batch": None,
                "parent_number": parent["number"] if parent is not None else self._inside.get(run),
            }
            self._calls.append(self._open_http[key])
        elif key in self._open_http:
            self._open_http[key].update({"outcome": dict(record), "end": self._tick})

    def _start(self, run: str, record: Record) -> None:
        if not run:
            self._ids[""] = str(record["agent"])
        self._names[str(record["execution_id"])] = run
        parent = self._names.get(str(record.get("parent", "")))
        if parent is not None and record.get("parent_call") is not None:
            outer = self._open.get((parent, cast("int", record["parent_call"])))
            if outer is not None:
                self._inside[run] = outer["number"]

    def events(self) -> tuple[RecordedEvent, ...]:
        return tuple(self._event(call) for call in self._calls)

    def _event(self, call: Mapping[str, Json]) -> RecordedEvent:
        outcome = cast("Mapping[str, Json] | None", call.get("outcome"))
        decision = cast("Mapping[str, Json]", call["decision"])
        # What the agent asked for, not what a policy made of it: a replay compares the agent's requests.
        kind, name, run = str(call["kind"]), str(call["name"]), str(call["run"])
        given = cast("Mapping[str, Json]", call.get("given") or call["req"])
        request = self._shared.request(kind, run, given)
        denied = decision["verdict"] == "deny"
        error = usage = None
        if outcome is not None:
            if outcome.get("error") is not None:
                error = error_from_json(cast("Mapping[str, Json]", outcome["error"]))
            if outcome.get("usage") is not None:
                usage = usage_from_json(cast("Mapping[str, Json]", outcome["usage"]))
        return RecordedEvent(
            n=cast("int", call["number"]),
            kind=kind,
            name=name,
            run=run,
            start=cast("int", call["start"]),
            end=cast("int", call.get("end") or (call["start"] if denied else self._tick + 1)),
            request=request,
            key=self._shaper.shape(kind, name, request, run, is_final=True).key,
            value=self._value(kind, outcome) if outcome is not None else None,
            error=error,
            usage=usage,
            decision=f"{decision['verdict']} {decision['rule']}".rstrip(),
            parent=cast("int | None", call["parent_number"]),
            attempts=cast("int", outcome.get("attempts", 1)) if outcome is not None else 1,
            finished=outcome is not None or denied,
            call_id=cast("str | None", call.get("call_id")),
            batch=cast("int | None", call["batch"]),
            scope=str(call.get("scope", "")),
            at=self._offset(outcome),
            took_s=(round(cast("float", outcome.get("duration_s") or 0.0), 3) or None) if outcome is not None else None,
            effect=cast("Effect | None", call.get("effect")),
            call_n=cast("int", call["n"]),
            redacted=frozenset(
                part for part, record in (("request", call), ("result", outcome or {})) if "redacted" in record
            ),
        )

    def _value(self, kind: str, outcome: Mapping[str, Json]) -> Json:
        value = outcome.get("res")
        if kind == "model" and isinstance(value, Mapping) and isinstance(value.get("message"), Mapping):
            return {**value, "message": self._shared.one(value["message"])}
        return value

    def _offset(self, outcome: Mapping[str, Json] | None) -> float | None:
        if outcome is None or self._clock is None:
            return None
        return round(cast("float", outcome["at"]) - self._clock, 6)
