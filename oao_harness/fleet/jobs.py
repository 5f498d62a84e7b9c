"""The fleet as its users see it: submit a job, ask after it, fetch its report, cancel it, drive it again.

A job is a run: its journal is written before any queue hears of it, so that no queue can lose it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, cast

from oao_harness.errors import BusyError, ConfigError, FencedError, StoreError, UsageError
from oao_harness.fleet.agents import Agents
from oao_harness.fleet.status import JobStatus, job_of, report_of, status_of
from oao_harness.journal.branching import new_id
from oao_harness.journal.codec import encode, holds_opaque
from oao_harness.journal.leases import claim
from oao_harness.journal.questions import principal_to_json
from oao_harness.journal.writer import Writer
from oao_harness.plugins.manager import make_manager
from oao_harness.runtime.clock import SystemClock
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.plain import as_json
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.requeuing import Retries
from oao_harness.runtime.shared_budget import SharedBudget
from oao_hookspecs import (
    Job,
    Json,
    Limits,
    Principal,
    Priority,
    QueueStats,
    Record,
    RunQuery,
    RunSummary,
    Scheduler,
    SchedulerSettings,
    Store,
)

__all__ = ["Jobs", "Part", "open_scheduler"]

_log = logging.getLogger("oao")
_LEAVING_S: Final = 0.5
_TRIES: Final = 10
_AGAIN_S: Final = 0.005
"""Seconds, a random part of them, before a submit looks again that was put off by another one; more each time."""
_LOOK_S: Final = 1.0
"""Seconds after which a waiter looks into the journal even though nobody told it of an end."""
_LOOK_LOCAL_S: Final = 0.1
"""The same where nobody can tell: the run may be another process', and the scheduler is this one's."""


def open_scheduler(url: str, settings: SchedulerSettings | None = None) -> Scheduler:
    """Open the scheduler that a URL names, by the bundled and the installed plugins.

    Args:
        url: `local:`, `redis://host:port/db`, or what a plugin knows.
        settings: What the fleet asks of it.

    Raises:
        ConfigError: No plugin opens it, or a package is missing.
        StoreError: It cannot be reached.
    """
    opened = make_manager(())[0].hook.oao_open_scheduler(url=url, settings=settings or SchedulerSettings())
    if opened is None:
        raise ConfigError(f"no plugin opens the scheduler {url!r}; known: local:, redis://HOST:PORT/DB")
    return cast("Scheduler", opened)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Of which run a job is a part."""

    parent: str
    """Id of that run."""
    node: str
    """What that run calls it."""
    budgets: Sequence[Json] = ()
    """What it draws from together with that run: `{"name": ..., "limits": ...}`, in the ledger of the fleet's store."""


