"""A worker: does the jobs that a scheduler hands it. The journal says what there is to do, and how far it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Literal, cast

from oao_harness.errors import AgentError, BusyError, ChangedError, FencedError, OaoError, StoreError, UsageError
from oao_harness.fleet.agents import Agents, Registered
from oao_harness.fleet.isolation import ProcessMetricsOf, run_in_process
from oao_harness.fleet.jobs import Jobs
from oao_harness.fleet.remote import limits_from
from oao_harness.fleet.status import JobStatus, advanced, fruitless, job_of, status_of
from oao_harness.journal.grouping import Group
from oao_harness.journal.writer import Writer
from oao_harness.runtime import context
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.requeuing import Requeued, Retries, put_down
from oao_harness.runtime.shared_budget import SharedBudget
from oao_harness.schedulers.cancelling import cancelled
from oao_hookspecs import Job, Json, Later, Record, RunQuery, Scheduler, Store

__all__ = ["Fleet"]

_log: Final = logging.getLogger(__name__)

# Source: a job that killed its worker so often will do it again; 5 is streaq's and SQS' usual cap.
_MOST_FRUITLESS: Final = 5
_UNKNOWN_S: Final = 1.0
"""Seconds until a job is offered again that no worker here may do: another one may, or this one may be replaced."""
_MOST_SAID: Final = 1000
_STOPPING_S: Final = 5.0
"""Seconds that runs may take to unwind when their worker stops."""
_SWEEP_S: Final = 30.0
_SWEEP_LOCAL_S: Final = 0.5
_OVER: Final = {"SUCCESS", "FAILED"}
_PRIORITIES: Final = ("high", "normal", "low")
_WAITING: Final = ("QUEUED", "RUNNING", "SUSPENDED")


class Fleet(Jobs):
    """Jobs, and a worker for them.

    ```python
    fleet = Fleet("redis://localhost:6379/0", "redis://localhost:6379/0")
    await fleet.work(slots=10)
    ```

    Args:
        scheduler: See `Jobs`.
        store: See `Jobs`.
        agents: See `Jobs`.
        lease_s: See `Jobs`; of a scheduler that is no URL a little less than it takes to deliver a job again.
        tenant_limit: See `Jobs`.
        plugins: Further plugins of the runs; see `Orchestrator`.
        isolation: `process` does each job in a process of its own, which can be killed: it costs its start.
        told: Called with each job that this worker has ended with, or put down.
        process_metrics: Where the processes of `isolation` count their runs, see `ProcessMetrics.lend`.
    """

    _drives_here = True
    """False for a fleet whose agents may have to wait before they are run: nobody keeps a claim for them then."""

    def __init__(
        self,
        scheduler: Scheduler | str,
        store: Store | str,
        agents: Agents | None = None,
        *,
        lease_s: float = 24.0,
        tenant_limit: int | None = None,
        plugins: Sequence[object | str] = (),
        isolation: Literal["", "process"] = "",
        told: Callable[[JobStatus], None] | None = None,
        process_metrics: ProcessMetricsOf | None = None,
    ) -> None:
        super().__init__(scheduler, store, agents, lease_s=lease_s, tenant_limit=tenant_limit)
        self._lease_s = lease_s
        self._plugins = tuple(plugins)
        self._isolation = isolation
        if isolation == "process" and (not self._store_url or self._store_url.startswith("memory")):
            raise UsageError("isolation='process' needs a store that another process can open; give its URL")
        if isolation == "process" and not all(isinstance(plugin, str) for plugin in plugins):
            raise UsageError("isolation='process' cannot take plugins that are objects along; name installed ones")
        self._told = told
        self._process_metrics = process_metrics
        self._orchestrators: dict[tuple[str, ...], Orchestrator] = {}
        self._active: set[str] = set()
        self._said: dict[str, str] = {}
        """Why jobs wait, as it was logged."""
        self._stopping = False
        self._group: Group | None = None
        """The runs that are driven by the loop of `work`, where they write together."""
        self._claimed: dict[str, int] = {}
        """Epochs of the runs that were claimed, and not gone on with yet."""
        self._putting_down = asyncio.Event()

    async def work(self, slots: int = 10, stop: asyncio.Event | None = None, drain_s: float = 30.0) -> None:
        """Do jobs until `stop` is set; then end what is at work, and hand back what takes longer than `drain_s`.

        Args:
            slots: Jobs at once, >= 1.
            stop: Set by who wants it to end; None never.
            drain_s: Seconds that jobs at work may take to end after that. What a run did is kept: another worker goes
                on with it. A call that is cut off then and may not be made twice asks a person.

        Raises:
            UsageError: No agent is registered, or one cannot be imported.
            StoreError: The queue cannot be reached.
        """
        if not isinstance(cast("object", slots), int) or slots < 1:
            raise UsageError(f"slots={slots!r}: give a whole number, at least 1")
        if not self.agents.names():
            raise UsageError("no agent is registered; name one in pyproject.toml: [tool.oao.agents]")
        self._load_all()
        stop = asyncio.Event() if stop is None else stop
        self._stopping = False
        self._putting_down.clear()
        self._group = Group.of(self.store, self._lease_s) if self._drives_here else None
        taking = asyncio.create_task(self.scheduler.work(self._handle, slots=slots, stop=stop))
        sweeping = asyncio.create_task(self._sweep(slots))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({taking, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                await asyncio.wait({taking}, timeout=drain_s)
            if not taking.done():
                self._put_down()
                await asyncio.wait({taking}, timeout=_STOPPING_S)
        except asyncio.CancelledError:
            # Else what is put down would be taken up again at once.
            stop.set()
            self._put_down()
            await asyncio.wait({taking}, timeout=_STOPPING_S)
            raise
        finally:
            ours = (taking, sweeping, stopped)
            await cancelled(ours)
            found = await asyncio.gather(*ours, return_exceptions=True)
        if isinstance(found[0], Exception):
            raise found[0]

    def _load_all(self) -> None:
        """Import all agents: a broken one is found here, not by a job."""
        for one in self.agents:
            one.load()

    def _put_down(self) -> None:
        """Halt the runs at work so that another worker goes on with them."""
        self._stopping = True
        self._putting_down.set()
        for run in context.open_runs(self._active):
            put_down(run, Requeued(reason="its worker stopped", attempt=None))

    async def _sweep(self, slots: int) -> None:
        """Submit again what no queue may know: runs of a worker that died with its queue, and answered questions."""
        first = True
        while True:
            try:
                await self._sweep_once(slots, everything=first or not self._is_durable)
            except StoreError as error:
                _log.warning("the store cannot be searched for jobs: %s", error)
            first = False
            await asyncio.sleep(_SWEEP_S if self._is_durable else _SWEEP_LOCAL_S)

    async def _sweep_once(self, slots: int, *, everything: bool) -> None:
        if not self._is_durable and (await self.stats()).queued >= slots:
            return
        found: list[Job] = []
        old = self._clock.time() - 2 * self._lease_s
        for status in _WAITING if everything else ("SUSPENDED",):
            # The oldest first; a queue that is durable has them already, but for those that nobody told it of.
            for summary in reversed(self.store.runs(None, query=RunQuery(status=status, outer=True))):
                if self._is_durable and status != "SUSPENDED" and summary.started_at > old:
                    # The queue has it, as far as anybody can tell.
                    continue
                if summary.execution_id not in self._active and (job := self.due(summary)) is not None:
                    found.append(job)
                    await asyncio.sleep(0)
        for job in sorted(found, key=lambda job: _PRIORITIES.index(job.priority)):
            await self.scheduler.submit(job)

    async def _handle(self, job: Job) -> Later | None:
        id_ = job.execution_id
        if self._stopping:
            return Later(after_s=0.1, reason="its worker stops")
        if id_ in self._active:
            # Delivered twice, to this very worker.
            return Later(after_s=self._lease_s, reason="this worker has it already")
        self._active.add(id_)
        try:
            later = await self._do(id_)
        except StoreError as error:
            _log.warning("job %s: %s", id_, error)
            return Later(after_s=1.0, reason=str(error))
        finally:
            self._active.discard(id_)
        if later is None:
            with suppress(StoreError):
                await self.scheduler.ended(id_)
        self._tell(id_)
        return later

    def _tell(self, execution_id: str) -> None:
        if self._told is not None:
            with suppress(StoreError, UsageError):
                self._told(status_of(self.records(execution_id)))

    async def _do(self, execution_id: str) -> Later | None:
        """Do a job as far as it goes; None where nothing is left to do for a worker."""
        if self._group is None or self._isolation == "process":
            return await self._do_with(execution_id, list(self.store.read(execution_id)))
        try:
            epoch, records = await self._group.claim(execution_id)
        except BusyError:
            # Its holder may be dead: that is looked at where a run is claimed alone.
            return await self._do_with(execution_id, list(self.store.read(execution_id)))
        if epoch:
            self._claimed[execution_id] = epoch
        try:
            return await self._do_with(execution_id, records)
        finally:
            self._give_back(execution_id)

    def _give_back(self, execution_id: str) -> None:
        """End the claim of a run that nobody went on with."""
        epoch = self._claimed.pop(execution_id, 0)
        if epoch:
            with suppress(StoreError):
                self.store.release(execution_id, epoch)

    async def _do_with(self, execution_id: str, records: Sequence[Record]) -> Later | None:
        job = job_of(records)
        if job is None:
            # Whoever can write to the queue may name anything; only what was submitted is done.
            _log.warning("the queue holds %r, which is no job of this store; it is dropped", execution_id)
            return None
        status = status_of(records)
        if status.is_over or status.status == "DEAD":
            return None
        if fruitless(records) >= _MOST_FRUITLESS and not self._parts_advance(records):
            self._give_back(execution_id)
            return self._bury(execution_id)
        try:
            registered = self.agents.get(str(job["agent"]))
        except AgentError as error:
            return self._waits(execution_id, f"waits for a worker that has the agent: {error}")
        return await self._go_on(registered, job, records)

    def _parts_advance(self, records: Sequence[Record]) -> bool:
        """Return True where a run that is nested in a job came further in its last attempts, which its own did not."""
        began = [cast("float", one["at"]) for one in records if one["type"] in {"plan", "run.resumed"}]
        since = began[-_MOST_FRUITLESS]
        parts = [str(one["execution_id"]) for one in records if one["type"] == "child"]
        return any(advanced(list(self.store.read(part)), since) for part in parts)

    async def _go_on(self, registered: Registered, job: Mapping[str, Json], records: Sequence[Record]) -> Later | None:
        execution_id = str(records[0]["execution_id"])
        try:
            if self._isolation == "process":
                return await self._go_on_elsewhere(execution_id)
            orchestrator = self._orchestrator(registered.policies(cast("Sequence[str]", job.get("policy") or ())))
            shared = shared_of(job, self._store_url)

            async def work(agent: object) -> ExecutionReport:
                report = await orchestrator.work(
                    execution_id,
                    agent,
                    retries=retries_of(job),
                    shared=shared,
                    records=records,
                    epoch=self._claimed.get(execution_id, 0),
                    group=self._group,
                )
                if report.status in _OVER:
                    # Its last record ended the claim.
                    self._claimed.pop(execution_id, None)
                return report

            report = await self._drive(registered, execution_id, work)
        except BusyError as busy:
            return Later(after_s=busy.left_s + 0.05, reason=str(busy))
        except FencedError as error:
            return Later(after_s=self._lease_s, reason=str(error))
        except ChangedError as error:
            return self._waits(execution_id, f"waits for a worker with the same code: {error}")
        except UsageError as error:
            if status_of(self.records(execution_id)).is_over:
                return None
            return self._waits(execution_id, str(error))
        except asyncio.CancelledError:
            await self._told_cancelled(execution_id)
            raise
        rule = (report.violation or {}).get("rule")
        if report.status == "FAILED" and rule in {"lease", "journal"}:
            # Nobody knows here how it ends: another worker has it, or the store is away.
            return Later(after_s=self._lease_s, reason=str(report.error))
        return self._left(execution_id) if report.status == "QUEUED" else None

    async def _drive(
        self, registered: Registered, _execution_id: str, work: Callable[[object], Awaitable[ExecutionReport]]
    ) -> ExecutionReport:
        """Run an agent on a job, in this event loop; a fleet of another kind may do it elsewhere."""
        return await work(registered.load())

    def _waits(self, execution_id: str, reason: str) -> Later:
        """Hand a job back that no worker like this one may do, and say so once."""
        if self._said.get(execution_id) != reason:
            if len(self._said) >= _MOST_SAID:
                self._said.clear()
            self._said[execution_id] = reason
            _log.warning("job %s %s", execution_id, reason)
        return Later(after_s=_UNKNOWN_S, reason=reason)

    async def _go_on_elsewhere(self, execution_id: str) -> Later | None:
        plugins = cast("tuple[str, ...]", self._plugins)
        try:
            await run_in_process(
                self._store_url,
                execution_id,
                lease_s=self._lease_s,
                plugins=plugins,
                put_down=self._putting_down,
                metrics=self._process_metrics,
            )
        except asyncio.CancelledError:
            if not self._stopping:
                with suppress(OaoError):
                    # It had to be killed before it could say so itself.
                    self._end(execution_id, "cancelled")
            raise
        return self._left(execution_id)

    async def _told_cancelled(self, execution_id: str) -> None:
        with suppress(OaoError):
            await self.scheduler.ended(execution_id)
            self._tell(execution_id)

    def _left(self, execution_id: str) -> Later | None:
        """Return when a job is due again, from its journal; None where it is not."""
        found = status_of(self.records(execution_id))
        if found.status == "QUEUED":
            return Later(after_s=max(0.0, found.not_before - self._clock.time()), reason=found.reason)
        if found.status == "RUNNING":
            return Later(after_s=0.0, reason="its process ended before it did")
        return None

    def _orchestrator(self, policies: tuple[str, ...]) -> Orchestrator:
        found = self._orchestrators.get(policies)
        if found is None:
            found = Orchestrator(list(policies), self.store, self._plugins, lease_s=self._lease_s)
            self._orchestrators[policies] = found
        return found

    def _bury(self, execution_id: str) -> Later | None:
        """Make a job a dead letter: it has ended too many workers."""

        def dead(writer: Writer, records: Sequence[Record]) -> None:
            reason = f"dead letter: {_MOST_FRUITLESS} workers in a row ended with it before it came any further"
            fields: dict[str, Any] = {"reason": reason, "approvals": [], "totals": {"steps": 0}, "dead": True}
            if status_of(records).status in {"QUEUED", "RUNNING"}:
                writer.append("run.suspended", fields)

        try:
            self._append(execution_id, dead)
        except BusyError as busy:
            return Later(after_s=busy.left_s + 0.05, reason=str(busy))
        return None


def shared_of(job: Mapping[str, Json], ledger: str) -> SharedBudget | None:
    """Return the budget that a job draws from together with the run that it is a part of; None for no such.

    Args:
        job: As its journal has it.
        ledger: URL of the ledger; that of the store.

    Raises:
        UsageError: There is one, and the store's URL is not known: what nobody counts must not happen.
    """
    budgets = cast("Sequence[Mapping[str, Any]]", job.get("budgets") or ())
    if not budgets:
        return None
    if not ledger:
        raise UsageError("the job draws from a budget that workers share; give this worker its store by URL")
    if len(budgets) > 1:
        raise UsageError("a job that draws from several shared budgets cannot be run by another worker")
    return SharedBudget(str(budgets[0]["name"]), ledger, limits=limits_from(budgets[0]["limits"]))


def retries_of(job: Mapping[str, Json]) -> Retries:
    """Return how often a job is tried again, as its journal says; then it is a dead letter."""
    return replace(Retries(**cast("dict[str, Any]", job.get("retries") or {})), then_dead=True)
