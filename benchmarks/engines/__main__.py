"""One process of the benchmark: a worker of an engine, or its producer, which is told by its input what to submit.

python -m benchmarks.engines ENGINE worker|producer
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from importlib import import_module
from typing import Any

from benchmarks.engines.job import note


async def produce(engine: Any) -> None:
    async with engine.producer() as send:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            first, count, seconds, gap_s = json.loads(line)
            start = time.perf_counter()
            for job in range(first, first + count):
                if gap_s:
                    note("sent", job)
                await send(job, seconds)
                if gap_s:
                    await asyncio.sleep(gap_s)
            print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    found = import_module(f"benchmarks.engines.{sys.argv[1]}")
    if sys.argv[2] == "worker":
        found.worker()
    else:
        asyncio.run(produce(found))