class Jobs:
    """Jobs of a fleet, for who submits them and asks after them; see `Fleet` for who does them.

    Args:
        scheduler: What carries jobs to workers, or its URL.
        store: Where the journals are, or its URL.
        agents: The registered agents; by default those of the installed packages and of the project.
        lease_s: Seconds after which another worker takes a run over whose worker was not heard of, > 0.
        tenant_limit: How many jobs of one tenant may run at once in the whole fleet; None for any number.

    Raises:
        ConfigError: A URL is wrong, or an agent is registered wrongly.
        StoreError: The store cannot be reached.
    """

    def __init__(
        self,
        scheduler: Scheduler | str,
        store: Store | str,
        agents: Agents | None = None,
        *,
        lease_s: float = 24.0,
        tenant_limit: int | None = None,
    ) -> None:
        self.agents = Agents.discover() if agents is None else agents
        self._store_url = store if isinstance(store, str) else ""
        self.store: Store = Orchestrator(store=store).store if isinstance(store, str) else store
        most = {one.name: one.max_concurrency for one in self.agents if one.max_concurrency is not None}
        settings = SchedulerSettings(lease_s=lease_s, tenant_limit=tenant_limit, agent_limits=most)
        self.scheduler: Scheduler = open_scheduler(scheduler, settings) if isinstance(scheduler, str) else scheduler
        self._clock = SystemClock()
        self._listening = make_manager(())[0]
        self._checked: set[tuple[str, ...]] = set()
        self._is_durable = bool(getattr(self.scheduler, "durable", False))

    async def submit(
        self,
        agent: str,
        task: object = None,
        *,
        execution_id: str | None = None,
        tenant: str = "",
        priority: Priority = "normal",
        delay_s: float = 0.0,
        principal: Principal | None = None,
        policy: Sequence[str] = (),
        retries: Retries | None = None,
        traceparent: str = "",
        part: Part | None = None,
        request: str = "",
    ) -> str:
        """Queue a run of a registered agent, and return its id; when this returns, the job is not lost any more.

        Args:
            agent: The name it is registered by.
            task: What it is asked: plain data, since it travels.
            execution_id: Id of the run; with the id of a job that exists no second one is made.
            tenant: Whose job it is; the tenant of the principal by default.
            priority: `high`, `normal` or `low`.
            delay_s: Seconds before which no worker begins, >= 0.
            principal: Who the run acts for; the caller vouches for it.
            policy: Names of policies that hold besides those that the agent is registered with; `standard` for none.
            retries: How often it is tried again; what the agent was registered with by default, else 3 times.
            traceparent: W3C trace context of who submits; by default that which a listener names, see
                `oao_traceparent`.
            part: Where the job is a part of another run; see `FleetNodes`.
            request: Digest of the request that asks for it; kept, so that the same request is known again.

        Raises:
            AgentError: No agent is registered by that name.
            ConfigError: A policy is unknown or wrong.
            UsageError: The task is no plain data, or the id is that of another job.
            StoreError: The store or the queue cannot be reached. Submitting again with the same id is safe.
        """
        registered = self.agents.get(agent)
        if priority not in {"high", "normal", "low"}:
            raise UsageError(f"priority={priority!r}: give 'high', 'normal' or 'low'")
        if not 0 <= delay_s < 10 * 365 * 86400:
            raise UsageError(f"delay_s={delay_s!r}: give seconds, >= 0")
        policies = registered.policies(policy)
        if policies not in self._checked:
            # One that no worker could load would let the job wait for ever.
            make_manager(policies)
            self._checked.add(policies)
        tries = retries or registered.retries or Retries()
        job: dict[str, Json] = {
            "agent": agent,
            "tenant": tenant or (principal.tenant if principal is not None else ""),
            "priority": priority,
            "policy": list(policies),
            "not_before": self._clock.time() + delay_s if delay_s else 0.0,
            "retries": cast("Json", asdict(tries)),
        }
        if traceparent := traceparent or self._traceparent():
            job["traceparent"] = traceparent
        if part is not None:
            job |= {"nested": True, "budgets": list(part.budgets)}
        execution_id = execution_id or new_id()
        started: dict[str, Json] = {"execution_id": execution_id, "agent": agent}
        if part is not None:
            started |= {"parent": part.parent, "node": part.node}
        if principal is not None:
            started["principal"] = principal_to_json(principal)
        origin: dict[str, Json] = {"agent": agent, "policy": job["policy"]}
        origin |= {"request": request} if request else {}
        kept = self._write({**started, "origin": origin, "job": job}, task)
        await self.scheduler.submit(_job(execution_id, kept))
        return execution_id

    def _traceparent(self) -> str:
        try:
            return str(self._listening.hook.oao_traceparent(run=None) or "")
        except Exception:  # noqa: BLE001 - a trace decides nothing: the job is submitted without one
            _log.warning("a listener failed in oao_traceparent; the job is not traced", exc_info=True)
            return ""

    def _write(self, started: dict[str, Json], task: object) -> Mapping[str, Json]:
        """Write the first record of a queued run; return its job, which is another one's where the id has one."""
        given, plain = encode(task), as_json(task)
        if (opaque := holds_opaque(given)) is not None:
            raise UsageError(f"the task holds a {opaque}, which cannot travel to a worker; give plain data")
        execution_id, started["task"] = str(started["execution_id"]), plain
        if given != plain:
            started["input"] = given
        tries, first = 0, next(iter(self.store.read(execution_id)), None)
        while first is None:
            try:
                Writer(self.store, execution_id, self._clock, epoch=claim(self.store, execution_id)).append(
                    "run.started", dict(started)
                )
                return cast("Mapping[str, Json]", started["job"])
            except StoreError as error:
                # Somebody submits the same at the same time: one of both is kept. Whoever was put off by one who has
                # not written yet looks again.
                tries += 1
                if isinstance(error, BusyError | FencedError) and tries < _TRIES:
                    time.sleep(random.uniform(0.0, _AGAIN_S * tries))  # noqa: S311 - no secret
                first = next(iter(self.store.read(execution_id)), None)
                if first is None and (tries == _TRIES or not isinstance(error, BusyError | FencedError)):
                    raise
        found = cast("Mapping[str, Json] | None", first.get("job"))
        if found is None or (first["agent"], first["task"]) != (started["agent"], plain):
            raise UsageError(f"run {execution_id!r} exists already, and is another one; give another id, or none")
        return found

    def records(self, execution_id: str) -> list[Record]:
        """Return the journal of a run.

        Raises:
            UsageError: There is no such run.
        """
        records = list(self.store.read(execution_id))
        if not records:
            raise UsageError(f"there is no run {execution_id!r} in this store; `oao jobs` lists them")
        return records

    async def status(self, execution_id: str) -> JobStatus:
        """Return how far a job is; see `records` for the errors."""
        return status_of(self.records(execution_id))

    async def fetch(self, execution_id: str, timeout_s: float | None = None) -> ExecutionReport | None:
        """Return the report of a job as soon as it is over, or waits for a person.

        Args:
            execution_id: The job.
            timeout_s: Seconds to wait at most; None for ever.

        Returns:
            The report, see `report_of`; None where the job is not over in time.

        Raises:
            UsageError: There is no such run.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        look_s = _LOOK_S if self._is_durable else _LOOK_LOCAL_S
        report = self._report_at_rest(execution_id)
        while report is None:
            left_s = look_s if until is None else min(look_s, until - time.monotonic())
            # Asked before the journal is read: an end in between is told.
            told = asyncio.ensure_future(self.scheduler.wait(execution_id, max(0.0, left_s)))
            try:
                await asyncio.sleep(0)
                report = self._report_at_rest(execution_id)
                if report is not None or left_s <= 0:
                    return report
                await told
            finally:
                told.cancel()
                # It gives back what it listens to; nobody should close the scheduler before.
                await asyncio.wait({told}, timeout=_LEAVING_S)
                told.add_done_callback(_heard)
        return report

    def _report_at_rest(self, execution_id: str) -> ExecutionReport | None:
        """Return the report of a run that is over or waits for a person, None of one that goes on."""
        records = self.records(execution_id)
        found = status_of(records)
        return report_of(records) if found.is_over or found.is_waiting else None

    async def cancel(self, execution_id: str, by: Principal) -> JobStatus:
        """End a job that is queued, running or waiting for a person; return how far it is then.

        One that is running is told to stop: it ends as soon as its worker hears of it, or its lease has lapsed.

        Args:
            execution_id: The job.
            by: Who cancels; kept in the journal of a job that was not running.

        Raises:
            UsageError: There is no such run, or it is over.
        """
        self._require_open(execution_id)
        await self.scheduler.cancel(execution_id)
        try:
            self._end(execution_id, f"cancelled by {by.id}")
        except (BusyError, FencedError) as error:
            busy_s = error.left_s if isinstance(error, BusyError) else _LOOK_S
            await self.fetch(execution_id, busy_s + _LOOK_S)
            if not (await self.status(execution_id)).is_over:
                # Its worker died before it heard of it.
                self._end(execution_id, f"cancelled by {by.id}")
        await self.scheduler.ended(execution_id)
        return await self.status(execution_id)

    def _end(self, execution_id: str, reason: str) -> None:
        def ended(writer: Writer, records: Sequence[Record]) -> None:
            if not status_of(records).is_over:
                last = next((one for one in reversed(records) if "totals" in one), None)
                totals = last["totals"] if last is not None else {"steps": 0}
                writer.append("violation", {"rule": "cancelled", "plugin": "oao", "reason": reason})
                over = {"status": "FAILED", "error": reason, "output": None, "totals": totals}
                # Nobody runs it, so no listener is told: whoever hears of this record must know whose run it was.
                writer.append("run.finished", {**over, "agent": records[0]["agent"], "rule": "cancelled"})

        self._append(execution_id, ended)

    def _append(self, execution_id: str, write: Callable[[Writer, Sequence[Record]], None]) -> None:
        """Claim a run that nobody has, and write to its journal as it is then."""
        epoch = claim(self.store, execution_id)
        records = self.records(execution_id)
        writer = Writer(self.store, execution_id, self._clock, epoch=epoch)
        writer.continue_after(len(records))
        write(writer, records)

    def _require_open(self, execution_id: str) -> JobStatus:
        status = status_of(self.records(execution_id))
        if status.is_over:
            raise UsageError(f"run {execution_id!r} is over ({status.status}); nothing was changed")
        return status

    async def redrive(self, execution_id: str, by: Principal) -> JobStatus:
        """Queue a dead letter again, or a job that a person has answered; return how far it is then.

        Args:
            execution_id: The job.
            by: Who says so; kept in the journal.

        Raises:
            UsageError: There is no such job, it is over, or nobody queued it.
            BusyError: A worker has it.
        """
        status = self._require_open(execution_id)
        job = job_of(self.records(execution_id))
        if job is None:
            raise UsageError(f"run {execution_id!r} was not submitted to a fleet; go on with it: oao resume")

        def queued(writer: Writer, _records: Sequence[Record]) -> None:
            writer.append("run.queued", {"reason": f"driven again by {by.id}", "not_before": 0.0, "by": by.id})

        if status.status != "QUEUED":
            self._append(execution_id, queued)
        await self.scheduler.submit(_job(execution_id, {**job, "not_before": 0.0}))
        return await self.status(execution_id)

    async def jobs(self, status: str = "", limit: int = 100) -> Sequence[RunSummary]:
        """Return the newest runs of the store, or those of one status; see `Store.runs`."""
        return self.store.runs(limit, query=RunQuery(status=status, outer=True))

    async def stats(self) -> QueueStats:
        """Return what is in the queue; see `Scheduler.stats`."""
        return await self.scheduler.stats()

    async def close(self) -> None:
        """Release the scheduler and the store."""
        await self.scheduler.close()
        self.store.close()

    def budget(self, execution_id: str, limits: Limits) -> SharedBudget:
        """Return what a run, and what other workers run for it, may spend together: an account in the fleet's store.

        Raises:
            UsageError: The store's URL is not known: what nobody counts must not happen.
        """
        if not self._store_url:
            raise UsageError("limits that hold over workers are counted in the fleet's store; give the store by URL")
        return SharedBudget(f"run:{execution_id}", self._store_url, limits=limits)

    def due(self, summary: RunSummary) -> Job | None:
        """Return the job of a run that may go on; None where it is no job, is over, or waits for a person."""
        try:
            records = self.records(summary.execution_id)
        except (UsageError, StoreError):
            return None
        job, status = job_of(records), status_of(records)
        if job is None or status.is_over or status.status == "DEAD":
            return None
        if status.status == "SUSPENDED":
            report = report_of(records)
            if report.approvals or report.in_doubt:
                return None
        return _job(summary.execution_id, {**job, "not_before": status.not_before})


def _heard(told: asyncio.Future[bool]) -> None:
    """Take an error that nobody waits for any more."""
    if not told.cancelled():
        told.exception()


def _job(execution_id: str, job: Mapping[str, Json]) -> Job:
    return Job(
        execution_id=execution_id,
        agent=str(job["agent"]),
        tenant=str(job.get("tenant", "")),
        priority=cast("Priority", job.get("priority", "normal")),
        not_before=float(cast("float", job.get("not_before", 0.0))),
        nested=bool(job.get("nested")),
    )
