"""One run's pen: numbers the records of a run and hands them to its store, in one total order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oao_harness.journal.records import VERSION
from oao_hookspecs import Clock, Json, Record, Store

if TYPE_CHECKING:
    from oao_harness.journal.playback import Playback

__all__ = ["Commit", "Tap", "Writer"]

Tap = Callable[[Record], None]
"""Hears every record after the store has kept it."""


@dataclass(slots=True)
class Commit:
    """What a writer has to write."""

    execution_id: str
    epoch: int
    records: list[Record]
    _kept: Callable[[list[Record]], None]
    error: Exception | None = None

    def kept(self) -> None:
        """Say that the store has kept it."""
        self._kept(self.records)


class Writer:
    """Appends the records of one run.

    Args:
        store: Where the records go.
        execution_id: The run.
        clock: Stamps the records.
        tap: Hears every record after it is kept, in journal order.
        epoch: Of who has claimed the run already; None claims it.
    """

    __slots__ = ("_clock", "_lock", "_pending", "_playback", "_seq", "_store", "_tap", "epoch", "execution_id")

    def __init__(
        self, store: Store, execution_id: str, clock: Clock, tap: Tap | None = None, *, epoch: int | None = None
    ) -> None:
        self._store = store
        self.execution_id = execution_id
        self._clock = clock
        self._tap = tap
        self.epoch = store.claim(execution_id) if epoch is None else epoch
        self._seq = 0
        self._pending: list[Record] = []
        self._lock = threading.Lock()
        self._playback: Playback | None = None

    def continue_after(self, seq: int) -> None:
        """Number the next record after one that the journal holds already."""
        self._seq = seq

    def follow(self, playback: Playback, *, nested: bool) -> None:
        """Write in the order of the recording that the run plays; see `Playback.join`."""
        playback.join(self, self.execution_id, nested=nested)
        self._playback = playback

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return self._clock.time()

    def append(self, type: str, fields: dict[str, Json], event: int | None = None, *, later: bool = False) -> None:
        """Write one record; at once, unless it waits for its place in the recorded order.

        Args:
            type: Record type, see `records`.
            fields: The record's own fields; taken over, not copied.
            event: Number of the recorded event, for the records of a served call.
            later: True: nothing happens because of this record, so it may be written together with the next one.

        Raises:
            StoreError: The store did not keep it; nothing may happen that depends on it.
        """
        if self._playback is None:
            self.keep(type, fields, None, later=later)
        else:
            self._playback.append(self.execution_id, type, fields, event)

    def keep(self, type: str, fields: dict[str, Json], at: float | None, *, later: bool = False) -> None:
        """Write one record now.

        Args:
            type: Record type.
            fields: The record's own fields.
            at: Its moment in Unix seconds; None is now.
            later: See `append`.

        Raises:
            StoreError: The store did not keep it.
        """
        with self._lock:
            seq = self._seq + len(self._pending) + 1
            at = self._clock.time() if at is None else at
            record: dict[str, Json] = {"v": VERSION, "seq": seq, "type": type, "at": at, **fields}
            if later:
                self._pending.append(record)
            elif self._pending:
                self._write([*self._pending, record])
            else:
                # On the path of every call, twice.
                self._store.append(self.execution_id, self.epoch, record)
                self._seq = seq
                if self._tap is not None:
                    self._tap(record)

    def flush(self) -> None:
        """Write what waits for the next record.

        Raises:
            StoreError: The store did not keep it.
        """
        with self._lock:
            if self._pending:
                self._write(self._pending)

    @contextmanager
    def committing(self) -> Generator[Commit]:
        """Hold back whoever writes, while what waits for the next record is written; see `Group.commit`."""
        with self._lock:
            yield Commit(self.execution_id, self.epoch, self._pending, self._kept)

    def _write(self, records: list[Record]) -> None:
        self._store.append(self.execution_id, self.epoch, *records)
        self._kept(records)

    def _kept(self, records: list[Record]) -> None:
        self._seq += len(records)
        self._pending = []
        if self._tap is not None:
            for record in records:
                self._tap(record)
