"""Journals in memory: the default of `Orchestrator()`. Forgets the oldest finished runs, never an open one."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from oao_harness.stores.refusals import busy, fenced, gap, missing, require_own_seq
from oao_harness.stores.summaries import ENDS_LEASE, OPEN, after, tells
from oao_hookspecs import Record, RunQuery, RunSummary, digest_of, link

__all__ = ["MemoryStore"]


@dataclass(slots=True)
class _Run:
    """One run's journal."""

    epoch: int = 0
    owner: str = ""
    leased_until: float = 0.0
    """On the monotonic scale."""
    records: list[Record] = field(default_factory=list[Record])
    hashes: list[str] = field(default_factory=list[str])
    """Of the first records; the others get theirs when somebody reads them."""
    summary: RunSummary | None = None


class MemoryStore:
    """A store that lives as long as the process.

    Args:
        keep: How many finished runs are kept, >= 0; None keeps all.
    """

    def __init__(self, *, keep: int | None = 1000) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        self._started: dict[str, None] = {}
        """Ids of the runs that began, in that order."""
        # Not a dict: to find the first key of one takes longer with every key that was deleted before it.
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._deleted_epoch = 0
        """The highest epoch of a run that was forgotten: who wrote to it is not the next one that claims its id."""

    def claim(self, execution_id: str, *, owner: str = "", ttl_s: float = 0.0, over: int | None = None) -> int:
        """Become the only writer of a run; see `Store.claim`."""
        with self._lock:
            run = self._runs.get(execution_id)
            if run is None:
                run = self._runs[execution_id] = _Run(self._deleted_epoch)
            now = time.monotonic()
            if run.leased_until > now and over != run.epoch:
                raise busy(execution_id, run.epoch, run.owner, run.leased_until - now)
            run.epoch += 1
            run.owner, run.leased_until = owner, (now + ttl_s if ttl_s else 0.0)
            return run.epoch

    def renew(self, execution_id: str, epoch: int, ttl_s: float) -> None:
        """Let a lease live on; see `Store.renew`."""
        with self._lock:
            self._held(execution_id, epoch).leased_until = time.monotonic() + ttl_s

    def release(self, execution_id: str, epoch: int) -> None:
        """End a lease; see `Store.release`."""
        with self._lock:
            run = self._runs.get(execution_id)
            if run is not None and run.epoch == epoch:
                run.leased_until = 0.0

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        """Append records; see `Store.append`."""
        with self._lock:
            run = self._runs.get(execution_id)
            if run is None or run.epoch != epoch:
                raise fenced(execution_id, epoch)
            if len(records) == 1 and not tells(records[0]):
                # On the path of every call.
                (record,), kept = records, run.records
                if record["seq"] != len(kept) + 1:
                    raise gap(execution_id, record["seq"], len(kept))
                kept.append(record)
                return
            self._append(execution_id, run, records, {})

    def _held(self, execution_id: str, epoch: int) -> _Run:
        run = self._runs.get(execution_id)
        if run is None or run.epoch != epoch:
            raise fenced(execution_id, epoch)
        return run

    def _append(self, execution_id: str, run: _Run, records: Sequence[Record], replaced: Mapping[int, Record]) -> None:
        """Keep records; whatever can fail comes first, so that all of them are kept or none."""
        summary, telling = run.summary, False
        for seq, record in enumerate(records, start=len(run.records) + 1):
            if record["seq"] != seq:
                raise gap(execution_id, record["seq"], seq - 1)
            if tells(record):
                summary, telling = after(summary, execution_id, record), True
        for seq, record in replaced.items():
            run.records[seq - 1] = record
        run.records += records
        if not telling:
            return
        if any(record["type"] in ENDS_LEASE for record in records):
            run.leased_until = 0.0
        if summary is None:
            return
        run.summary = summary
        self._started.setdefault(execution_id)
        if summary.status in OPEN:
            self._finished.pop(execution_id, None)
        else:
            self._finished[execution_id] = None
            self._forget()

    def _forget(self) -> None:
        while self._keep is not None and len(self._finished) > self._keep:
            self._delete(next(iter(self._finished)))

    def _delete(self, execution_id: str) -> None:
        run = self._runs.pop(execution_id, None)
        if run is not None:
            self._deleted_epoch = max(self._deleted_epoch, run.epoch)
        self._started.pop(execution_id, None)
        self._finished.pop(execution_id, None)

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[Record]:
        """Yield the records of a run in order, with their hashes."""
        with self._lock:
            run = self._runs.get(execution_id)
            records = run.records[after:] if run is not None else []
            hashes = self._hashed(run)[after:] if run is not None else []
        for record, hashed in zip(records, hashes, strict=True):
            yield {**record, "hash": hashed}

    @staticmethod
    def _hashed(run: _Run) -> list[str]:
        """Return the hashes of all records: made when they are read, because most journals in memory never are."""
        previous = run.hashes[-1] if run.hashes else ""
        for record in run.records[len(run.hashes) :]:
            previous = link(previous, digest_of(record))
            run.hashes.append(previous)
        return list(run.hashes)

    def runs(self, limit: int | None = 100, *, offset: int = 0, query: RunQuery | None = None) -> Sequence[RunSummary]:
        """Return the newest runs first; see `Store.runs`."""
        with self._lock:
            found = [self._runs[id_].summary for id_ in reversed(self._started)]
        rows = [row for row in found if row is not None and (query is None or query.matches(row))]
        rows.sort(key=lambda row: row.started_at, reverse=True)
        return rows[offset:] if limit is None else rows[offset : offset + limit]

    def rewrite(self, execution_id: str, epoch: int, replaced: Mapping[int, Record], *records: Record) -> None:
        """Put other records in place of some; see `Store.rewrite`."""
        require_own_seq(execution_id, replaced)
        with self._lock:
            run = self._held(execution_id, epoch)
            self._hashed(run)
            for seq in replaced:
                if not 1 <= seq <= len(run.records):
                    raise missing(execution_id, seq, len(run.records))
            self._append(execution_id, run, records, replaced)

    def delete(self, execution_id: str) -> None:
        """Forget a run; see `Store.delete`."""
        with self._lock:
            self._delete(execution_id)

    def close(self) -> None:
        """Nothing to release."""
