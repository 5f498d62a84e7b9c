"""The existing implementation's queue and worker, repaired: its report can be stored, and it finds the agent.

As it is no job ever succeeds: it cannot write the time in a report as JSON, and its only agent is a model of OpenAI
behind an `invoke` with the wrong arguments.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from oao.runtime import agent_factory, distributed_scheduler
from oao.worker import WorkerNode

from benchmarks.engines.job import Send, settings, work_in_thread

TOLD = settings()


class WithTimes:
    """`json`, where a time is written as text."""

    loads = staticmethod(json.loads)

    @staticmethod
    def dumps(value: Any) -> str:
        return json.dumps(value, default=datetime.isoformat)


class Agent:
    name = "job"

    def invoke(self, task: str, config: Any = None) -> dict[str, str]:
        number, seconds = task.split()
        return {"output": str(work_in_thread(int(number), float(seconds)))}


@asynccontextmanager
async def producer() -> AsyncIterator[Send]:
    scheduler = distributed_scheduler.DistributedScheduler(TOLD.redis)

    async def send(number: int, seconds: float) -> None:
        scheduler.submit_job({"task": f"{number} {seconds}", "framework": "langchain"})
        await asyncio.sleep(0)

    yield send


def worker() -> None:
    distributed_scheduler.json = WithTimes
    agent_factory.AgentFactory.create_agent = staticmethod(lambda framework: Agent())
    WorkerNode(TOLD.redis).start()
