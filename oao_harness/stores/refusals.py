"""What every store says when it refuses a writer or a reader, in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oao_harness.errors import BusyError, DamagedError, FencedError, StoreError
from oao_hookspecs import Json, Record

__all__ = ["busy", "damaged", "deleted_meanwhile", "fenced", "first_of", "gap", "missing", "require_own_seq"]

_MOST: int = 2**53


def busy(execution_id: str, epoch: int, owner: str, left_s: float) -> BusyError:
    """Return why a run cannot be claimed: another writer's lease holds."""
    who = owner or "another writer"
    reason = f"run {execution_id!r} is held by {who} for another {left_s:.0f} s; wait until it ends or stops"
    return BusyError(reason, epoch=epoch, owner=owner, left_s=left_s)


def fenced(execution_id: str, epoch: int) -> FencedError:
    """Return why a writer may write no more."""
    return FencedError(f"run {execution_id!r}: epoch {epoch} was superseded; another writer has the run")


def gap(execution_id: str, seq: Json, count: int) -> StoreError:
    """Return why a record cannot be the next one."""
    return StoreError(f"run {execution_id!r}: record {seq!r} after {count} records")


def missing(execution_id: str, seq: int, count: int) -> StoreError:
    """Return why a record cannot be replaced."""
    return StoreError(f"run {execution_id!r}: there is no record {seq}, it has {count}")


def damaged(execution_id: str, seq: int, why: str) -> DamagedError:
    """Return why a journal cannot be read from a record on."""
    return DamagedError(
        f"run {execution_id!r}: record {seq} is damaged: {why}; the records before it can be read, other runs are "
        "not touched; restore the store from a copy, or delete the run"
    )


def deleted_meanwhile(execution_id: str) -> StoreError:
    """Return why a journal that was being read ends too early."""
    return StoreError(f"run {execution_id!r} was deleted while it was read")


def first_of(execution_id: str, records: Sequence[Record]) -> int | None:
    """Return the number of the first record of a batch, or None where it can be no record's.

    Raises:
        StoreError: The others do not follow it.
    """
    first = records[0]["seq"]
    if type(first) is not int or not 1 <= first < _MOST:
        return None
    for seq, record in enumerate(records, start=first):
        if record["seq"] != seq:
            raise gap(execution_id, record["seq"], seq - 1)
    return first


def require_own_seq(execution_id: str, replaced: Mapping[int, Record]) -> None:
    """Refuse to put a record in the place of one with another number.

    Raises:
        StoreError: Its `seq` is not that of its place.
    """
    for seq, record in replaced.items():
        if record["seq"] != seq:
            raise StoreError(f"run {execution_id!r}: record {record['seq']!r} cannot take the place of record {seq}")
