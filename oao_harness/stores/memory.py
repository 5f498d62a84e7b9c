"""Journals in memory: the default of `Orchestrator()`. Forgets the oldest finished runs, never an open one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from oao_harness.errors import FencedError, StoreError
from oao_harness.stores.summaries import MOVES, moved, opened, settled
from oao_hookspecs import Record, RunSummary

__all__ = ["MemoryStore"]


class MemoryStore:
    """A store that lives as long as the process.

    Args:
        keep: How many finished runs are kept, >= 0; None keeps all.
    """

    def __init__(self, *, keep: int | None = 1000) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._records: dict[str, list[Record]] = {}
        self._epochs: dict[str, int] = {}
        self._summaries: dict[str, RunSummary] = {}
        self._finished: dict[str, None] = {}

    def claim(self, execution_id: str) -> int:
        """Become the only writer of a run; see `Store.claim`."""
        with self._lock:
            epoch = self._epochs.get(execution_id, 0) + 1
            self._epochs[execution_id] = epoch
            self._records.setdefault(execution_id, [])
            return epoch

    def append(self, execution_id: str, epoch: int, record: Record) -> None:
        """Append one record; see `Store.append`."""
        with self._lock:
            if self._epochs.get(execution_id) != epoch:
                raise FencedError(f"run {execution_id!r}: epoch {epoch} was superseded; another writer has the run")
            records = self._records[execution_id]
            if record["seq"] != len(records) + 1:
                raise StoreError(f"run {execution_id!r}: record {record['seq']!r} after {len(records)} records")
            records.append(record)
            type_ = record["type"]
            if type_ == "run.started":
                self._summaries[execution_id] = opened(execution_id, record)
            elif type_ in MOVES and execution_id in self._summaries:
                self._summaries[execution_id] = moved(self._summaries[execution_id], record)
            elif type_ == "run.finished" and execution_id in self._summaries:
                self._summaries[execution_id] = settled(self._summaries[execution_id], record)
                self._finished[execution_id] = None
                self._forget()

    def _forget(self) -> None:
        while self._keep is not None and len(self._finished) > self._keep:
            oldest = next(iter(self._finished))
            del self._finished[oldest], self._records[oldest], self._epochs[oldest], self._summaries[oldest]

    def read(self, execution_id: str) -> Iterator[Record]:
        """Yield the records of a run in order."""
        with self._lock:
            records = list(self._records.get(execution_id, ()))
        yield from records

    def runs(self, limit: int = 100) -> Sequence[RunSummary]:
        """Return the newest runs first."""
        with self._lock:
            summaries = list(self._summaries.values())
        return summaries[: -limit - 1 : -1]

    def close(self) -> None:
        """Nothing to release."""
