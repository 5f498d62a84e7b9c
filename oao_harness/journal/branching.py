"""A new run with the beginning of an old one: the journals of both part at a call.

The calls before that one are copied with their outcomes, those of nested runs too; resuming the new run serves them.
What was approved and not used is left behind: an approval is good for one call, once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from oao_harness.errors import UsageError
from oao_harness.journal.chain import intact
from oao_harness.journal.doubts import is_end
from oao_harness.journal.edits import edited
from oao_harness.journal.leases import claim
from oao_hookspecs import Clock, Json, Record, Store, tenant_of, without_hash

__all__ = ["Edit", "beginning_of", "branch", "new_id", "where_it_ended"]

_OF_CALLS: Final = frozenset({"call", "outcome", "resolved", "again", "retry", "child"})
_LEFT_BEHIND: Final = frozenset({"run.finished", "run.suspended", "run.queued", "violation", "redaction"})


def new_id() -> str:
    """Return a new id for a run.

    Not of `os.urandom`: where a test plays its chance again, an id must neither be used twice nor use any of it up.
    """
    drawn = secrets.token_bytes(16).hex()
    variant = "89ab"[int(drawn[16], 16) & 3]
    # Source: RFC 9562, section 5.4. `uuid.UUID` takes ten times as long, which every run would pay.
    return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-{variant}{drawn[17:20]}-{drawn[20:]}"


@dataclass(frozen=True, slots=True)
class Edit:
    """What a call returns instead of what it returned."""

    result: Json


def branch(
    store: Store,
    execution_id: str,
    at: int,
    clock: Clock,
    *,
    edit: Edit | None = None,
    model: str | None = None,
    new: str = "",
    request: str = "",
) -> str:
    """Write the journal of a new run that has the beginning of another, ready to be resumed; return its id.

    Args:
        store: Where the run is, and the new one will be.
        execution_id: The run; it stays as it is.
        at: Number of the first call that the new run makes itself, from 1.
        clock: Stamps the first record.
        edit: What call `at` returns: then it is not made, and the next one is the first.
        model: Name of the model that the new run asks.
        new: Id of the new run; made up by default.
        request: Digest of the request that asks for it; kept, so that the same request is known again.

    Raises:
        UsageError: There is no such run or call, the run is nested in another, or the result cannot be put there.
        DamagedError: The journal is not what was written.
    """
    records = intact(list(store.read(execution_id)), execution_id)
    if not records:
        raise UsageError(f"there is no run {execution_id!r} in this store; `oao runs` lists them")
    if records[0].get("parent") is not None:
        raise UsageError(
            f"run {execution_id!r} is nested in run {records[0]['parent']!r}; fork that one at the call that started it"
        )
    calls = {cast("int", record["n"]): record for record in records if record["type"] == "call"}
    if at not in calls and (at != len(calls) + 1 or edit is not None):
        raise UsageError(f"run {execution_id!r} has no call #{at}; it has {len(calls)}: `oao show {execution_id[:8]}`")
    until = cast("float", calls[at]["at"]) if at in calls else float("inf")
    before = cast("int", calls[at]["seq"]) if at in calls else len(records) + 1
    kept = {n for n in calls if n < at or (n == at and edit is not None)}
    copy, new = _Copy(store), new or new_id()
    beginning = copy.of(records, kept, new, until=until, before=before)
    if edit is not None:
        beginning = _with_result(beginning, records, at, edit.result)
    forked: dict[str, Json] = {"run": execution_id, "at": at}
    forked |= {"edited": True} if edit is not None else {}
    forked |= {"model": model} if model is not None else {}
    forked |= {"request": request} if request else {}
    copy.write(new, [{**beginning_of(beginning[0]), "at": clock.time(), "forked": forked}, *beginning[1:]])
    return new


def beginning_of(started: Record) -> dict[str, Json]:
    """Return the first record of a fork: it waits for no worker, whoever forks it goes on, and is whose its source is.

    Args:
        started: First record of the run that is forked.
    """
    first = {key: value for key, value in without_hash(started).items() if key != "job"}
    tenant = tenant_of(started)
    return first if tenant_of(first) == tenant else {**first, "tenant": tenant}


def where_it_ended(records: Sequence[Record]) -> int:
    """Return the number of the call at which a run goes on: the last one where it failed, else the one after it.

    Args:
        records: The run's journal.
    """
    calls = [cast("int", record["n"]) for record in records if record["type"] == "call"]
    last = max(calls, default=0)
    ends = {cast("int", record["n"]): record for record in records if record["type"] == "outcome"}
    denied = any(record["type"] == "violation" and record.get("n") == last for record in records)
    failed = last in ends and "error" in ends[last]
    return last if last and (failed or denied) else last + 1


class _Copy:
    """Copies journals under new ids; a run nested in one before the run that it is nested in.

    Args:
        store: Where they are and will be.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, records: Sequence[Record], kept: set[int], new: str, *, until: float, before: int) -> list[Record]:
        """Return the records of a run that tell of some of its calls, and copy the runs nested in those.

        Args:
            records: Its journal.
            kept: Numbers of the calls.
            new: Id of the copy.
            until: Unix seconds; what nested runs that go on after that began later is left behind.
            before: Number of the first record that is left behind where it is of no call.
        """
        ended = {cast("int", record["n"]) for record in records if is_end(record)}
        used = {
            str(question)
            for record in records
            if record["type"] == "call" and record["n"] in kept
            for question in cast("Sequence[str]", record.get("approvals") or ())
        }
        found: list[Record] = []
        for record in records:
            if not self._belongs(record, before, kept, used):
                continue
            fields: dict[str, Json] = {}
            if record["type"] == "child":
                call = cast("int | None", record.get("n"))
                nested = self._nested(str(record["execution_id"]), float("inf") if call in ended else until, new)
                if nested is None:
                    continue
                fields["execution_id"] = nested
            found.append({**without_hash(record), **fields})
        return found

    def _belongs(self, record: Record, before: int, kept: set[int], used: set[str]) -> bool:
        type_ = str(record["type"])
        if type_ in _LEFT_BEHIND:
            return False
        if type_.startswith("approval."):
            return record["id"] in used
        if type_ in _OF_CALLS and record.get("n") is not None:
            return record["n"] in kept
        return cast("int", record["seq"]) < before

    def _nested(self, execution_id: str, until: float, outer: str) -> str | None:
        """Copy a nested run, as far as it had come; return its new id, or None where nothing is to be copied."""
        records = intact(list(self._store.read(execution_id)), execution_id)
        if not records or cast("float", records[0]["at"]) >= until:
            return None
        new, last = new_id(), records[-1]
        is_over = last["type"] == "run.finished" and cast("float", last["at"]) < until
        began = {
            cast("int", record["n"])
            for record in records
            if record["type"] == "call" and (is_over or cast("float", record["at"]) < until)
        }
        later = (
            cast("int", record["seq"]) for record in records if not is_over and cast("float", record["at"]) >= until
        )
        copied = self.of(
            records, began, new, until=float("inf") if is_over else until, before=min(later, default=len(records))
        )
        self.write(new, [{**copied[0], "parent": outer}, *copied[1:], *([without_hash(last)] if is_over else [])])
        return new

    def write(self, execution_id: str, records: Sequence[Record]) -> None:
        """Append records as a new run, all at once."""
        numbered: list[Record] = []
        for seq, record in enumerate(records, start=1):
            fields = {"execution_id": execution_id} if record["type"] == "run.started" else {}
            numbered.append({**record, **fields, "seq": seq})
        self._store.append(execution_id, claim(self._store, execution_id), *numbered)


def _with_result(beginning: list[Record], records: Sequence[Record], at: int, result: Json) -> list[Record]:
    """Return the records with another outcome of one call."""
    outcome = next((record for record in records if record["type"] == "outcome" and record["n"] == at), None)
    call = next(record for record in records if record["type"] == "call" and record["n"] == at)
    if cast("Mapping[str, Json]", call["decision"])["verdict"] == "deny":
        raise UsageError(f"call #{at} was denied: it has no result to edit; fork at it under another policy")
    recorded = outcome.get("res") if outcome is not None else None
    new: Record = {
        "v": call["v"],
        "seq": 0,
        "type": "outcome",
        "at": outcome["at"] if outcome is not None else call["at"],
        "n": at,
        "duration_s": 0.0,
        "res": edited(recorded, result, kind=str(call["kind"])),
        "edited": True,
    }
    if outcome is not None and "usage" in outcome:
        new = {**new, "usage": outcome["usage"]}
    rest = [one for one in beginning if not (is_end(one) and one["n"] == at)]
    return [*rest, new]
