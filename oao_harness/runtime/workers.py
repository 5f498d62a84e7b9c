"""Daemon threads that are used again: to run an agent under a deadline costs two hand-overs, not a new thread.

A worker whose agent hangs is simply never used again. Daemons, because a process must be able to end all the same; the
pools of `concurrent.futures` join their threads at exit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

__all__ = ["submit"]

_IDLE_S: Final = 10.0
"""How long an idle worker waits for more before it ends."""


class _Workers:
    """The idle workers of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[Callable[[], None]]] = []

    def submit(self, job: Callable[[], None]) -> None:
        with self._lock:
            jobs = self._idle.pop() if self._idle else None
        if jobs is not None:
            jobs.put(job)
            return
        fresh: SimpleQueue[Callable[[], None]] = SimpleQueue()
        fresh.put(job)
        threading.Thread(target=self._work, args=(fresh,), name="oao-worker", daemon=True).start()

    def _work(self, jobs: SimpleQueue[Callable[[], None]]) -> None:
        while True:
            try:
                job = jobs.get(timeout=_IDLE_S)
            except Empty:
                if self._retire(jobs):
                    return
                continue
            job()
            del job
            with self._lock:
                self._idle.append(jobs)

    def _retire(self, jobs: SimpleQueue[Callable[[], None]]) -> bool:
        """Return True where nobody has taken the worker since it last looked."""
        with self._lock:
            if jobs in self._idle:
                self._idle.remove(jobs)
                return True
            return False

    def forget(self) -> None:
        """After a fork: the child has the list, but none of the threads."""
        self._lock = threading.Lock()
        self._idle = []


# One for the process, as its threads are.
_workers: Final = _Workers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.forget)


def submit(job: Callable[[], None]) -> None:
    """Run a job in a daemon thread, soon.

    Args:
        job: Must not raise; what it raises ends its thread.
    """
    _workers.submit(job)
