"""The service: every operation of the server, without HTTP. Routes and the dashboard say how it looks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from oao_harness.errors import OaoError, StoreError, UsageError
from oao_harness.fleet.status import report_of, status_of
from oao_harness.journal.branching import new_id
from oao_harness.runtime.report import ExecutionReport
from oao_harness.server.answering import Answering
from oao_harness.server.callers import Caller
from oao_harness.server.idempotency import Repeated, Request
from oao_harness.server.judgements import Judgements
from oao_harness.server.refusals import InProgress, InvalidRequest, NotFound, Stopping

__all__ = ["Service"]

_log: Final = logging.getLogger(__name__)

_MOST_AGENTS: Final = 100
_LEAVING_S: Final = 1.0


class Service(Answering, Judgements):
    """All operations of the server. It belongs to the event loop that has started it.

    See `Core` for its arguments. Every operation is told who asks, shows only what that caller may see, and raises
    errors of oao; what a caller may do at all is asked before.
    """

    is_stopping = False

    async def start(self) -> None:
        """Begin to work: the store is asked, and jobs are done where this process does them.

        Raises:
            StoreError: The store or the queue cannot be reached.
        """
        await self.asked(self.store.runs, 1)
        await self.start_fleet()

    def begin_stop(self) -> None:
        """Take nothing more, and put down what is at work; see `stop`. From the service's loop, at once."""
        if not self.is_stopping:
            self.is_stopping = True
            self.feed.close()
            self._stopped = asyncio.create_task(self._stop())

    _stopped: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Stop within `grace_s` and a little more: what does not end is put down, so that it can be resumed."""
        self.begin_stop()
        if self._stopped is not None:
            await self._stopped
        with suppress(StoreError):
            await self.asked(self.store.close)

    async def _stop(self) -> None:
        half_s = self.settings.grace_s / 2
        try:
            fleet = asyncio.create_task(self.stop_fleet(half_s))
            await self.hosts.stop(half_s, half_s)
            await asyncio.wait({fleet}, timeout=_LEAVING_S)
            for task in self._background:
                task.cancel()
        except Exception:  # noqa: BLE001 - whatever it is, the server must end
            _log.exception("the server does not stop as it should")

    async def is_ready(self) -> Mapping[str, str]:
        """Return what is wrong with the parts that it needs, by name; empty where it can do its work."""
        if self.is_stopping:
            return {"server": "is being shut down"}
        wrong: dict[str, str] = {}
        for part, question in (("store", self.asked(self.store.runs, 1)), ("queue", self.on_fleet(self.jobs.stats()))):
            try:
                await asyncio.wait_for(question, _LEAVING_S * 3)
            except TimeoutError:
                wrong[part] = "does not answer"
            except OaoError as error:
                wrong[part] = str(error)
        return wrong

    async def run(
        self,
        caller: Caller,
        agent: str,
        task: object,
        *,
        execution_id: str | None = None,
        policy: Sequence[str] = (),
        deadline_s: float | None = None,
        request: Request | None = None,
    ) -> ExecutionReport:
        """Run a registered agent and return its report; a run that failed is a report that says why.

        Args:
            caller: Who asks: the run acts for it.
            agent: The name that the agent is registered by.
            task: What it is asked: JSON.
            execution_id: Id of the run; a new one by default.
            policy: Policies that hold besides those of the agent, by name.
            deadline_s: Seconds that it may take; those of the settings by default.
            request: The request with an Idempotency-Key that this is the answer to; then the id is the request's.

        Raises:
            NotFound: There is no such agent.
            InvalidRequest: A policy or the deadline cannot be had.
            TooBusy: Too many runs of the agent wait already.
            AgentUnavailable: The agent cannot be made.
            KeyReused: The key was used for something else.
            InProgress: The same request is at work.
        """
        if self.is_stopping:
            raise Stopping("the server is being shut down; ask again in a moment")
        registered = self.registered(agent)
        policies = self.policies_for(registered, policy)
        origin: dict[str, object] = {"agent": registered.name, "policy": list(policies)}
        if request is None:
            id_ = execution_id or new_id()
        else:
            id_, origin["request"] = request.execution_id, request.digest
            earlier = await self.repeated(request)
            if earlier is not None:
                return await self._again(caller, request, earlier, deadline_s)
        orchestrator = self.orchestrator(policies)
        with self.only_one(id_), self.no_other_writer(request):
            return await self.driven(
                registered,
                id_,
                lambda found: orchestrator.run_async(
                    found,
                    task,
                    execution_id=id_,
                    agent_name=registered.name,
                    principal=caller.principal,
                    origin=origin,  # type: ignore[arg-type]
                ),
                deadline_s=deadline_s,
            )

    async def _again(
        self, caller: Caller, request: Request, earlier: Repeated, deadline_s: float | None
    ) -> ExecutionReport:
        """Answer a request that was made before: with its report, or by going on with what was cut off."""
        if status_of(earlier.records).status != "RUNNING":
            return report_of(earlier.records)
        if earlier.execution_id in self.hosts.at_work:
            raise InProgress(f"run {earlier.execution_id} is at work on this very request")
        try:
            with self.no_other_writer(request):
                return await self.resume(caller, earlier.execution_id, deadline_s=deadline_s)
        except UsageError:
            # It may have ended just now.
            latest = await self.repeated(request)
            if latest is None or status_of(latest.records).status == "RUNNING":
                raise
            return report_of(latest.records)

    async def run_multi(
        self,
        caller: Caller,
        agents: Mapping[str, object] | Sequence[str],
        task: object = None,
        *,
        policy: Sequence[str] = (),
        max_concurrency: int = 5,
        deadline_s: float | None = None,
        request: Request | None = None,
    ) -> dict[str, ExecutionReport]:
        """Run several registered agents side by side, each as a run of its own; return their reports by name.

        Args:
            caller: Who asks.
            agents: Their names, or by name what each is asked; None asks what all are asked.
            task: What all are asked.
            policy: See `run`.
            max_concurrency: Agents at the same time, >= 1.
            deadline_s: See `run`; of each of them.
            request: See `run`.

        Raises:
            InvalidRequest: There is none, one is named twice, or they are too many.
            NotFound: One is not registered.
        """
        tasks: Mapping[str, object] = agents if isinstance(agents, Mapping) else dict.fromkeys(agents)
        if not tasks or len(tasks) != len(agents) or len(tasks) > _MOST_AGENTS:
            raise InvalidRequest(f"name each agent once, at least one and {_MOST_AGENTS} at most")
        if max_concurrency < 1:
            raise InvalidRequest(f"max_concurrency={max_concurrency}: give a whole number, at least 1")
        for name in tasks:
            self.policies_for(self.registered(name), policy)
        free = asyncio.Semaphore(max_concurrency)

        async def one(name: str, own: object) -> ExecutionReport:
            async with free:
                return await self.run(
                    caller,
                    name,
                    task if own is None else own,
                    policy=policy,
                    deadline_s=deadline_s,
                    request=None if request is None else request.part(name),
                )

        running = {name: asyncio.create_task(one(name, own)) for name, own in tasks.items()}
        try:
            found = await asyncio.gather(*running.values())
        except BaseException:
            # What has begun goes on; what has not is not begun.
            await asyncio.gather(*(_left(task) for task in running.values()), return_exceptions=True)
            raise
        return dict(zip(running, found, strict=True))

    async def report(self, caller: Caller, execution_id: str) -> ExecutionReport:
        """Return how a run went, or how far it is.

        Raises:
            NotFound: There is no such run.
        """
        return report_of(await self.records(caller, execution_id))

    async def exists(self, caller: Caller, execution_id: str) -> bool:
        """Return True for a run that a caller may see."""
        with suppress(NotFound):
            await self.records(caller, execution_id, after=2**53)
            return True
        return False


async def _left(task: asyncio.Task[ExecutionReport]) -> None:
    with suppress(BaseException):
        await task
