"""The job that every engine carries, and what the benchmark tells a process of it.

A job writes down when it begins and when it ends, in one file for all processes: what is measured is what ran, not what
an engine says of it. Lines are short and the file is opened for appending, so lines of several processes never mix.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

VARIABLE = "OAO_FLEET_BENCHMARK"

Send = Callable[[int, float], Awaitable[object]]
"""Submits a job: its number, and the seconds that it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a process of the benchmark is told."""

    redis: str
    """URL of the server."""
    log: str
    """Where jobs write down what they do."""
    slots: int
    """Jobs that a worker does at once."""
    lease_s: float
    """Seconds after which the jobs of a worker that is not heard of are another one's, where the engine has that."""
    profile: str = ""
    """Where a worker of ours writes its profile when it is told to stop; empty for none."""

    @property
    def connections(self) -> str:
        """The URL with room for a connection of each slot, for clients of redis-py, which allow 100 by default."""
        return f"{self.redis}?max_connections={2 * self.slots + 50}"


def settings() -> Settings:
    return Settings(**json.loads(os.environ[VARIABLE]))


@functools.cache
def log_and_worker() -> tuple[int, int]:
    """Return the log's file, and the worker that this process belongs to.

    An engine may fork, but stays in the session that its worker was started in. Not kept as constants of the module: to
    a journal those of another worker are other code, with which a run does not go on.
    """
    return os.open(settings().log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), os.getsid(0)


def note(what: str, job: int) -> None:
    log, worker = log_and_worker()
    os.write(log, f"{time.monotonic():.6f} {what} {job} {worker}\n".encode())


async def work(job: int, seconds: float) -> int:
    note("begun", job)
    if seconds:
        await asyncio.sleep(seconds)
    note("ended", job)
    return job


def work_in_thread(job: int, seconds: float) -> int:
    note("begun", job)
    if seconds:
        time.sleep(seconds)
    note("ended", job)
    return job
