"""Deliveries that need nothing of Docket's worker: many are begun in one step at the server, and ended in one.

What a worker of Docket does for a job costs more than a governed run that does little: a claim, dependencies, a span
and an end for each, one after the other. A job that no limit holds needs none of it. Its record is left as Docket
leaves it, so that adding, cancelling and handing back stay Docket's.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from docket.execution import Execution
from redis.exceptions import RedisError

from oao_harness.schedulers.cancelling import cancelled
from oao_harness.schedulers.redis_ended import LIVES_S
from oao_harness.schedulers.redis_lanes import Lane
from oao_harness.schedulers.redis_open import Begun, job_from, owner_of
from oao_harness.schedulers.redis_task import failed, hand_back, handed_back_after
from oao_hookspecs.schedulers import Handler, Later

__all__ = ["Direct", "Entry"]

_log: Final = logging.getLogger(__name__)

Entry = tuple[bytes, dict[bytes, bytes]]
"""Id and fields of what stands in a stream, checked."""

# What Docket's own claim does to a job's record, and what `begin` does to the set of open jobs.
_BEGIN: Final = """
local runs, stream, group, worker, now, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local found = {}
for i = 7, #ARGV, 4 do
    local key, id, generation, owner = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
    local known = redis.call('HMGET', runs .. key, 'generation', 'state')
    local superseded = generation > 0 and (not known[1] or tonumber(known[1]) > generation)
    local job = false
    if not superseded and known[2] ~= 'cancelled' then
        job = redis.call('HGET', KEYS[1], key)
        if job then
            redis.call('HSET', runs .. key, 'state', 'running', 'worker', worker, 'started_at', now)
            redis.call('HDEL', runs .. key, 'known', 'stream_id')
            redis.call('HSET', KEYS[3], key, owner)
        else
            redis.call('HSET', runs .. key, 'state', 'completed', 'completed_at', now)
            redis.call('HDEL', runs .. key, 'known', 'stream_id')
            redis.call('EXPIRE', runs .. key, ttl)
            redis.call('HDEL', KEYS[3], key)
        end
    end
    if job then
        found[#found + 1] = {job, redis.call('HGET', KEYS[2], key) or ''}
    else
        redis.call('XACK', stream, group, id)
        redis.call('XDEL', stream, id)
        found[#found + 1] = {}
    end
end
return found
"""
# As `OpenJobs.end`; where the job is done or cancelled, also what Docket's own end does, and who waits is told.
_END: Final = """
local runs, stream, group, now, ttl, lives = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local found = {}
for i = 7, #ARGV, 7 do
    local key, id, generation, owner = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
    local what, asked, told = ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
    local mine = redis.call('HGET', KEYS[3], key) == owner
    local word = 'DONE'
    if redis.call('HEXISTS', KEYS[1], key) == 0 then
        word = 'GONE'
    elseif not mine then
        word = 'TAKEN'
    elseif what == 'later' then
        word = 'LATER'
    elseif (redis.call('HGET', KEYS[2], key) or '') ~= asked then
        word = 'AGAIN'
    else
        redis.call('HDEL', KEYS[1], key)
        redis.call('HDEL', KEYS[2], key)
    end
    if mine then redis.call('HDEL', KEYS[3], key) end
    if word == 'DONE' or word == 'GONE' then
        local current = redis.call('HGET', runs .. key, 'generation')
        if generation == 0 or (current and tonumber(current) <= generation) then
            redis.call('HSET', runs .. key, 'state', 'completed', 'completed_at', now)
            redis.call('EXPIRE', runs .. key, ttl)
        end
        redis.call('XACK', stream, group, id)
        redis.call('XDEL', stream, id)
    end
    if told ~= '' then
        redis.call('INCR', told)
        redis.call('EXPIRE', told, lives)
        redis.call('PUBLISH', told, '1')
    end
    found[#found + 1] = word
end
return found
"""


@dataclass(slots=True, kw_only=True)
class _Delivery:
    lane: Lane
    entry: Entry
    key: str
    begun: Begun
    release: Callable[[bytes], None]
    """Frees its slot."""
    answer: Later | None = None
    told: str = ""
    """Where it is told that the run has ended; empty where nobody said that it has."""


class Direct:
    """Delivers jobs without Docket's worker.

    Args:
        client: Of the server, with patience.
        keys: Of the open jobs, of how often each was asked for, and of who has which.
        worker: Name of the worker.
        handler: Does a job.
        redelivery_s: Seconds after which a worker that is not heard of loses its jobs.
    """

    def __init__(self, client: Any, keys: Sequence[str], worker: str, handler: Handler, redelivery_s: float) -> None:
        self._worker = worker
        self._handler = handler
        self._redelivery_s = redelivery_s
        self._keys = list(keys)
        self._begin: Any = client.register_script(_BEGIN)
        self._end: Any = client.register_script(_END)
        self._deliveries: dict[str, tuple[_Delivery, asyncio.Task[Later | None]]] = {}
        self._ended_by: dict[str, str] = {}
        self._ends: list[_Delivery] = []
        self._ending = False
        self._giving_up = False
        self._closing = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def at_work(self) -> list[str]:
        """The keys of the jobs that have begun."""
        return list(self._deliveries)

    # Begin

    def deliver(self, lane: Lane, entries: Sequence[Entry], release: Callable[[bytes], None]) -> None:
        """Have jobs done.

        Args:
            lane: Where they stand.
            entries: Checked, and of the one task.
            release: Told the id of an entry that is no longer this worker's.
        """
        self._spawn(self._deliver(lane, entries, release))

    async def _deliver(self, lane: Lane, entries: Sequence[Entry], release: Callable[[bytes], None]) -> None:
        owners = [owner_of(self._worker) for _ in entries]
        args: list[Any] = [lane.runs_key(""), lane.stream_key, lane.worker_group_name, self._worker, _now(), _ttl(lane)]
        for (id_, fields), owner in zip(entries, owners, strict=True):
            args += [fields[b"key"], id_, fields[b"generation"], owner]
        try:
            answers: list[list[bytes]] = await self._begin(keys=self._keys, args=args)
        except (RedisError, OSError):
            _log.warning("jobs cannot be begun; they are delivered again", exc_info=True)
            for id_, _ in entries:
                release(id_)
            return
        for entry, owner, answer in zip(entries, owners, answers, strict=True):
            id_, key = entry[0], entry[1][b"key"].decode()
            job = job_from(answer[0]) if answer else None
            if job is None:
                _log.info("a delivery of %s is dropped: it was cancelled, or is done", key)
                release(id_)
                continue
            begun = Begun(job=job, asked=answer[1], owner=owner)
            self._start(_Delivery(lane=lane, entry=entry, key=key, begun=begun, release=release))

    def _start(self, delivery: _Delivery) -> None:
        if self._giving_up:
            delivery.answer = Later(after_s=0, reason="given up")
            self._end_soon(delivery)
            return
        task = self._spawn(_awaited(self._handler(delivery.begun.job)))
        self._deliveries[delivery.key] = delivery, task
        task.add_done_callback(functools.partial(self._handled, delivery))

    # End

    def _handled(self, delivery: _Delivery, task: asyncio.Task[Later | None]) -> None:
        reason = ""
        if self._deliveries.get(delivery.key) == (delivery, task):
            del self._deliveries[delivery.key]
            reason = self._ended_by.pop(delivery.key, "")
        if task.cancelled():
            if not reason and self._closing:
                # The process ends. Its entry stays, and another worker has it later.
                delivery.release(delivery.entry[0])
                return
            delivery.answer = Later(after_s=0 if reason else self._redelivery_s, reason=reason or "cancelled")
        elif (error := task.exception()) is None:
            delivery.answer = task.result()
        else:
            delivery.answer = failed(delivery.begun.job, error, int(delivery.entry[1][b"attempt"]), self._redelivery_s)
        self._end_soon(delivery)

    def _end_soon(self, delivery: _Delivery) -> None:
        self._ends.append(delivery)
        if not self._ending:
            self._ending = True
            self._spawn(self._end_all())

    def end_tells(self, key: str, channel: str) -> bool:
        """Let the end of a delivery tell who waits for the run, in the same step.

        Args:
            key: Of the job.
            channel: What is told.

        Returns:
            False where this worker does not have the job.
        """
        found = self._deliveries.get(key)
        if found is not None:
            found[0].told = channel
        return found is not None

    async def _end_all(self) -> None:
        """End what has come to its end meanwhile, together: while one answer is awaited, the next ones gather."""
        try:
            while self._ends:
                ends, self._ends = self._ends, []
                by_lane: dict[Lane, list[_Delivery]] = {}
                for one in ends:
                    by_lane.setdefault(one.lane, []).append(one)
                for lane, some in by_lane.items():
                    await self._end_some(lane, some)
        finally:
            self._ending = False

    async def _end_some(self, lane: Lane, ends: Sequence[_Delivery]) -> None:
        args: list[Any] = [lane.runs_key(""), lane.stream_key, lane.worker_group_name, _now(), _ttl(lane), LIVES_S]
        for one in ends:
            what = "done" if one.answer is None else "later"
            args += [
                one.key,
                one.entry[0],
                one.entry[1][b"generation"],
                one.begun.owner,
                what,
                one.begun.asked,
                one.told,
            ]
        try:
            answers: list[bytes] = await self._end(keys=self._keys, args=args)
        except (RedisError, OSError):
            _log.warning("jobs cannot be ended; they are delivered again", exc_info=True)
            for one in ends:
                one.release(one.entry[0])
            return
        for one, word in zip(ends, answers, strict=True):
            after_s = handed_back_after(one.begun.job, word.decode(), one.answer, self._redelivery_s)
            if after_s is None:
                one.release(one.entry[0])
            else:
                self._spawn(self._hand_back(one, after_s))

    async def _hand_back(self, delivery: _Delivery, after_s: float) -> None:
        id_, fields = delivery.entry
        try:
            execution = await Execution.from_message(delivery.lane, fields, message_id=id_, sync=False)
            await hand_back(execution, after_s)
        except (RedisError, OSError):
            _log.warning("%s cannot be handed back; it is delivered again", delivery.key, exc_info=True)
        finally:
            delivery.release(id_)

    # For the worker

    def cancel(self, key: str) -> None:
        """End a delivery whose job was cancelled."""
        self._stop(key, "cancelled")

    def give_up(self) -> None:
        """Hand back all jobs, and those that come."""
        self._giving_up = True
        for key in self.at_work:
            self._stop(key, "given up")

    def _stop(self, key: str, reason: str) -> None:
        found = self._deliveries.get(key)
        if found is not None and key not in self._ended_by:
            self._ended_by[key] = reason
            found[1].cancel()

    async def ended(self, timeout_s: float | None = None) -> None:
        """Wait until nothing is at work."""
        loop = asyncio.get_running_loop()
        until = None if timeout_s is None else loop.time() + timeout_s
        while self._tasks and (until is None or loop.time() < until):
            await asyncio.wait(set(self._tasks), timeout=None if until is None else until - loop.time())

    async def close(self) -> None:
        """Stop what is still at work."""
        self._closing = True
        await cancelled(tuple(self._tasks))


async def _awaited(work: Awaitable[Later | None]) -> Later | None:
    return await work


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _ttl(lane: Lane) -> int:
    return int(lane.execution_ttl.total_seconds())
