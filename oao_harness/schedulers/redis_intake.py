"""What a worker takes from the queue: how many, of which lane, and nothing that was not checked.

Docket has a worker for each lane, and each would take as many jobs as it may have. Here they share their slots: one
puller takes jobs for all lanes of a group, by weight where several wait, and hands them to the lanes' workers.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from oao_harness.schedulers.redis_entries import Checked, checked
from oao_harness.schedulers.redis_lanes import Lane
from oao_harness.schedulers.redis_open import OpenJobs

__all__ = ["CheckedClient", "Deliver", "Intake"]

_log: Final = logging.getLogger(__name__)
_BLOCK_MS: Final = 500
"""How long one question for new jobs waits at the server; the end of a worker waits no longer."""
_IDLE_S: Final = 0.25

_BURST: Final = 8
"""How many times its weight a lane may be taken of at once."""

# XREADGROUP of one lane, answered as one text: to read hundreds of small ones costs more than a run. Each part has its
# length before it; an entry is its id, how many parts it has, and those: names and values in turn.
_READ: Final = """
local found = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[1], '>')
local parts = {}
local function add(part) parts[#parts + 1] = struct.pack('>I4', #part) .. part end
for _, stream in ipairs(found or {}) do
    for _, entry in ipairs(stream[2]) do
        local fields = entry[2] or {}
        add(entry[1])
        parts[#parts + 1] = struct.pack('>I4', #fields)
        for _, part in ipairs(fields) do add(part) end
    end
end
return table.concat(parts)
"""

_Entry = tuple[bytes, dict[bytes, bytes]]
Deliver: TypeAlias = Callable[[Lane, Sequence[Checked], Callable[[bytes], None]], set[bytes]]
"""Has entries of a lane done without the lane's worker, and returns the ids of those; told how to free their slots."""


class CheckedClient(redis.asyncio.Redis):
    """A client for one lane's worker: what it reads of the queue comes from the intake."""

    intake: Intake
    lane: Lane

    async def xreadgroup(self, *_args: Any, count: int = 1, block: int = 0, **_more: Any) -> list[Any]:  # type: ignore[override]
        """Answer with the lane's next jobs."""
        found = await self.intake.next(self.lane, count, block / 1000)
        return [(self.lane.stream_key.encode(), found)] if found else []

    async def xautoclaim(self, *_args: Any, start_id: str = "0-0", count: int = 1, **more: Any) -> list[Any]:  # type: ignore[override]
        """Claim jobs of dead workers, as many as there are slots."""
        return await self.intake.claim(self.lane, start_id, count, more)


class Intake:
    """Takes jobs for the lanes of one group, as many as the group has slots.

    Args:
        client: Of the server, with patience.
        lanes: With their weights; a lane that stands before another one goes first where both would be next.
        consumer: Name of the worker.
        slots: How many jobs at once.
        jobs: Counts what is dropped.
        deliver: Has first those done that need no worker of a lane.
    """

    def __init__(
        self,
        client: Any,
        lanes: Mapping[Lane, int],
        consumer: str,
        slots: int,
        jobs: OpenJobs,
        *,
        deliver: Deliver,
    ) -> None:
        self._client = client
        self._read: Any = client.register_script(_READ)
        self._lanes = lanes
        self._consumer = consumer
        self._slots = slots
        self._jobs = jobs
        self._deliver = deliver
        self._inbox: dict[Lane, deque[_Entry]] = {lane: deque() for lane in lanes}
        self._came = {lane: asyncio.Event() for lane in lanes}
        # By lane too: two streams may give the same id.
        self._started: set[tuple[Lane, bytes]] = set()
        self._direct: set[tuple[Lane, bytes]] = set()
        """Begun without the lane's worker."""
        self._waiting: set[tuple[Lane, bytes]] = set()
        self._reserved = 0
        self._freed = asyncio.Event()
        self._stopped = False
        self._passes = dict.fromkeys(lanes, 0.0)
        """Per lane, its share of what was taken so far: the lane that had least is next (stride scheduling)."""
        self._now = 0.0

    @property
    def _free(self) -> int:
        return self._room - len(self._waiting) - self._reserved

    @property
    def _room(self) -> int:
        return self._slots - len(self._started) - len(self._direct)

    def held(self, lane: Lane) -> list[bytes]:
        """Return the ids of the entries that this worker has of a lane."""
        return [entry for of, entry in (*self._started, *self._direct, *self._waiting) if of is lane]

    def stop(self) -> None:
        """Take no more."""
        self._stopped = True
        self._freed.set()
        for came in self._came.values():
            came.set()

    async def emptied(self, timeout_s: float) -> None:
        """Wait until what was taken before the stop has begun, but not for long."""
        for _ in range(int(timeout_s / 0.005)):
            if not self._waiting:
                return
            await asyncio.sleep(0.005)

    def release(self, lane: Lane, entry: bytes) -> None:
        """Free the slot of an entry that is no longer this worker's."""
        self._started.discard((lane, entry))
        self._direct.discard((lane, entry))
        self._freed.set()

    # For the lanes' workers

    async def next(self, lane: Lane, count: int, timeout_s: float) -> list[_Entry]:
        """Return up to `count` entries of a lane; none after the time, which is longer where the lane is idle."""
        box, came = self._inbox[lane], self._came[lane]
        if not box:
            if not self._stopped:
                came.clear()
            busy = any(of is lane for of, _ in self._started)
            try:
                async with asyncio.timeout(timeout_s if busy else _IDLE_S):
                    await came.wait()
                    if self._stopped and not box:
                        await asyncio.sleep(timeout_s)
            except TimeoutError:
                return []
        elif self._room <= 0:
            await asyncio.sleep(timeout_s)
        found: list[_Entry] = []
        while len(found) < count and box and self._room > 0:
            entry = box.popleft()
            self._waiting.discard((lane, entry[0]))
            self._started.add((lane, entry[0]))
            found.append(entry)
        return found

    async def claim(self, lane: Lane, start_id: str, count: int, more: dict[str, Any]) -> list[Any]:
        """Take over entries whose worker is not heard of, as XAUTOCLAIM answers."""
        most = min(count, self._free)
        if most <= 0 or self._stopped:
            # Who looks for such entries does so alone: let it be one that has room.
            await self._client.delete(lane.redelivery_sweep_key)
            return [b"0-0", [], []]
        self._reserved += most
        try:
            cursor, entries, *rest = await self._client.xautoclaim(
                **{**more, "start_id": start_id, "count": most, "name": lane.stream_key}
            )
            good = await self._good(lane, entries)
            self._started.update((lane, one.id) for one in good)
        finally:
            self._reserved -= most
            self._freed.set()
        return [cursor, [(one.id, one.fields) for one in good], *rest]

    # For the worker

    async def pull(self) -> None:
        """Take jobs until `stop`."""
        while not self._stopped:
            self._freed.clear()
            if self._free <= 0:
                await self._freed.wait()
                continue
            try:
                if not await self._pull_one():
                    await self._take(list(self._lanes), 1, _BLOCK_MS)
            except ResponseError as error:
                if "NOGROUP" in str(error):
                    await self._make_groups()
                else:
                    _log.exception("jobs cannot be taken; trying again")
                    await asyncio.sleep(_IDLE_S)
            except (RedisError, OSError):
                _log.warning("the queue cannot be reached; trying again", exc_info=True)
                await asyncio.sleep(_IDLE_S)

    async def _pull_one(self) -> bool:
        """Take jobs of the lane whose turn it is; False where no lane has one."""
        for lane in sorted(self._lanes, key=lambda lane: self._passes[lane] + 1 / self._lanes[lane]):
            weight = self._lanes[lane]
            taken = await self._take([lane], max(1, min(self._free, weight * _BURST)), None)
            if taken:
                self._now = self._passes[lane]
                self._passes[lane] += taken / weight
                return True
            # Time that it did not use is no credit.
            self._passes[lane] = max(self._passes[lane], self._now)
        return False

    async def _take(self, lanes: list[Lane], count: int, block_ms: int | None) -> int:
        # A worker with nothing to do waits here: that must not keep it from jobs of dead workers. What comes then is
        # more than there are slots, and waits for one.
        reserved = 0 if block_ms else count
        self._reserved += reserved
        try:
            taken = 0
            for lane, entries in await self._ask(lanes, count, block_ms):
                taken += len(entries)
                good = await self._good(lane, entries)
                begun = self._deliver(lane, good[: max(0, self._room)], functools.partial(self.release, lane))
                self._direct.update((lane, entry) for entry in begun)
                rest = [one for one in good if one.id not in begun]
                if rest:
                    self._waiting.update((lane, one.id) for one in rest)
                    self._inbox[lane].extend((one.id, one.fields) for one in rest)
                    self._came[lane].set()
            return taken
        finally:
            self._reserved -= reserved

    async def _ask(self, lanes: list[Lane], count: int, block_ms: int | None) -> list[tuple[Lane, list[Any]]]:
        group = lanes[0].worker_group_name
        if block_ms is None:
            return [
                (lane, _entries(await self._read(keys=[lane.stream_key], args=[group, self._consumer, count])))
                for lane in lanes
            ]
        by_key = {lane.stream_key.encode(): lane for lane in lanes}
        streams = dict.fromkeys((lane.stream_key for lane in lanes), ">")
        answer = await self._client.xreadgroup(group, self._consumer, streams, count=count, block=block_ms)
        return [(by_key[key], entries) for key, entries in answer or ()]

    async def _good(self, lane: Lane, entries: list[Any]) -> list[Checked]:
        """Return the entries that are ours; drop the others, which no worker could read."""
        good: list[Checked] = []
        for entry, fields in entries:
            if not fields:
                continue
            try:
                good.append(checked(entry, fields, lane.prefix))
            except ValueError as error:
                _log.warning("entry %s of %s is no job and is dropped: %s", entry.decode(), lane.stream_key, error)
                async with self._client.pipeline(transaction=True) as pipe:
                    pipe.xack(lane.stream_key, lane.worker_group_name, entry)
                    pipe.xdel(lane.stream_key, entry)
                    await pipe.execute()
                await self._jobs.tally("dropped")
        return good

    async def _make_groups(self) -> None:
        for lane in self._lanes:
            try:
                await self._client.xgroup_create(lane.stream_key, lane.worker_group_name, id="0-0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise


def _entries(answer: bytes) -> list[_Entry]:
    """Read what the script returns."""
    at, found = 0, list[_Entry]()

    def number() -> int:
        nonlocal at
        at += 4
        return int.from_bytes(answer[at - 4 : at], "big")

    def part() -> bytes:
        nonlocal at
        length = number()
        at += length
        return answer[at - length : at]

    while at < len(answer):
        entry = part()
        parts = [part() for _ in range(number())]
        found.append((entry, dict(zip(parts[::2], parts[1::2], strict=True))))
    return found
