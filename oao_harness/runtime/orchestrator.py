"""Takes an agent and a task through INIT, PLAN, EXECUTE, REVIEW and TERMINATE, and reports.

Holds configuration only: all state of a run is in its `Run`, so one orchestrator serves any number of runs at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from oao_harness.errors import ConfigError, RunHalted
from oao_harness.journal.branching import Edit, branch
from oao_harness.journal.grouping import Group
from oao_harness.journal.leases import LEASE_S
from oao_harness.journal.playback import Playback
from oao_harness.journal.recording import Recording
from oao_harness.journal.wire_replay import replay_of
from oao_harness.plugins.manager import hook_names, make_manager
from oao_harness.runtime import phases
from oao_harness.runtime.approvals import Approver, CallbackApprover
from oao_harness.runtime.catalog import Catalog
from oao_harness.runtime.clock import SystemClock
from oao_harness.runtime.dispatch import Hooks, Steps, drive, drive_async
from oao_harness.runtime.drivers import adapter_for
from oao_harness.runtime.execute import Ending, execute, execute_async
from oao_harness.runtime.inbox import Inbox
from oao_harness.runtime.leaves import install_when_imported
from oao_harness.runtime.limits import NamedLimits
from oao_harness.runtime.nesting import wait_for_siblings, wait_for_siblings_async
from oao_harness.runtime.opening import Opener, Place
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.requeuing import Retries
from oao_harness.runtime.run import Run
from oao_harness.runtime.shared_budget import SharedBudget
from oao_harness.runtime.sync_parts import SyncPart
from oao_hookspecs import Adapter, Clock, Json, Principal, Record, Store

__all__ = ["Orchestrator", "name_of"]


class Orchestrator(Opener, Inbox):
    """Runs agents under governance.

    Args:
        policy: A policy, the name of one (`off`, `observe`, `standard`, `strict`, `module:attribute`), a list of
            them, or None for no limits at all.
        store: Where journals go: a store, or a URL such as `sqlite:.oao/oao.db`; memory by default.
        plugins: Further plugin objects, or names of installed plugins that may decide.
        policy_timeout_s: Seconds one policy may take for one answer, > 0.
        clock: Where time is read; the system's clocks by default.
        approver: Answers held calls at once: is given the question and returns `Approve`, `Reject` or None, which
            leaves it to a person and suspends the run. It may take its time, and may be async.
        lease_s: Seconds for which nobody else may resume a run after this process was last heard of, > 0. A process of
            this machine that is dead is noticed at once.
        budget: What the runs may spend together with all others, in any process, that name the same budget.
        waivers: Denials of policies that do not count, for tests: `rule` or `rule:tool` and why. The call passes, the
            journal and the report say what would have been denied. Limits and errors of policies cannot be waived.
        project: A folder of the project whose pyproject.toml says which plugins are used; the working folder by
            default.

    Raises:
        ConfigError: A policy, a plugin or a store is unknown or unusable.
        StoreError: The store cannot be opened.
    """

    def __init__(
        self,
        policy: object | str | Sequence[object | str] | None = None,
        store: Store | str | None = None,
        plugins: Sequence[object | str] = (),
        *,
        policy_timeout_s: float = 5.0,
        clock: Clock | None = None,
        approver: Approver | None = None,
        budget: SharedBudget | None = None,
        waivers: Mapping[str, str] | None = None,
        lease_s: float = LEASE_S,
        project: Path | None = None,
    ) -> None:
        if not 0 < lease_s < math.inf:
            raise ConfigError(f"lease_s={lease_s!r} must be more than 0 seconds, and a number")
        self._lease_s = lease_s
        policies = _as_list(policy)
        asked = [] if approver is None else [CallbackApprover(approver)]
        self._manager, self._policies = make_manager(policies, [*plugins, *asked], project=project)
        names = hook_names()
        self._hooks = Hooks.of(
            self._manager,
            decide=names["decide"],
            observe=(*names["observe"], "oao_traceparent"),
            timeout_s=policy_timeout_s,
            undecided=self._manager.undecided,
            waivers=waivers,
        )
        self._adapters: list[Adapter] = [adapter for found in self._manager.hook.oao_adapters() for adapter in found]
        self._clock: Clock = clock or SystemClock()
        install_when_imported(leaf for found in self._manager.hook.oao_leaves() for leaf in found)
        self._catalog = Catalog(self._manager)
        self._limits = NamedLimits(self._manager)
        self._budget = budget
        self._has_store = store is not None
        self.store = self._open_store(store) if store is None or isinstance(store, str) else store

    @property
    def policies(self) -> Sequence[object]:
        """The policies in force, as objects, in the order they are asked."""
        return tuple(self._policies)

    @property
    def clock(self) -> Clock:
        """Where it reads the time."""
        return self._clock

    def run(
        self,
        agent: object,
        task: object = None,
        *,
        tools: Sequence[object] = (),
        framework: str | None = None,
        execution_id: str | None = None,
        agent_name: str | None = None,
        principal: Principal | None = None,
        origin: Mapping[str, Json] | None = None,
    ) -> ExecutionReport:
        """Run an agent on a task and wait for the report; a failed run is a report that says why.

        With a time limit, a sync agent runs in a thread of its own, in a copy of the caller's context.

        Args:
            agent: A function, an object with `invoke` or `ainvoke`, a LangChain runnable, a LangGraph graph ...
            task: What it is asked; handed to the agent as it is.
            tools: Functions that pass the gate as tools, handed to the agent as `tools=`; they are not changed.
            framework: Name of the adapter to use; found by itself by default.
            execution_id: Id of the run; a new one by default.
            agent_name: Name in the report; the agent's `name`, function name or class name by default.
            principal: Who the run acts for; the caller vouches for it. That of the outer run by default.
            origin: Where agent and policy can be found again, for who resumes the run elsewhere; kept as it is.

        Raises:
            AgentError: There is no way to run this agent.
        """
        adapter = adapter_for(self._adapters, agent, framework)
        agent_name = agent_name or name_of(agent)
        wait_for_siblings(agent_name, task)
        run = self._make_run(agent_name, task, execution_id, principal=principal, origin=origin)
        return self._run(adapter, run, agent, tools)

    def _run(self, adapter: Adapter, run: Run, agent: object, tools: Sequence[object]) -> ExecutionReport:
        timeout_s, task = run.hooks.timeout_s, run.task

        def in_a_loop() -> Ending:
            return asyncio.run(execute_async(run, lambda: adapter.drive_async(agent, task, tools)))

        try:
            ending: Ending | None = None
            if drive(self._planning(run, adapter, agent, tools), timeout_s):
                if adapter.is_async(agent):
                    outer = execute(run, in_a_loop, in_thread=_has_running_loop())
                    ending = outer.result if isinstance(outer.result, Ending) else outer
                else:
                    ending = execute(run, lambda: adapter.drive(agent, task, tools))
            return drive(phases.review(run, ending, adapter), timeout_s)
        except BaseException as error:
            drive(phases.abort(run, error), timeout_s)
            raise

    async def run_async(
        self,
        agent: object,
        task: object = None,
        *,
        tools: Sequence[object] = (),
        framework: str | None = None,
        execution_id: str | None = None,
        agent_name: str | None = None,
        principal: Principal | None = None,
        origin: Mapping[str, Json] | None = None,
    ) -> ExecutionReport:
        """Run an agent on a task and return the report; see `run`. A sync agent runs in a thread of its own."""
        adapter = adapter_for(self._adapters, agent, framework)
        agent_name = agent_name or name_of(agent)
        await wait_for_siblings_async(agent_name, task)
        run = self._make_run(agent_name, task, execution_id, principal=principal, origin=origin)
        return await self._run_async(adapter, run, agent, tools)

    async def run_part(self, place: Place, agent: object, task: object) -> ExecutionReport:
        """Run an agent as a named part of the run that this code belongs to, for example a node of a graph.

        Args:
            place: Its name, and whether it goes on. One that has ended must not be asked for again.
            agent: See `run`.
            task: See `run`.
        """
        adapter = adapter_for(self._adapters, agent, None)
        return await self._run_async(adapter, self._make_part(place, name_of(agent), task), agent, ())

    def adapter_in_thread(self, agent: object) -> Adapter | None:
        """Return who drives an agent of which a whole run can go on in any thread; None where it belongs on a loop."""
        if self._hooks.awaits:
            return None
        adapter = adapter_for(self._adapters, agent, None)
        return None if adapter.is_async(agent) or hasattr(agent, "ainvoke") else adapter

    def begin_part(self, place: Place, agent: object, task: object, adapter: Adapter) -> SyncPart:
        """Plan a part of the run that this code belongs to, to be gone on with in this thread; see `run_part`.

        Args:
            place: See `run_part`.
            agent: The agent.
            task: See `run`.
            adapter: As `adapter_in_thread` returns it.
        """
        run = self._make_part(place, name_of(agent), task)
        return SyncPart(run, adapter, agent, self._planning(run, adapter, agent, ()))

    async def _run_async(self, adapter: Adapter, run: Run, agent: object, tools: Sequence[object]) -> ExecutionReport:
        timeout_s, task = run.hooks.timeout_s, run.task
        try:
            ending: Ending | None = None
            if await drive_async(self._planning(run, adapter, agent, tools), timeout_s):
                if adapter.is_async(agent) or hasattr(agent, "ainvoke"):
                    ending = await execute_async(run, lambda: adapter.drive_async(agent, task, tools))
                else:
                    body = cast("Callable[[], Any]", lambda: adapter.drive(agent, task, tools))
                    ending = await execute_async(run, body, is_sync=True)
            return await drive_async(phases.review(run, ending, adapter), timeout_s)
        except BaseException as error:
            drive(phases.abort(run, error), timeout_s)
            raise

    def replay(
        self,
        agent: object,
        task: object,
        recording: Recording | str | Path,
        *,
        tools: Sequence[object] = (),
        framework: str | None = None,
        execution_id: str | None = None,
    ) -> ExecutionReport:
        """Run an agent with the outcomes of a recording: no model is asked, no tool body runs.

        The policies judge every call as in a live run. A request that is not the recorded one, and a recorded call
        that is not made, fail the run with the rule `replay`. Its journal is in the recorded order and has the
        recorded times, so that with the same id two replays write the same bytes.

        Args:
            agent: The agent, see `run`.
            task: What it is asked.
            recording: A recording or the path of one.
            tools: See `run`.
            framework: See `run`.
            execution_id: Id of the run; a new one by default.

        Raises:
            RecordingError: The recording cannot be read.
        """
        loaded = recording if isinstance(recording, Recording) else Recording.load(recording)
        adapter = adapter_for(self._adapters, agent, framework)
        run = self._make_run(name_of(agent), task, execution_id)
        run.replay = run.must_play = replay_of(loaded)
        run.follow(Playback(loaded))
        return self._run(adapter, run, agent, tools)

    def resume(
        self,
        execution_id: str,
        agent: object,
        *,
        tools: Sequence[object] = (),
        framework: str | None = None,
        task: object = None,
        allow_changes: bool = False,
    ) -> ExecutionReport:
        """Go on with a run that was suspended or interrupted, from its journal.

        The agent's code runs again from the start: its finished calls are served, the next one is made. While a
        question of the run is open nothing is started, and the report says SUSPENDED.

        Args:
            execution_id: The run; not one that is nested in another.
            agent: The same agent.
            tools: See `run`.
            framework: See `run`.
            task: The task, where it is no plain JSON and so is not in the journal.
            allow_changes: True goes on although the agent's or a tool's code, or the policy, is another one now.

        Raises:
            UsageError: The run is unknown or over, or its code has changed.
        """
        adapter = adapter_for(self._adapters, agent, framework)
        run = self._resumed_run(execution_id, agent, tools, task, allow_changes=allow_changes)
        if run.resumption is None and run.queued_at is None:
            return phases.suspended_report(run)
        return self._run(adapter, run, agent, tools)

    async def resume_async(
        self,
        execution_id: str,
        agent: object,
        *,
        tools: Sequence[object] = (),
        framework: str | None = None,
        task: object = None,
        allow_changes: bool = False,
    ) -> ExecutionReport:
        """Go on with a run; see `resume`."""
        adapter = adapter_for(self._adapters, agent, framework)
        run = self._resumed_run(execution_id, agent, tools, task, allow_changes=allow_changes)
        if run.resumption is None and run.queued_at is None:
            return phases.suspended_report(run)
        return await self._run_async(adapter, run, agent, tools)

    async def work(
        self,
        execution_id: str,
        agent: object,
        *,
        retries: Retries | None = None,
        shared: SharedBudget | None = None,
        records: Sequence[Record] | None = None,
        epoch: int = 0,
        group: Group | None = None,
    ) -> ExecutionReport:
        """Begin with a run that was queued, or go on with it: what a worker does with a job.

        Args:
            execution_id: The run; it may be a part of another worker's.
            agent: See `resume`.
            retries: How often it is tried again where its agent fails: its report says QUEUED then.
            shared: What it may spend together with the run that it is a part of.
            records: Its journal as the caller has just read it; None reads it. It is read again with the claim.
            epoch: Of the caller's claim, before it read the records; 0 claims the run. Whatever comes of this call but
                a report of a run that began or went on, the caller gives the claim back.
            group: The runs of this event loop, where they write together.

        Raises:
            UsageError: See `resume`.
            ChangedError: The worker has other code, or another policy, than the run began with.
            BusyError: Another worker has it.
        """
        adapter = adapter_for(self._adapters, agent, None)
        run = self._resumed_run(
            execution_id, agent, (), None, allow_changes=False, part=True, known=records, epoch=epoch
        )
        if run.resumption is None and run.queued_at is None:
            return phases.suspended_report(run)
        run.retries, run.tree, run.group = retries, shared, group
        return await self._run_async(adapter, run, agent, ())

    def fork(
        self,
        execution_id: str,
        agent: object,
        at: int,
        *,
        edit: Edit | None = None,
        model: str | None = None,
        tools: Sequence[object] = (),
        framework: str | None = None,
        task: object = None,
    ) -> ExecutionReport:
        """Run an agent again from the middle of a run, as a new run; nothing before that call fires again.

        Args:
            execution_id: The run that is forked; it stays as it is.
            agent: The agent; it may have changed since.
            at: Number of the first call that is made anew, from 1; with `edit` that call is served, edited.
            edit: What call `at` returns instead.
            model: Name of the model that is asked from here on.
            tools: See `run`.
            framework: See `run`.
            task: See `resume`.

        Raises:
            UsageError: There is no such run or call, or the run is nested in another.
        """
        new = branch(self.store, execution_id, at, self._clock, edit=edit, model=model)
        return self.resume(new, agent, tools=tools, framework=framework, task=task, allow_changes=True)

    async def fork_async(
        self,
        execution_id: str,
        agent: object,
        at: int,
        *,
        edit: Edit | None = None,
        model: str | None = None,
        tools: Sequence[object] = (),
        framework: str | None = None,
        task: object = None,
    ) -> ExecutionReport:
        """Run an agent again from the middle of a run; see `fork`."""
        new = branch(self.store, execution_id, at, self._clock, edit=edit, model=model)
        return await self.resume_async(new, agent, tools=tools, framework=framework, task=task, allow_changes=True)

    def open_run(
        self,
        agent_name: str,
        task: object = None,
        *,
        principal: Principal | None = None,
        execution_id: str | None = None,
    ) -> Run:
        """Open a run whose agent somebody else calls, and take it to EXECUTE.

        For sessions such as a pytest test, whose body calls the agent: it answers `context.Session.ambient`, and is
        the outer run of all others in the session. `close_run` ends it.

        Args:
            agent_name: Name in the report.
            task: What the agent is asked.
            principal: Who the run acts for.
            execution_id: Id of the run; a new one by default.

        Raises:
            RunHalted: A policy refused the task.
        """
        run = self._make_run(agent_name, task, execution_id, ambient=True, principal=principal)
        timeout_s = run.hooks.timeout_s
        if not drive(phases.plan(run, adapter="open", policies=self._policies), timeout_s):
            drive(phases.review(run, None, None), timeout_s)
            raise run.require_halt()
        drive(phases.execute_phase(run), timeout_s)
        return run

    def close_run(self, run: Run, ending: Ending) -> ExecutionReport:
        """End a run that `open_run` opened: REVIEW, TERMINATE, report."""
        return drive(phases.review(run, ending, None), run.hooks.timeout_s)

    def _planning(self, run: Run, adapter: Adapter, agent: object, tools: Sequence[object]) -> Steps[bool]:
        try:
            planned = yield from phases.plan(
                run, adapter=adapter.name, policies=self._policies, agent=agent, tools=tools
            )
            if not planned or not (yield from phases.refuse_unseen(run, adapter, agent, tools)):
                return False
            yield from phases.execute_phase(run)
        except RunHalted:
            if run.halted is None:
                raise
            return False
        return True


def _as_list(policy: object) -> list[object | str]:
    if policy is None:
        return []
    return list(cast("Sequence[object]", policy)) if isinstance(policy, list | tuple) else [policy]


def name_of(agent: object) -> str:
    """Return the name of an agent: its `name`, that of the function, else that of its class."""
    for attribute in ("name", "__name__"):
        name = getattr(agent, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(agent).__name__


def _has_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
