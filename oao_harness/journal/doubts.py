"""Calls of an interrupted run that nobody knows about: they began, they have no outcome, and may not be made again.

A person who looks says whether the call landed; the answer goes into the journal, where a resumed run finds it.

```text
resolved   n, landed, by [, note, res]
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from oao_hookspecs import Json, Record

__all__ = ["Doubt", "doubts_of", "is_end", "is_said", "is_suspended", "is_unsafe", "repeatable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One call in doubt."""

    execution_id: str
    n: int
    agent_name: str
    tool: str
    arguments: Mapping[str, Json]
    began_at: float
    """Unix seconds."""

    @property
    def id(self) -> str:
        """What a person names it by; also the idempotency key that the call had."""
        return f"{self.execution_id}#{self.n}"


def is_end(record: Record) -> bool:
    """Return True for a record that says how a call ended: its outcome, or a person's word that it landed."""
    return record["type"] == "outcome" or (record["type"] == "resolved" and bool(record["landed"]))


def is_said(records: Sequence[Record], doubts: Sequence[Doubt]) -> bool:
    """Return True where the run was suspended for these very calls, and nothing happened since."""
    last = records[-1]
    return bool(doubts) and last["type"] == "run.suspended" and last.get("in_doubt") == [doubt.n for doubt in doubts]


def is_suspended(records: Sequence[Record]) -> bool:
    """Return True where the run was suspended, and since then only people have written to its journal."""
    for record in reversed(records):
        if record["type"] == "run.suspended":
            return True
        if record["type"] not in {"approval.answered", "resolved", "redaction"}:
            return False
    return False


def repeatable(records: Sequence[Record]) -> frozenset[int]:
    """Return the numbers of the calls without an outcome that may be made again, whatever their tools say.

    Those whose bodies waited for a person, and those of which a person said that they did not happen.
    """
    found: set[int] = set()
    for record in records:
        if record["type"] == "run.suspended":
            found.update(cast("Sequence[int]", record.get("inside") or ()))
        elif record["type"] == "resolved" and not record["landed"]:
            found.add(cast("int", record["n"]))
        elif record["type"] in {"again", "outcome", "resolved"}:
            found.discard(cast("int", record["n"]))
    return frozenset(found)


def doubts_of(records: Sequence[Record]) -> list[Doubt]:
    """Return the calls of a run that a person must decide about before it can go on, in the order they began.

    Args:
        records: Its journal.
    """
    if not records or any(record["type"] == "run.finished" for record in records):
        return []
    ended: set[int] = set()
    calls: dict[int, Record] = {}
    for record in records:
        if record["type"] == "call":
            calls[cast("int", record["n"])] = record
        elif is_end(record):
            ended.add(cast("int", record["n"]))
    again = repeatable(records)
    started = records[0]
    return [
        Doubt(
            execution_id=str(started["execution_id"]),
            n=n,
            agent_name=str(started["agent"]),
            tool=str(call["name"]),
            arguments=cast("Mapping[str, Json]", call["req"]),
            began_at=cast("float", call["at"]),
        )
        for n, call in calls.items()
        if n not in again and is_unsafe(call) and not _is_inside_of(call, ended, calls) and n not in ended
    ]


def is_unsafe(call: Record) -> bool:
    """Return True for a call that happened, or may have, and that would be a second effect if it were made again."""
    verdict = cast("Mapping[str, Json]", call["decision"])["verdict"]
    return verdict != "deny" and call["kind"] == "tool" and call.get("effect") not in {"pure", "idempotent"}


def _is_inside_of(call: Record, ended: set[int], calls: Mapping[int, Record]) -> bool:
    """Return True for a call in the body of one that ended: that one's outcome stands for it."""
    parent = cast("int | None", call.get("parent"))
    while parent is not None:
        if parent in ended:
            return True
        parent = cast("int | None", calls[parent].get("parent")) if parent in calls else None
    return False
