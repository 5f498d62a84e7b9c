"""The lanes of a fleet's queue, each a Docket of its own. Owns where a job stands, not who does it.

All lanes share the records of jobs, the limits and the workers; each has its own stream, so that one priority never
waits behind another. What is overridden of Docket is public; what it leaves to the pinned version is in the tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from docket import Docket
from docket.strikelist import StrikeList

from oao_harness.schedulers.redis_task import oao_job
from oao_harness.schedulers.redis_urls import Place
from oao_hookspecs.schedulers import Job

__all__ = ["LANES", "NESTED", "Lane", "lane_of", "open_lanes"]

LANES: Final[Mapping[str, int]] = {"high": 16, "normal": 4, "low": 1}
"""Priorities, and how many of each are taken where all of them wait: a high one first, a low one not never."""
NESTED: Final = "nested"

_RECORD_LIVES: Final = timedelta(minutes=5)
"""How long Docket remembers that a job was done or cancelled; the journal knows it for good."""


def lane_of(job: Job) -> str:
    """Return the lane of a job: parts of other runs have one of their own, with slots of its own."""
    return NESTED if job.nested else job.priority


class Lane(Docket):
    """A Docket that shares everything but its stream with the other lanes of the same prefix.

    Args:
        place: The server.
        lane: Its name.
        client: Sends its commands.
    """

    def __init__(self, place: Place, lane: str, client: Any) -> None:
        super().__init__(name=place.prefix, url=place.url, execution_ttl=_RECORD_LIVES)
        self.lane = lane
        self.client = client
        self._strikes = StrikeList()
        self.register(oao_job)

    @property
    def stream_key(self) -> str:
        """Jobs that wait, and those that are done now."""
        return self.key(f"stream:{self.lane}")

    @property
    def queue_key(self) -> str:
        """Jobs whose time has not come."""
        return self.key(f"queue:{self.lane}")

    @property
    def redelivery_sweep_key(self) -> str:
        """Who looks for jobs of dead workers."""
        return self.key(f"leases:redelivery-sweep:{self.lane}")

    @property
    def strike_list(self) -> StrikeList:
        """Strikes of nobody: Docket's own read a stream with cloudpickle, which would run whatever code is in it."""
        return self._strikes

    @strike_list.setter
    def strike_list(self, value: StrikeList) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        del value

    @asynccontextmanager
    async def redis(self) -> AsyncGenerator[Any, None]:
        """Lend the client that was given: it tries again, and checks what it reads."""
        yield self.client


async def open_lanes(stack: AsyncExitStack, place: Place, clients: Mapping[str, Any]) -> dict[str, Lane]:
    """Open all lanes.

    Args:
        stack: Closes them.
        place: The server.
        clients: By the name of the lane.
    """
    lanes = {name: Lane(place, name, client) for name, client in clients.items()}
    await asyncio.gather(*(stack.enter_async_context(lane) for lane in lanes.values()))
    return lanes
