"""Measures a piece of code in this process: how often it is repeated is found out, both clocks are read.

Used by the functions that `Contender.make` names, which run in processes of their own; see `apart`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

Measure = Callable[[], dict[str, float]]
SLICE_VARIABLE = "OAO_BENCHMARK_SLICE_S"
QUICK_S = 0.05


def slice_s() -> float:
    """Return how long a round of one contender is to take, in seconds."""
    return float(os.environ.get(SLICE_VARIABLE, "0.15"))


def is_quick() -> bool:
    """Whether it is only tried out: what has a size of its own may be small then."""
    return slice_s() < QUICK_S


def figures(cpu_s: float, wall_s: float, count: int) -> dict[str, float]:
    """Return the figures of `count` repetitions that took so long together."""
    return {"cpu_us": cpu_s / count * 1e6, "wall_us": wall_s / count * 1e6}


def once(body: Callable[[], object], count: int) -> Measure:
    """Return what measures one execution of a function, for each of the `count` things that it does."""

    def measure() -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        body()
        return figures(time.process_time() - cpu, time.perf_counter() - wall, count)

    return measure


def timed(body: Callable[[], object], *, calls: int = 1) -> Measure:
    """Return what measures one repetition of a function, or one of the `calls` that it makes."""

    def repeat(count: int) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            body()
        return time.process_time() - cpu, time.perf_counter() - wall

    return _repeated(repeat, calls)


def timed_async(body: Callable[[], Awaitable[object]]) -> Measure:
    """Return what measures one repetition of a coroutine function, awaited one after the other in one loop."""

    async def repeat(count: int) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            await body()
        return time.process_time() - cpu, time.perf_counter() - wall

    return _repeated(lambda count: asyncio.run(repeat(count)), 1)


def _repeated(repeat: Callable[[int], tuple[float, float]], calls: int) -> Measure:
    count = 0

    def measure() -> dict[str, float]:
        nonlocal count
        if not count:
            repeat(1)
            once = max(repeat(3)[1] / 3, 1e-9)
            count = max(1, round(slice_s() / once))
        cpu, wall = repeat(count)
        return figures(cpu, wall, count * calls)

    return measure


def memory_kib(field: str) -> int:
    """Return a field of this process' memory, `VmRSS` (now) or `VmHWM` (the most since `forget_peak`), in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def forget_peak() -> None:
    """Begin the search for the most memory anew."""
    Path("/proc/self/clear_refs").write_text("5")
