"""Says whether a journal is what was written: follows its chain of hashes over every record. Pure.

A chain that was written anew from some record on is a chain again: only a hash that somebody kept elsewhere tells the
difference, see `Chain.place_of`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from oao_harness.errors import DamagedError
from oao_hookspecs import Json, Record, digest_of, link

__all__ = ["Chain", "Damage", "Redacted", "intact", "is_original", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """The first record that is not what was written."""

    seq: int
    """Its number, or the number that is missing."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redacted:
    """A record that was replaced, and by whom: of several times the last one."""

    seq: int
    type: str
    by: str
    note: str
    at: float
    """Unix seconds."""
    declared_in: int
    """Number of the record that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What a journal is worth."""

    hashes: tuple[str, ...]
    """Of the records that could be read, in order."""
    complete: bool
    """True where the run came to its end."""
    damage: Damage | None = None
    redacted: tuple[Redacted, ...] = ()

    @property
    def count(self) -> int:
        """How many records could be read."""
        return len(self.hashes)

    @property
    def head(self) -> str:
        """Hash of the last record, 64 hex digits: whoever keeps it elsewhere can tell that nothing was changed."""
        return self.hashes[-1] if self.hashes else ""

    def place_of(self, head: str) -> int | None:
        """Return the number of the record with a hash, or with one that begins so; None where none has it.

        What was appended since then is no damage: a run goes on, and a redaction is told at the end.
        """
        return next((seq for seq, one in enumerate(self.hashes, start=1) if head and one.startswith(head)), None)


def verify(records: Iterable[Record], execution_id: str = "") -> Chain:
    """Follow the chain of a journal.

    Args:
        records: With their hashes, as a store yields them; may raise `DamagedError` where one cannot be read.
        execution_id: The run that they are said to be of; empty where nobody says.
    """
    found: list[Record] = []
    replaced: set[int] = set()
    damage: Damage | None = None
    previous = ""
    walk = iter(records)
    while True:
        try:
            record = next(walk, None)
        except DamagedError as error:
            damage = damage or Damage(seq=len(found) + 1, why=str(error))
            break
        if record is None:
            break
        why = _why_damaged(record, len(found) + 1, previous)
        damage = damage or why
        if isinstance(record.get("seq"), int) and why is not None and why.seq != record["seq"]:
            # What is missing is said once.
            break
        found.append(record)
        if "redacted" in record and not is_original(record, previous):
            replaced.add(len(found))
        previous = str(record.get("hash", ""))
    if damage is None and found and execution_id and found[0].get("execution_id", execution_id) != execution_id:
        damage = Damage(seq=1, why=f"it began another run, {found[0]['execution_id']!r}")
    declared = _declared(found, replaced)
    problems = [*_undeclared(found, replaced, declared), *([damage] if damage is not None else [])]
    return Chain(
        hashes=tuple(str(one.get("hash", "")) for one in found),
        complete=any(one.get("type") == "run.finished" for one in found),
        damage=min(problems, key=lambda one: one.seq, default=None),
        redacted=tuple(
            Redacted(
                seq=seq,
                type=str(found[seq - 1].get("type")),
                by=str(told.get("by", "")),
                note=str(told.get("note") or ""),
                at=float(cast("float", told.get("at", 0.0))),
                declared_in=cast("int", told["seq"]),
            )
            for seq, (_, told) in sorted(declared.items())
            if seq in replaced
        ),
    )


def intact(records: Sequence[Record], execution_id: str) -> Sequence[Record]:
    """Return a journal that is what was written: for who is about to build on it.

    Raises:
        DamagedError: It is not; the message names the first record that is wrong.
    """
    damage = verify(records, execution_id).damage
    if damage is not None:
        raise DamagedError(
            f"run {execution_id!r}: record {damage.seq} is damaged: {damage.why}; nothing is done on it: restore the "
            f"store from a copy, or see what is left with `oao verify {execution_id}`"
        )
    return records


def _why_damaged(record: Record, expected: int, previous: str) -> Damage | None:
    seq = record.get("seq")
    if not isinstance(seq, int) or seq < expected:
        return Damage(seq=expected, why=f"another record stands in its place, numbered {seq!r}")
    if seq > expected:
        return Damage(seq=expected, why=f"it is missing: the next one is record {seq}")
    hashed = record.get("hash")
    if not isinstance(hashed, str):
        return Damage(seq=seq, why="it has no hash: it was changed, or written by an oao that knew no hashes")
    if is_original(record, previous) or link(previous, str(record.get("redacted"))) == hashed:
        return None
    return Damage(seq=seq, why="its hash does not follow from the one before it: it was changed")


def is_original(record: Record, previous: str) -> bool:
    """Return True for a record as it was written: also for the copy that a fork has of one that was redacted.

    Args:
        record: With its hash.
        previous: Hash of the one before it; empty for the first one.
    """
    return link(previous, digest_of(record)) == record.get("hash")


def _declared(records: Sequence[Record], replaced: Container[int]) -> Mapping[int, tuple[str, Record]]:
    """Return what redactions put in place of which record: its digest, and the record that says so, the last one."""
    declared: dict[int, tuple[str, Record]] = {}
    # From the end: a redaction that was redacted itself counts where a later one vouches for it.
    for record in reversed(records):
        if record.get("type") != "redaction" or not isinstance(record.get("seq"), int):
            continue
        own = cast("int", record["seq"])
        if own in replaced and declared.get(own, ("",))[0] != digest_of(record):
            continue
        for seq, digest in _listed(record):
            if 0 < seq < own:
                declared.setdefault(seq, (digest, record))
    return declared


def _listed(record: Record) -> Iterator[tuple[int, str]]:
    listed = record.get("records")
    for one in listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ():
        if isinstance(one, Mapping) and isinstance(one.get("seq"), int):
            yield cast("int", one["seq"]), str(one.get("digest"))


def _undeclared(
    records: Sequence[Record], replaced: Container[int], declared: Mapping[int, tuple[str, Record]]
) -> Iterator[Damage]:
    for seq, record in enumerate(records, start=1):
        told = declared.get(seq)
        if seq in replaced and told is None:
            yield Damage(seq=seq, why="something was put in its place, and no redaction says so")
        elif told is not None and digest_of(record) != told[0]:
            by: Json = told[1]["seq"]
            yield Damage(seq=seq, why=f"it is not what the redaction in record {by} put in its place")
