"""A worker of the fleet: a Docket worker for each lane, and what keeps its jobs its own until they end.

Docket's own renewal stops as soon as a worker begins to end, or has lost the server for a moment, while its jobs still
run; so a renewal of ours goes on until the last one ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

from docket import Worker
from docket.dependencies import AdmissionBlocked
from docket.execution import Execution
from redis.asyncio import Redis
from redis.exceptions import RedisError

from oao_harness.schedulers.cancelling import cancelled
from oao_harness.schedulers.redis_direct import Direct
from oao_harness.schedulers.redis_entries import TASK, Checked, key_of
from oao_harness.schedulers.redis_intake import CheckedClient, Intake
from oao_harness.schedulers.redis_lanes import LANES, NESTED, Lane, open_lanes
from oao_harness.schedulers.redis_open import OpenJobs, owner_of
from oao_harness.schedulers.redis_reconciler import Reconciler
from oao_harness.schedulers.redis_task import NotDoneError, failed, handed_back_after
from oao_harness.schedulers.redis_urls import Place, make_client
from oao_hookspecs.schedulers import Handler, Later

__all__ = ["FleetWorker", "Limits"]

_log: Final = logging.getLogger(__name__)
_PATIENCE: Final = 60
"""How often a worker sends a command again: about a minute, after which Docket's own way to wait begins."""
_GIVE_UP_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many jobs may run at once in the whole fleet. All workers must be given the same."""

    tenant: int | None = None
    """Of one tenant; None for any number."""
    agents: Mapping[str, int] = field(default_factory=dict[str, int])
    """By name of the agent."""


class _LaneWorker(Worker):
    """Docket's worker of one lane; asks the fleet's worker what to do."""

    fleet: FleetWorker
    intake: Intake
    lane: Lane

    def limits_of(self, arguments: dict[str, Any]) -> list[tuple[str, int]]:
        return self.fleet.limits_of(arguments)

    async def deliver(self, execution: Execution) -> None:
        await self.fleet.deliver(execution)

    async def _handle_cancellation(self, message: Any) -> None:
        await super()._handle_cancellation(message)
        self.fleet.cancelled(message["data"])

    async def _execute(self, execution: Execution, session: Any) -> None:
        try:
            await super()._execute(execution, session)
        except (RedisError, AdmissionBlocked):
            raise
        except Exception:  # noqa: BLE001 - nothing in a queue may end a worker
            # Docket would end the worker. The reconciler adds the job again, if it is one.
            _log.exception("an entry of the queue could not be done; it is dropped")
        finally:
            if execution.message_id is not None:
                self.intake.release(self.lane, execution.message_id)


class FleetWorker:
    """Has jobs done until it is told to stop.

    Args:
        place: The server.
        handler: Does a job.
        slots: How many at once; parts of other runs have as many of their own.
        limits: Of the fleet.
        redelivery_s: Seconds after which a worker that is not heard of loses its jobs.
    """

    def __init__(self, place: Place, handler: Handler, slots: int, limits: Limits, redelivery_s: float) -> None:
        self.name = f"{socket.gethostname()}#{os.getpid()}#{secrets.token_hex(3)}"
        self._place = place
        self._handler = handler
        self._slots = slots
        self._limits = limits
        self._redelivery_s = redelivery_s
        self._running: dict[str, asyncio.Task[Later | None]] = {}
        self._ended_by: dict[str, Literal["cancelled", "given up"]] = {}
        self._giving_up = False
        self._stopping = asyncio.Event()
        self._agents = {key_of(name).removeprefix("job:"): most for name, most in limits.agents.items()}

    def limits_of(self, arguments: dict[str, Any]) -> list[tuple[str, int]]:
        """Return what counts against a job: nothing for a part of another run, which has its place already."""
        if "tenant" not in arguments or arguments["nested"]:
            return []
        found: list[tuple[str, int]] = []
        if self._limits.tenant is not None and arguments["tenant"]:
            found.append(("tenant", self._limits.tenant))
        if (most := self._agents.get(arguments["agent"])) is not None:
            found.append(("agent", most))
        return found

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set and what runs has ended.

        Args:
            stop: Set by who wants it to end.
        """
        async with AsyncExitStack() as stack:
            clients = {name: self._client(stack, CheckedClient, 2 * self._slots + 50) for name in (*LANES, NESTED)}
            # A client whose reads are the server's own.
            self._plain: Any = self._client(stack, Redis, 50)
            self._lanes = await open_lanes(stack, self._place, clients)
            self._jobs = OpenJobs(self._plain, self._place.prefix)
            self._direct = Direct(self._plain, self._jobs.keys, self.name, self._handler, self._redelivery_s)
            self._intakes = [
                self._intake({self._lanes[name]: weight for name, weight in LANES.items()}),
                self._intake({self._lanes[NESTED]: 1}),
            ]
            await self._work(stop)

    def _client(self, stack: AsyncExitStack, kind: type[Any], connections: int) -> Any:
        client = make_client(kind, self._place, connections=connections, tries=_PATIENCE)
        stack.push_async_callback(client.aclose)
        stack.push_async_callback(client.connection_pool.disconnect)
        return client

    def _intake(self, lanes: Mapping[Lane, int]) -> Intake:
        intake = Intake(self._plain, lanes, self.name, self._slots, self._jobs, deliver=self._deliver_direct)
        for lane in lanes:
            lane.client.intake, lane.client.lane = intake, lane
        return intake

    def _deliver_direct(self, lane: Lane, entries: Sequence[Checked], release: Callable[[bytes], None]) -> set[bytes]:
        """Have those done that no limit holds; return their ids."""
        mine = [one for one in entries if one.task == TASK and not self.limits_of(one.arguments)]
        if mine:
            self._direct.deliver(lane, [(one.id, one.fields) for one in mine], release)
        return {one.id for one in mine}

    async def _work(self, stop: asyncio.Event) -> None:
        reconciler = Reconciler(self._plain, self._lanes, self._jobs, self.name, self._redelivery_s)
        pulls = [asyncio.create_task(intake.pull()) for intake in self._intakes]
        lanes = [
            asyncio.create_task(self._lane(lane, intake))
            for lane, intake in ((lane, lane.client.intake) for lane in self._lanes.values())
        ]
        keeping = [asyncio.create_task(run()) for run in (self._renew, self._watch, reconciler.run)]
        stopped = asyncio.create_task(stop.wait())
        try:
            # All but `stopped` end only by an error of ours.
            done, _ = await asyncio.wait((stopped, *pulls, *lanes, *keeping), return_when=asyncio.FIRST_COMPLETED)
            await self._drain(pulls, lanes)
            for task in done:
                task.result()
        except asyncio.CancelledError:
            await self._give_up(pulls, lanes)
            raise
        finally:
            await self._direct.close()
            await cancelled((stopped, *pulls, *lanes, *keeping))

    async def _drain(self, pulls: Sequence[asyncio.Task[None]], lanes: Sequence[asyncio.Task[None]]) -> None:
        for intake in self._intakes:
            intake.stop()
        # Not cancelled at once: an answer with jobs may be on its way.
        await asyncio.wait(pulls, timeout=2.0)
        for intake in self._intakes:
            await intake.emptied(0.2)
        self._stopping.set()
        await self._direct.ended()
        await asyncio.wait(lanes)

    async def _give_up(self, pulls: Sequence[asyncio.Task[None]], lanes: Sequence[asyncio.Task[None]]) -> None:
        self._giving_up = True
        for intake in self._intakes:
            intake.stop()
        # First of all, else it takes what is handed back.
        for pull in pulls:
            pull.cancel()
        await asyncio.wait(pulls, timeout=1.0)
        for key, task in self._running.items():
            self._ended_by.setdefault(key, "given up")
            task.cancel()
        self._direct.give_up()
        self._stopping.set()
        await asyncio.gather(asyncio.wait(lanes, timeout=_GIVE_UP_S), self._direct.ended(_GIVE_UP_S))

    async def _lane(self, lane: Lane, intake: Intake) -> None:
        async with _LaneWorker(
            lane,
            name=self.name,
            # More than there are slots: the intake says how many.
            concurrency=2 * self._slots + 8,
            redelivery_timeout=timedelta(seconds=self._redelivery_s),
            reconnection_delay=timedelta(seconds=1),
            minimum_check_interval=timedelta(milliseconds=20),
            scheduling_resolution=timedelta(milliseconds=50),
            schedule_automatic_tasks=False,
        ) as worker:
            worker.fleet, worker.intake, worker.lane = self, intake, lane
            at_work = asyncio.create_task(self._lane_at_work(worker, lane))
            # Not cancelled, which can get lost on its way: leaving the block tells it to take no more, and waits.
            await self._stopping.wait()
        await at_work

    async def _lane_at_work(self, worker: Worker, lane: Lane) -> None:
        while not self._stopping.is_set():
            try:
                await worker.run_forever()
            except Exception:  # noqa: BLE001 - nothing in a queue may end a worker
                _log.exception("the worker of lane %s failed; it begins again", lane.lane)
                await asyncio.sleep(1)

    # A delivery

    async def deliver(self, execution: Execution) -> None:
        """Have a job done.

        Raises:
            NotDoneError: It is not; it must be handed back.
        """
        key = execution.key
        if self._giving_up:
            raise NotDoneError(0)
        begun = await self._jobs.begin(key, owner_of(self.name))
        if begun is None:
            _log.info("a delivery of %s is dropped: it was cancelled, or is done", key)
            return
        task = asyncio.ensure_future(self._handler(begun.job))
        self._running[key] = task
        try:
            answer: Later | None = await task
        except asyncio.CancelledError:
            if not task.done():
                task.cancel()
            reason = self._ended_by.get(key)
            if reason is None:
                # Docket's: the job was cancelled, or the process ends.
                raise
            answer = Later(after_s=0, reason=reason)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - what a handler leaves open must be delivered again
            answer = failed(begun.job, error, execution.attempt, self._redelivery_s)
        finally:
            if self._running.get(key) is task:
                del self._running[key]
                self._ended_by.pop(key, None)
        word = await self._jobs.end(key, begun, "done" if answer is None else "later")
        after_s = handed_back_after(begun.job, word, answer, self._redelivery_s)
        if after_s is not None:
            raise NotDoneError(after_s)

    def cancelled(self, key: bytes | str) -> None:
        """End the delivery of a job that was cancelled."""
        self._direct.cancel(key.decode() if isinstance(key, bytes) else key)

    def end_tells(self, key: str, channel: str) -> bool:
        """Let the end of a delivery tell who waits for the run; False where this worker does not have the job."""
        return self._direct.end_tells(key, channel)

    # While jobs run

    async def _renew(self) -> None:
        """Tell the server that the entries are still this worker's."""
        while True:
            await asyncio.sleep(self._redelivery_s / 4)
            for lane in self._lanes.values():
                held = lane.client.intake.held(lane)
                if not held:
                    continue
                try:
                    await self._plain.xclaim(
                        lane.stream_key, lane.worker_group_name, self.name, 0, held, idle=0, justid=True
                    )
                except (RedisError, OSError):
                    _log.warning("the jobs of lane %s could not be kept; trying again", lane.lane, exc_info=True)

    async def _watch(self) -> None:
        """Cancel what was cancelled while the message about it could not be heard."""
        while True:
            await asyncio.sleep(min(1.0, self._redelivery_s / 4))
            try:
                cancelled = await self._jobs.cancelled([*self._running, *self._direct.at_work])
            except (RedisError, OSError):
                continue
            for key in cancelled:
                self._direct.cancel(key)
                if (task := self._running.get(key)) is not None and key not in self._ended_by:
                    self._ended_by[key] = "cancelled"
                    task.cancel()
