"""Who watches runs, and how they hear of what is new: from this process at once, from others within a second.

The store is asked only while somebody watches, once for each watched run however many watch it, and once for the list
of runs. Whoever reads too slowly loses the connection, never holds up a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from itertools import islice
from typing import Final, TypeVar, cast

from oao_harness.errors import StoreError
from oao_hookspecs import Record, RunQuery, RunSummary, Store

__all__ = ["Feed", "SlowConsumer"]

T = TypeVar("T")
_log: Final = logging.getLogger(__name__)

_POLL_S: Final = 0.5
_TOGETHER_S: Final = 0.1
"""Seconds in which changes of rows are gathered."""
_KEPT: Final = 512
"""Records of one run that are kept for those who watch it."""
_BATCH: Final = 500
_ROWS: Final = 100
_MOST_CHANGED: Final = 1000
_MOST_EVENTS: Final = 1000
"""Events that may wait for one who listens to all."""
_OVER: Final = "run.finished"


class SlowConsumer(Exception):  # noqa: N818 - said to the consumer, no error of the server
    """Too much waits for somebody who does not read it."""


class _Tail:
    """The end of one run's journal, and who waits for more of it."""

    def __init__(self, at: int) -> None:
        self.at = at
        """Number of the last record that was read."""
        self.kept: deque[Record] = deque(maxlen=_KEPT)
        self.told = asyncio.Event()
        """Set when there is more; then another one takes its place."""
        self.watchers = 0

    def tell(self) -> None:
        """Wake all who wait."""
        told, self.told = self.told, asyncio.Event()
        told.set()

    def since(self, after: int) -> list[Record] | None:
        """Return the records after one; None where they are not kept any more."""
        if after >= self.at:
            return []
        first = self.at - len(self.kept)
        return None if after < first else list(islice(self.kept, after - first, None))


