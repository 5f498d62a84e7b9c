"""One run's pen: numbers the records of a run and hands them to its store, in one total order."""

from __future__ import annotations

import threading
from collections.abc import Callable

from oao_harness.journal.records import VERSION
from oao_hookspecs import Clock, Json, Record, Store

__all__ = ["Tap", "Writer"]

Tap = Callable[[Record], None]
"""Hears every record after the store has kept it."""


class Writer:
    """Appends the records of one run.

    Args:
        store: Where the records go.
        execution_id: The run.
        clock: Stamps the records.
        tap: Hears every record after it is kept, in journal order.
    """

    __slots__ = ("_clock", "_epoch", "_execution_id", "_lock", "_seq", "_store", "_tap")

    def __init__(self, store: Store, execution_id: str, clock: Clock, tap: Tap | None = None) -> None:
        self._store = store
        self._execution_id = execution_id
        self._clock = clock
        self._tap = tap
        self._epoch = store.claim(execution_id)
        self._seq = 0
        self._lock = threading.Lock()

    def continue_after(self, seq: int) -> None:
        """Number the next record after one that the journal holds already."""
        self._seq = seq

    def append(self, type: str, fields: dict[str, Json]) -> None:
        """Write one record.

        Args:
            type: Record type, see `records`.
            fields: The record's own fields; taken over, not copied.

        Raises:
            StoreError: The store did not keep it; nothing may happen that depends on it.
        """
        with self._lock:
            seq = self._seq + 1
            record: dict[str, Json] = {"v": VERSION, "seq": seq, "type": type, "at": self._clock.time(), **fields}
            self._store.append(self._execution_id, self._epoch, record)
            self._seq = seq
            if self._tap is not None:
                self._tap(record)
