"""What a redaction puts in place of a run's records: the same without what must not be kept. Pure.

A replacement keeps what others need: numbers, kinds, verdicts, ids of runs and questions, times, tokens, totals. It
says `redacted`, the digest of what stood there when it was written, so that the chain of hashes goes on over it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from oao_harness.journal.chain import is_original
from oao_harness.journal.secrets import REDACTED, Scrubber
from oao_hookspecs import Json, Record, digest_of, without_hash

__all__ = ["Redactor", "Wanted", "content_of", "declaration", "places"]

# Shorter ones stand in other texts by chance: they are only replaced where they were named, or where they were asked.
_SHORTEST: Final = 8
_TAG: Final = "$oao"
# What no text of a user's is written to.
_WORDS: Final = frozenset(
    {"type", "kind", "verdict", "would", "status", "state", "effect", "access", "hash", "redacted"}
)
# What the records of a run, and the rows of a store, are found by.
_NAMES: Final = frozenset(
    {"execution_id", "parent", "agent", "id", "approvals", "digest", "fingerprints", "oao", "forked"}
)
_NUMBERS: Final = frozenset(
    {"v", "seq", "at", "n", "h", "parent_call", "event", "attempts", "attempt", "delay_s", "duration_s", "usage"}
    | {"totals", "limits", "inside", "in_doubt", "requested_at", "expires_at", "needed", "index", "records", "landed"}
)
_CONTENT: Final = ("req", "given", "res", "error", "reason")
# What may repeat it.
_ABOUT: Final = ("call_id", "batch", "what", "note")
_KEPT: Final = _WORDS | _NAMES | _NUMBERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whole contents that shall go, whatever stands in them."""

    calls: Collection[int] = ()
    """Numbers of calls: what they asked, were asked about, and answered."""
    task: bool = False
    output: bool = False
    everything: bool = False
    """All calls and requests, the task, the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redactor:
    """Takes texts and contents out of the records of one run.

    Args:
        scrubber: Which texts go wherever they stand, and what stands for them.
        wanted: Which contents go.
    """

    scrubber: Scrubber
    wanted: Wanted = field(default_factory=Wanted)

    def replacements(self, records: Sequence[Record]) -> dict[int, Record]:
        """Return what is to be put in place of which record, by `seq`; empty where nothing is found.

        Args:
            records: The whole journal, as it is now, in order.
        """
        calls = {cast("int", one["n"]): one for one in records if one["type"] == "call"}
        going = _going(records, self.wanted)
        found: dict[int, Record] = {}
        previous = ""
        for record in records:
            old = without_hash(record)
            new = self._redacted(old, calls, going)
            if new != old:
                # Of one that was redacted before: what the chain was made over.
                kept = digest_of(old) if is_original(record, previous) else old.get("redacted", digest_of(old))
                found[cast("int", old["seq"])] = {**new, "redacted": kept}
            previous = str(record["hash"])
        return found

    def kept_back(self, records: Iterable[Record]) -> list[tuple[int, str]]:
        """Return where a text stands that runs are found by, as number of the record and name of the field."""
        return [
            (cast("int", record["seq"]), key)
            for record in records
            for key in sorted(_NAMES & record.keys())
            if self.scrubber.scrub(record[key]) != record[key]
        ]

    def note(self, note: str) -> str:
        """Return what a person says about the redaction without what it takes out."""
        return str(self.scrubber.scrub(note))

    def _redacted(self, record: Record, calls: Mapping[int, Record], going: Collection[Json]) -> Record:
        emptied = self._emptied(record, going)
        of = calls.get(cast("int", record.get("n") or 0), record)
        kind, name = str(of.get("kind", "tool")), str(of.get("name", ""))
        return {key: self._field(kind, name, key, value) for key, value in emptied.items()}

    def _field(self, kind: str, name: str, key: str, value: Json) -> Json:
        if key in _KEPT:
            return value
        if key in {"req", "given", "res", "error"} and self.scrubber.redact.paths:
            value = self.scrubber.placed(kind, name, "req" if key == "given" else key, value)
        if key == "decision" and isinstance(value, Mapping):
            return {part: one if part in _WORDS else self._text(one) for part, one in value.items()}
        return self._text(value)

    def _text(self, value: Json) -> Json:
        return self._with_numbers(self.scrubber.scrub(value))

    def _with_numbers(self, value: Json) -> Json:
        """Return a value without the numbers that read like what is looked for."""
        if isinstance(value, Mapping):
            return {key: one if key == _TAG else self._with_numbers(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._with_numbers(one) for one in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value if self.scrubber.scrub(str(value)) == str(value) else REDACTED
        return value

    def _emptied(self, record: Record, going: Collection[Json]) -> Record:
        """Return a record without the contents that are wanted gone."""
        wanted, type_ = self.wanted, record["type"]
        if type_ == "run.started" and (wanted.task or wanted.everything):
            return _without(record, ("task", "input"))
        if type_ == "run.finished" and (wanted.output or wanted.everything):
            return _without(record, ("output", *(("error",) if wanted.everything else ())))
        if type_ in {"approval.requested", "approval.answered"}:
            return _without(record, ("arguments", "call_id")) if record.get("id") in going else record
        if type_ in {"http", "http.ended"}:
            return _without(record, _CONTENT) if record["h"] in going else record
        if not wanted.everything:
            return _without(record, _CONTENT) if record.get("n") in wanted.calls else record
        decision = record.get("decision")
        judged = {"decision": _without(decision, ("reason",))} if isinstance(decision, Mapping) else {}
        return {**_without(record, (*_CONTENT, *_ABOUT)), **judged}


def _going(records: Iterable[Record], wanted: Wanted) -> set[Json]:
    """Return the ids of the questions about the calls that are wanted gone, and the numbers of their requests."""
    found: set[Json] = set()
    for record in records:
        type_ = record["type"]
        if type_ == "approval.requested" and wanted.everything:
            found.add(record["id"])
        elif type_ == "http" and (wanted.everything or record.get("parent") in wanted.calls):
            found.add(record["h"])
        elif type_ == "call" and record["n"] in wanted.calls:
            found.update(cast("Sequence[str]", record.get("approvals") or ()))
    return found


def _without(record: Record, names: Collection[str]) -> Record:
    return {key: _blank(value, key) if key in names else value for key, value in record.items()}


def _blank(value: Json, key: str = "") -> Json:
    """Return a value of the same form with nothing in it."""
    if value is None or (key in {"role", "type"} and isinstance(value, str)):
        return value
    if isinstance(value, Mapping) and _TAG not in value:
        return {name: _blank(one, name) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_blank(one) for one in value]
    return REDACTED


def content_of(records: Sequence[Record], wanted: Wanted) -> set[str]:
    """Return the longer texts inside of contents that are wanted gone: they stand in later requests too.

    Args:
        records: The whole journal.
        wanted: Which contents.
    """
    kinds = {record["n"]: record["kind"] for record in records if record["type"] == "call"}
    found: set[str] = set()
    for record in records:
        if record["type"] == "run.started" and wanted.task:
            found.update(_texts([record.get("task"), record.get("input")]))
        elif record["type"] == "run.finished" and wanted.output:
            found.update(_texts(record.get("output")))
        elif record.get("n") in wanted.calls:
            # A model is sent the whole conversation: what others said in it is not this call's.
            asked = [record.get("req"), record.get("given")] if kinds.get(record.get("n")) != "model" else []
            found.update(_texts([*asked, record.get("res"), record.get("error")]))
    return {text for text in found if len(text) >= _SHORTEST and text != REDACTED}


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            if key not in {"type", "role", _TAG}:
                yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def declaration(replaced: Mapping[int, Record], by: str, note: str) -> dict[str, Json]:
    """Return the fields of the record that says what was replaced.

    Args:
        replaced: What `Redactor.replacements` returned.
        by: Who redacts.
        note: Why.
    """
    listed: list[Json] = [{"seq": seq, "digest": digest_of(record)} for seq, record in sorted(replaced.items())]
    return {"by": by, "note": note, "records": listed}


def places(old: Json, new: Json) -> int:
    """Return how many values of a record are other ones in its replacement."""
    if isinstance(old, Mapping) and isinstance(new, Mapping) and old.keys() == new.keys():
        return sum(places(old[key], new[key]) for key in old)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return sum(places(one, other) for one, other in zip(old, new, strict=True))
    return int(old != new)
