"""Lanes: threads that go from one sync node of a graph to the next, and back to the loop only where none is ready.

To hand a node to a thread and its report back to the loop costs more than all the rest of a node that does little.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from oao_harness.runtime.execute import tell
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.sync_parts import SyncPart
from oao_harness.runtime.workers import submit

__all__ = ["Attempt", "Lanes", "Slots"]


class Slots:
    """So many nodes run at the same time; whoever waits longest is next.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self.size: Final = size
        self.waiting = 0
        """How many wait for one just now."""
        self._semaphore = asyncio.Semaphore(size)

    async def __aenter__(self) -> None:
        self.waiting += 1
        try:
            await self._semaphore.acquire()
        finally:
            self.waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._semaphore.release()


class Attempt:
    """A node that has begun in a lane.

    Args:
        name: Its name.
        part: Its run, planned.
        own: The context that it runs in.
        loop: Of the walk.
        keep: Keeps the report that a function returns, or what it raises, of a node; returns False for None: somebody
            else has the report.
    """

    __slots__ = ("_context", "_keep", "_loop", "_name", "_part")

    def __init__(
        self,
        name: str,
        part: SyncPart,
        own: contextvars.Context,
        loop: asyncio.AbstractEventLoop,
        keep: Callable[[str, Callable[[], ExecutionReport | None]], bool],
    ) -> None:
        self._name, self._part, self._context, self._loop, self._keep = name, part, own, loop, keep

    def go(self, give_up: Callable[[], None]) -> bool:
        """Run it to its end, in this thread; return False where somebody else has ended it meanwhile.

        Args:
            give_up: Called on the loop when it was halted and had time to end.
        """
        return self._keep(self._name, lambda: self._context.run(self._part.go, self._loop, give_up))

    async def leave(self) -> bool:
        """End it although its thread still runs; return False where it has ended by itself."""
        failure: Exception | None = None
        report: ExecutionReport | None = None
        try:
            report = await self._part.report_without_it()
        except Exception as error:  # noqa: BLE001 - judged by who keeps it
            failure = error

        def found() -> ExecutionReport | None:
            if failure is not None:
                raise failure
            return report

        return self._keep(self._name, found)


class Lanes:
    """The lanes of one walk.

    Args:
        slots: A lane has one of them as long as it is at work.
        context: In which the lanes run.
        lock: Of the walk; held around every change of what is ready.
        begin: Begins with a node, in the order in which they were put here; None where it has ended with that.
        drop: Told how many nodes do not begin, because the walk stops.
        stops: Says whether it does.
    """

    def __init__(
        self,
        slots: Slots,
        context: contextvars.Context,
        lock: threading.RLock,
        *,
        begin: Callable[[str], Attempt | None],
        drop: Callable[[int], None],
        stops: Callable[[], bool],
    ) -> None:
        self._slots, self._context, self._lock = slots, context, lock
        self._begin, self._drop, self._stops = begin, drop, stops
        self._loop = asyncio.get_running_loop()
        self._ready: deque[str] = deque()
        self._count = 0
        """Lanes that are at work, or about to be."""
        self._beginning = threading.Lock()
        """Nodes begin one after the other, in the order in which they were put here, as they would on a loop."""
        self.idle: set[asyncio.Task[None]] = set()
        """Those that wait for a slot."""
        self.busy: set[asyncio.Task[None]] = set()

    def put(self, name: str) -> None:
        """Note a node that waits for nothing any more; `staff` follows."""
        self._ready.append(name)

    def staff(self) -> None:
        """Open as many lanes as are of use to the nodes that are ready."""
        with self._lock:
            more = min(len(self._ready), self._slots.size - self._count)
            if more > 0:
                self._count += more
                tell(self._loop, lambda: self._open(more))

    def _open(self, count: int) -> None:
        for _ in range(count):
            task = self._loop.create_task(self._lane(), context=self._context.copy())
            self.idle.add(task)
            task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self.busy.discard(task)
        if task in self.idle:
            # Cancelled before it had a slot.
            self.idle.discard(task)
            with self._lock:
                self._count -= 1
                self._stop_or_staff()

    async def _lane(self) -> None:
        async with self._slots:
            me = asyncio.current_task()
            if me is not None:
                self.idle.discard(me)
                self.busy.add(me)
            over = self._loop.create_future()
            lane = self._context.copy()
            submit(lambda: lane.run(self._work, over))
            await over

    def _work(self, over: asyncio.Future[None]) -> None:
        """Go from node to node, in a thread."""
        is_first = True
        while True:
            with self._beginning:
                name = self._next(is_first=is_first)
                attempt = self._begin(name) if name is not None else None
            is_first = False
            if name is None:
                break
            if attempt is not None and not attempt.go(functools.partial(self._give_up, attempt, over)):
                # Another lane has taken the place of this one.
                return
        tell(self._loop, lambda: _done(over))

    def _next(self, *, is_first: bool) -> str | None:
        """Return the node that a lane goes on with; None where the lane ends."""
        with self._lock:
            if self._stops() or not self._ready or (self._slots.waiting and not is_first):
                self._count -= 1
                self._stop_or_staff()
                return None
            name = self._ready.popleft()
            self.staff()
            return name

    def _stop_or_staff(self) -> None:
        if self._stops():
            dropped = len(self._ready)
            self._ready.clear()
            self._drop(dropped)
        else:
            self.staff()

    def _give_up(self, attempt: Attempt, over: asyncio.Future[None]) -> None:
        task = self._loop.create_task(self._left(attempt, over), context=self._context.copy())
        self.busy.add(task)
        task.add_done_callback(self.busy.discard)

    async def _left(self, attempt: Attempt, over: asyncio.Future[None]) -> None:
        if await attempt.leave():
            with self._lock:
                self._count -= 1
                self._stop_or_staff()
            _done(over)


def _done(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
