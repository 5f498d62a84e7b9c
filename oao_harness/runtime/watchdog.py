"""The time limit of single calls: one daemon thread for the process, started when first needed."""

from __future__ import annotations

import functools
import heapq
import itertools
import os
import threading
from typing import Final

from oao_harness.errors import PolicyViolation
from oao_harness.runtime.run import Run

__all__ = ["Watch", "watch_call"]


class Watch:
    """One call that is watched.

    Args:
        run: Its run; halted where the call takes too long.
        n: Number of the call.
        what: Kind and name, for the reason.
        limit_s: Seconds it may take.
    """

    __slots__ = ("_limit_s", "_n", "_run", "_what", "due", "stopped")

    def __init__(self, run: Run, n: int, what: str, limit_s: float) -> None:
        self._run = run
        self._n = n
        self._what = what
        self._limit_s = limit_s
        self.due = run.clock.monotonic() + limit_s
        self.stopped = False

    def stop(self) -> None:
        """The call has ended."""
        self.stopped = True

    @property
    def left_s(self) -> float:
        """Seconds until the limit, on the clock of the run."""
        return self.due - self._run.clock.monotonic()

    def expire(self) -> None:
        """Halt the run, and those it is nested in whose limit it was."""
        reason = f"call_timeout: {self._what} took longer than {self._limit_s:g} s"
        for run in self._run.lineage:
            n = self._n if run is self._run else None
            run.halt_now(PolicyViolation(reason, rule="call_timeout", plugin="budget", n=n))
            if run.limits.call_timeout_s == self._limit_s:
                return


class _Watchdog:
    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._heap: list[tuple[float, int, Watch]] = []
        self._order = itertools.count()
        threading.Thread(target=self._watch, name="oao-watchdog", daemon=True).start()

    def add(self, watch: Watch) -> None:
        with self._lock:
            heapq.heappush(self._heap, (watch.due, next(self._order), watch))
            if self._heap[0][2] is watch:
                self._lock.notify()

    def _watch(self) -> None:
        while True:
            with self._lock:
                while self._heap and self._heap[0][2].stopped:
                    heapq.heappop(self._heap)
                left_s = self._heap[0][2].left_s if self._heap else None
                if left_s is None or left_s > 0:
                    self._lock.wait(left_s)
                    continue
                watch = heapq.heappop(self._heap)[2]
            watch.expire()


_making: Final = threading.Lock()


@functools.cache
def _watchdog() -> _Watchdog:
    return _Watchdog()


if hasattr(os, "register_at_fork"):
    # The child has the heap, but not its thread.
    os.register_at_fork(after_in_child=_watchdog.cache_clear)


def watch_call(run: Run, n: int, what: str) -> Watch | None:
    """Watch a call of a run until `Watch.stop`; None where no limit on single calls is set.

    Args:
        run: The run.
        n: Number of the call.
        what: Kind and name.
    """
    limit_s = run.call_timeout_s
    if limit_s is None:
        return None
    watch = Watch(run, n, what, limit_s)
    with _making:
        watchdog = _watchdog()
    watchdog.add(watch)
    return watch
