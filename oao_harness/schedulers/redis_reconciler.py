"""Adds again what the queue forgot. Owns the comparison of the open jobs with what stands in the lanes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from redis.exceptions import RedisError

from oao_harness.schedulers.redis_entries import TASK, arguments_of
from oao_harness.schedulers.redis_lanes import Lane, lane_of
from oao_harness.schedulers.redis_open import OpenJobs
from oao_hookspecs.schedulers import Job

__all__ = ["Reconciler"]

_log: Final = logging.getLogger(__name__)
_PAGE: Final = 500


class Reconciler:
    """Looks for open jobs that stand nowhere; one worker of the fleet does, once per interval.

    Args:
        client: Of the server, with patience.
        lanes: By name.
        jobs: The open ones.
        worker: Name of this worker.
        interval_s: Seconds between two looks.
    """

    def __init__(self, client: Any, lanes: Mapping[str, Lane], jobs: OpenJobs, worker: str, interval_s: float) -> None:
        self._client = client
        self._lanes = lanes
        self._jobs = jobs
        self._worker = worker
        self._interval_s = interval_s
        self._leader = next(iter(lanes.values())).key("reconciler")

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                if await self._client.set(self._leader, self._worker, nx=True, px=int(self._interval_s * 1000)):
                    await self.look()
            except (RedisError, OSError):
                _log.warning("open jobs cannot be compared with the queue; trying again", exc_info=True)
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Add again what stands nowhere at two looks: between two places of the queue a job is seen at neither."""
        missing = await self._missing(await self._jobs.all())
        if missing:
            await asyncio.sleep(min(1.0, self._interval_s / 4))
            for key in await self._missing(missing):
                job = await self._jobs.get(key)
                if job is None:
                    continue
                _log.warning("run %s is open and the queue has forgotten it; it is added again", job.execution_id)
                when = datetime.fromtimestamp(max(job.not_before, time.time()), UTC)
                # Not `add`: the record of what was lost may still say that it is queued, or at work.
                await self._lanes[lane_of(job)].replace(TASK, when, key)(**arguments_of(job))
                await self._jobs.tally("added_again")
        running = await self._jobs.running()
        gone = await self._jobs.cancelled(list(running))
        held = await self._in_streams() if gone else set[str]()
        await self._jobs.forget_running([key for key in gone if key not in held])

    async def _in_streams(self) -> set[str]:
        """Return the keys of all entries of all lanes, those at work too."""
        found: set[str] = set()
        for lane in self._lanes.values():
            start = "-"
            while True:
                page: list[Any] = await self._client.xrange(lane.stream_key, start, "+", count=_PAGE)
                found.update(fields.get(b"key", b"").decode("utf-8", "replace") for _, fields in page)
                if len(page) < _PAGE:
                    break
                start = "(" + page[-1][0].decode()
        return found

    async def _missing(self, candidates: Mapping[str, Job]) -> dict[str, Job]:
        if not candidates:
            return {}
        # The streams first: a job moves from a queue to a stream, and is handed back in one step.
        held = await self._in_streams()
        suspects = [key for key in candidates if key not in held]
        found: dict[str, Job] = {}
        any_lane = next(iter(self._lanes.values()))
        for start in range(0, len(suspects), _PAGE):
            page = suspects[start : start + _PAGE]
            async with self._client.pipeline(transaction=False) as pipe:
                for key in page:
                    pipe.hmget(any_lane.runs_key(key), "waiter_stream", "waiter_entry_id")
                    for lane in self._lanes.values():
                        pipe.zscore(lane.queue_key, key)
                answers: list[Any] = await pipe.execute()
            width = 1 + len(self._lanes)
            for n, key in enumerate(page):
                (stream, entry), *scores = answers[n * width : (n + 1) * width]
                parked = stream and entry and await self._client.xrange(stream, entry, entry)
                if not parked and not any(score is not None for score in scores):
                    found[key] = candidates[key]
        return found
