"""What every store says when it refuses a writer, in the same words."""

from __future__ import annotations

from oao_harness.errors import BusyError, FencedError, StoreError
from oao_hookspecs import Json

__all__ = ["busy", "fenced", "gap", "missing"]


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