class Feed:
    """Tells of what is written to a store.

    Args:
        read: Where the runs are; asked in threads.
    """

    def __init__(self, read: Callable[[], Store]) -> None:
        self._store = read
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tails: dict[str, _Tail] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._closed = False
        self._rows = 0
        """How many watch the list of runs."""
        self._row_queues: set[asyncio.Queue[RunSummary | None]] = set()
        self._listeners: set[asyncio.Queue[tuple[str, Record] | None]] = set()
        self._changed: OrderedDict[str, None] = OrderedDict()
        self._lister: asyncio.Task[None] | None = None

    # What the store says, from any thread

    def appended(self, execution_id: str, records: Sequence[Record], _took_s: float) -> None:
        """Hear of records; see `ObservedStore`. Costs nothing while nobody watches."""
        loop = self._loop
        if loop is None or not (execution_id in self._tails or self._row_queues or self._listeners):
            return
        with contextlib.suppress(RuntimeError):
            # The loop may be closed by now.
            loop.call_soon_threadsafe(self._hear, execution_id, tuple(records))

    def _hear(self, execution_id: str, records: Sequence[Record]) -> None:
        if execution_id in self._tails:
            self._dirty.add(execution_id)
            self._wake.set()
        if self._row_queues:
            self._changed[execution_id] = None
        for queue in tuple(self._listeners):
            for record in records:
                if queue.qsize() >= _MOST_EVENTS:
                    # It learns that it was too slow by the end of its queue.
                    self._listeners.discard(queue)
                    break
                queue.put_nowait((execution_id, record))

    # Who watches

    @property
    def watchers(self) -> int:
        """How many watch anything."""
        return sum(tail.watchers for tail in self._tails.values()) + len(self._row_queues) + len(self._listeners)

    async def follow(self, execution_id: str, after: int = 0) -> AsyncGenerator[Sequence[Record]]:
        """Yield the records of a run after one, those that come later too; ends with the run, or with the server.

        Args:
            execution_id: The run.
            after: Number of the record behind which to begin, >= 0.
        """
        tail = self._tail(execution_id, after)
        tail.watchers += 1
        try:
            while True:
                found = tail.since(after)
                if found is None:
                    found = await self._read(execution_id, after)
                if found:
                    after = cast("int", found[-1]["seq"])
                    yield found
                    if any(record["type"] == _OVER for record in found):
                        return
                    continue
                if self._closed:
                    return
                if after >= tail.at:
                    await tail.told.wait()
        finally:
            tail.watchers -= 1
            if not tail.watchers and self._tails.get(execution_id) is tail:
                del self._tails[execution_id]

    async def rows(self) -> AsyncGenerator[RunSummary]:
        """Yield the rows of runs as they change, of this process and of others; ends with the server."""
        queue: asyncio.Queue[RunSummary | None] = asyncio.Queue(_MOST_EVENTS)
        async for row in self._listen(queue, self._row_queues):
            yield row

    async def events(self) -> AsyncGenerator[tuple[str, Record]]:
        """Yield what is written to any run in this process, as its id and the record; ends with the server.

        Raises:
            SlowConsumer: Too much waits.
        """
        queue: asyncio.Queue[tuple[str, Record] | None] = asyncio.Queue()
        async for event in self._listen(queue, self._listeners):
            yield event

    async def _listen(self, queue: asyncio.Queue[T | None], queues: set[asyncio.Queue[T | None]]) -> AsyncIterator[T]:
        self._begin()
        if self._closed:
            return
        queues.add(queue)
        if queues is self._row_queues and self._lister is None:
            self._lister = asyncio.create_task(self._list())
        try:
            while True:
                if queue not in queues and queue.empty():
                    raise SlowConsumer
                item = await queue.get()
                if item is None:
                    return
                yield item
        finally:
            queues.discard(queue)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        self._wake.set()
        for rows in self._row_queues:
            with contextlib.suppress(asyncio.QueueFull):
                rows.put_nowait(None)
        for events in self._listeners:
            events.put_nowait(None)
        for task in (self._pump, self._lister):
            if task is not None:
                task.cancel()
        for tail in self._tails.values():
            tail.tell()

    # What is behind it

    def _begin(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()

    def _tail(self, execution_id: str, after: int) -> _Tail:
        self._begin()
        tail = self._tails.get(execution_id)
        if tail is None:
            tail = self._tails[execution_id] = _Tail(after)
            self._dirty.add(execution_id)
            self._wake.set()
        if self._pump is None and not self._closed:
            self._pump = asyncio.create_task(self._follow_all())
        return tail

    async def _read(self, execution_id: str, after: int) -> list[Record]:
        return await asyncio.to_thread(_read, self._store(), execution_id, after)

    async def _follow_all(self) -> None:
        """Read on in the journals of all runs that somebody watches."""
        loop = asyncio.get_running_loop()
        looked = 0.0
        while True:
            if not self._tails:
                self._wake.clear()
                await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, looked + _POLL_S - loop.time()))
            self._wake.clear()
            due = set(self._dirty)
            self._dirty.clear()
            if loop.time() >= looked + _POLL_S:
                due |= set(self._tails)
                looked = loop.time()
            asked = [(id_, self._tails[id_].at) for id_ in due if id_ in self._tails]
            if not asked:
                continue
            try:
                found = await asyncio.to_thread(_read_all, self._store(), asked)
            except StoreError as error:
                _log.warning("the runs that are watched cannot be read: %s", error)
                continue
            # Many watched runs must not keep the store busy all the time.
            looked = max(looked, min(loop.time(), looked + 4 * (loop.time() - looked)))
            for id_, records in found:
                self._extend(id_, records)

    def _extend(self, execution_id: str, records: Sequence[Record]) -> None:
        tail = self._tails.get(execution_id)
        if tail is None or not records:
            return
        new = [record for record in records if cast("int", record["seq"]) > tail.at]
        if not new:
            return
        tail.kept.extend(new)
        tail.at = cast("int", new[-1]["seq"])
        if len(records) == _BATCH:
            self._dirty.add(execution_id)
            self._wake.set()
        tail.tell()

    async def _list(self) -> None:
        """Tell of rows that have changed, while somebody wants to know."""
        known: dict[str, RunSummary] | None = None
        loop = asyncio.get_running_loop()
        looked = 0.0
        while self._row_queues:
            await asyncio.sleep(_TOGETHER_S)
            if not self._changed and known is not None and loop.time() < looked + 2 * _POLL_S:
                continue
            asked = list(self._changed)[-_MOST_CHANGED:]
            self._changed.clear()
            looked = loop.time()
            try:
                rows = await asyncio.to_thread(_rows, self._store(), asked)
            except StoreError as error:
                _log.warning("the runs cannot be listed: %s", error)
                continue
            first, known = known is None, known or {}
            for row in rows:
                if known.get(row.execution_id) != row:
                    known[row.execution_id] = row
                    if not first or row.execution_id in asked:
                        self._tell(row)
            while len(known) > 2 * _MOST_CHANGED:
                del known[next(iter(known))]
        self._lister = None

    def _tell(self, row: RunSummary) -> None:
        for queue in tuple(self._row_queues):
            try:
                queue.put_nowait(row)
            except asyncio.QueueFull:
                self._row_queues.discard(queue)


def _read(store: Store, execution_id: str, after: int) -> list[Record]:
    return list(islice(store.read(execution_id, after=after), _BATCH))


def _read_all(store: Store, asked: Iterable[tuple[str, int]]) -> list[tuple[str, list[Record]]]:
    return [(id_, _read(store, id_, after)) for id_, after in asked]


def _rows(store: Store, asked: Sequence[str]) -> list[RunSummary]:
    """Return the newest rows, the oldest of them first, and those of some runs that are older."""
    newest = list(reversed(store.runs(_ROWS, query=RunQuery(outer=True))))
    there = {row.execution_id for row in newest}
    older = [
        row
        for id_ in asked
        if id_ not in there
        for row in store.runs(1, query=RunQuery(starts_with=id_, outer=True))
        if row.execution_id == id_
    ]
    return [*older, *newest]
