"""The set of open jobs: the truth, of which the queue is a copy. Owns what is kept of a job, and who has it.

A job is written here before it is queued and removed when its handler said that nothing is left to do, or when it was
cancelled. An entry of the queue whose job is not here is not delivered.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, cast

from oao_hookspecs.schedulers import Job

__all__ = ["Begun", "OpenJobs", "job_from", "owner_of"]

_BEGIN: Final = """
local job = redis.call('HGET', KEYS[1], ARGV[1])
if not job then redis.call('HDEL', KEYS[3], ARGV[1]); return false end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
return {job, redis.call('HGET', KEYS[2], ARGV[1]) or ''}
"""
# GONE: cancelled. TAKEN: another delivery has it, so this one must not acknowledge. AGAIN: it was submitted meanwhile.
_END: Final = """
local mine = redis.call('HGET', KEYS[3], ARGV[1]) == ARGV[2]
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
    if mine then redis.call('HDEL', KEYS[3], ARGV[1]) end
    return 'GONE'
end
if not mine then return 'TAKEN' end
redis.call('HDEL', KEYS[3], ARGV[1])
if ARGV[3] == 'later' then return 'LATER' end
if (redis.call('HGET', KEYS[2], ARGV[1]) or '') ~= ARGV[4] then return 'AGAIN' end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 'DONE'
"""

_FIELDS: Final = tuple(Job.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A delivery that has begun."""

    job: Job
    asked: bytes
    """How often the job had been submitted; a later submit asks for another delivery."""
    owner: str
    """What is written of this delivery: the worker, and a token of its own."""


class OpenJobs:
    """The jobs of a fleet that are not over.

    Args:
        client: Of the server.
        prefix: What the fleet's keys begin with.
    """

    def __init__(self, client: Any, prefix: str) -> None:
        self._client = client
        self._open = f"{prefix}:open"
        self._asked = f"{prefix}:asked"
        self._running = f"{prefix}:running"
        self._counts = f"{prefix}:counts"
        self._keys = [self._open, self._asked, self._running]
        self._begin: Any = client.register_script(_BEGIN)
        self._end: Any = client.register_script(_END)

    async def add(self, key: str, job: Job) -> None:
        """Write a job down; one that is open stays as it was, but was asked for once more."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hsetnx(self._open, key, json.dumps(asdict(job)))
            pipe.hincrby(self._asked, key, 1)
            await pipe.execute()

    async def remove(self, key: str) -> Job | None:
        """Take a job out, and return it; None where it is not open."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hget(self._open, key)
            pipe.hdel(self._open, key)
            pipe.hdel(self._asked, key)
            found, *_ = await pipe.execute()
        return job_from(found)

    async def get(self, key: str) -> Job | None:
        """Return an open job."""
        return job_from(await self._client.hget(self._open, key))

    @property
    def keys(self) -> Sequence[str]:
        """Where the open jobs are, how often each was asked for, and who has which."""
        return self._keys

    async def begin(self, key: str, owner: str) -> Begun | None:
        """Write down who has a job from now on; None where it is over, or was never submitted."""
        found = await self._begin(keys=self._keys, args=[key, owner])
        job = job_from(found[0]) if found else None
        return Begun(job=job, asked=found[1], owner=owner) if job is not None else None

    async def end(self, key: str, begun: Begun, what: Literal["done", "later"]) -> str:
        """Write down that a delivery ended, if it still is the job's last one.

        Returns:
            DONE, LATER, GONE (cancelled), TAKEN (another delivery has it) or AGAIN (submitted while it ran).
        """
        answer = await self._end(keys=self._keys, args=[key, begun.owner, what, begun.asked])
        return cast("bytes", answer).decode()

    async def cancelled(self, keys: list[str]) -> list[str]:
        """Return which of these are not open."""
        found: list[bytes | None] = await self._client.hmget(self._open, keys) if keys else []
        return [key for key, job in zip(keys, found, strict=True) if job is None]

    async def all(self) -> dict[str, Job]:
        """Return every open job by its key."""
        found: dict[str, Job] = {}
        async for key, value in self._client.hscan_iter(self._open, count=500):
            if (job := job_from(value)) is not None:
                found[key.decode()] = job
        return found

    async def running(self) -> dict[str, str]:
        """Return the workers by the keys of the jobs that they have."""
        found: dict[bytes, bytes] = await self._client.hgetall(self._running)
        return {key.decode(): str(json.loads(owner)[0]) for key, owner in found.items()}

    async def forget_running(self, keys: list[str]) -> None:
        """Strike jobs off that no worker has."""
        if keys:
            await self._client.hdel(self._running, *keys)

    async def count(self) -> int:
        """Return how many are open."""
        return int(await self._client.hlen(self._open))

    async def tally(self, what: Literal["dropped", "added_again"], n: int = 1) -> None:
        """Count something that should not happen."""
        await self._client.hincrby(self._counts, what, n)


def owner_of(worker: str) -> str:
    """Return what is written of a delivery: the worker, and a token of its own."""
    return json.dumps([worker, secrets.token_hex(8)])


def job_from(value: bytes | None) -> Job | None:
    """Read a job as it was written; None for what is none: no worker may end of it."""
    if value is None:
        return None
    try:
        found = json.loads(value)
        return Job(**{name: found[name] for name in _FIELDS})
    except (ValueError, TypeError, KeyError):
        return None
