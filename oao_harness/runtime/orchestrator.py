"""Takes an agent and a task through INIT, PLAN, EXECUTE, REVIEW and TERMINATE, and reports.

Holds configuration only: all state of a run is in its `Run`, so one orchestrator serves any number of runs at once.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from oao_harness.errors import AgentError, ConfigError, RunHalted
from oao_harness.journal.matcher import Matcher
from oao_harness.journal.recording import Recording
from oao_harness.journal.writer import Writer
from oao_harness.plugins.manager import hook_names, make_manager, undecided
from oao_harness.runtime import context, phases
from oao_harness.runtime.budget import Budget
from oao_harness.runtime.clock import SystemClock
from oao_harness.runtime.dispatch import Hooks, Steps, drive, drive_async
from oao_harness.runtime.execute import Ending, execute, execute_async
from oao_harness.runtime.leaves import install_when_imported
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.run import Run
from oao_hookspecs import Adapter, Clock, Limits, Store

__all__ = ["Orchestrator"]


class Orchestrator:
    """Runs agents under governance.

    Args:
        policy: A policy, the name of one (`off`, `observe`, `standard`, `strict`, `module:attribute`), a list of
            them, or None for no limits at all.
        store: Where journals go: a store, or a URL such as `sqlite:.oao/oao.db`; memory by default.
        plugins: Further plugin objects, or names of installed plugins that may decide.
        policy_timeout_s: Seconds one policy may take for one answer, > 0.
        clock: Where time is read; the system's clocks by default.

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
    ) -> None:
        policies = _as_list(policy)
        self._manager, self._policies = make_manager(policies, plugins)
        trusted = [plugin for plugin in plugins if isinstance(plugin, str)]
        names = hook_names()
        self._hooks = Hooks.of(
            self._manager,
            decide=names["decide"],
            observe=names["observe"],
            timeout_s=policy_timeout_s,
            undecided=undecided(trusted),
        )
        self._adapters: list[Adapter] = [adapter for found in self._manager.hook.oao_adapters() for adapter in found]
        self._clock: Clock = clock or SystemClock()
        install_when_imported(leaf for found in self._manager.hook.oao_leaves() for leaf in found)
        self.store: Store = self._open_store(store) if store is None or isinstance(store, str) else store

    def _open_store(self, url: str | None) -> Store:
        opened = self._manager.hook.oao_open_store(url=url or "memory:")
        if opened is None:
            raise ConfigError(f"no plugin opens the store {url!r}; known: memory:, sqlite:PATH")
        return cast("Store", opened)

    def run(
        self,
        agent: object,
        task: object = None,
        *,
        tools: Sequence[object] = (),
        framework: str | None = None,
        execution_id: str | None = None,
        agent_name: str | None = None,
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

        Raises:
            AgentError: There is no way to run this agent.
        """
        adapter = self._adapter_for(agent, framework)
        return self._run(adapter, self._make_run(agent_name or _name_of(agent), task, execution_id), agent, tools)

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
    ) -> ExecutionReport:
        """Run an agent on a task and return the report; see `run`. A sync agent runs in a thread of its own."""
        adapter = self._adapter_for(agent, framework)
        run = self._make_run(agent_name or _name_of(agent), task, execution_id)
        timeout_s = run.hooks.timeout_s
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
    ) -> ExecutionReport:
        """Run an agent with the outcomes of a recording: no model is asked, no tool body runs.

        The policies judge every call as in a live run. A request that is not the recorded one, and a recorded call
        that is not made, fail the run with the rule `replay`.

        Args:
            agent: The agent, see `run`.
            task: What it is asked.
            recording: A recording or the path of one.
            tools: See `run`.
            framework: See `run`.

        Raises:
            RecordingError: The recording cannot be read.
        """
        loaded = recording if isinstance(recording, Recording) else Recording.load(recording)
        adapter = self._adapter_for(agent, framework)
        run = self._make_run(_name_of(agent), task, None)
        run.replay = run.must_play = Matcher(loaded)
        return self._run(adapter, run, agent, tools)

    def open_run(self, agent_name: str, task: object = None) -> Run:
        """Open a run whose agent somebody else calls, and take it to EXECUTE.

        For sessions such as a pytest test, whose body calls the agent: it answers `context.Session.ambient`, and is
        the outer run of all others in the session. `close_run` ends it.

        Args:
            agent_name: Name in the report.
            task: What the agent is asked.

        Raises:
            RunHalted: A policy refused the task.
        """
        run = self._make_run(agent_name, task, None, ambient=True)
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

    def _make_run(self, agent_name: str, task: object, execution_id: str | None, *, ambient: bool = False) -> Run:
        run = Run(
            execution_id=execution_id or str(uuid.uuid4()),
            agent_name=agent_name,
            task=task,
            hooks=self._hooks,
            clock=self._clock,
            parent=None if ambient else _open_parent(),
        )
        run.budget = Budget(self._limits(run))
        if run.parent is not None:
            run.replay = run.parent.replay
        session = context.session()
        tap = session.adopt(run) if session is not None else None
        run.writer = Writer(self.store, run.execution_id, self._clock, tap)
        return run

    def _limits(self, run: Run) -> Limits:
        limits = Limits()
        for impl in self._manager.hook.oao_limits.get_hookimpls():
            try:
                found: object = impl.function(*[run for _ in impl.argnames])
            except Exception as error:
                raise ConfigError(f"plugin {impl.plugin_name!r} failed in oao_limits: {error}") from error
            if isinstance(found, Limits):
                limits = limits.tightened(found)
            elif found is not None:
                raise ConfigError(
                    f"plugin {impl.plugin_name!r}: oao_limits returned {found!r:.100}, which is no Limits"
                )
        return limits

    def _adapter_for(self, agent: object, framework: str | None) -> Adapter:
        names = [adapter.name for adapter in self._adapters]
        if framework is not None and framework not in names:
            raise ConfigError(f"unknown framework {framework!r}; known: {', '.join(names)}")
        for adapter in self._adapters:
            if framework in {None, adapter.name} and adapter.matches(agent):
                return adapter
        hint = "; this is a class, make an instance of it" if isinstance(agent, type) else ""
        raise AgentError(
            f"there is no way to run {agent!r:.100}: give a function, an object with invoke() or ainvoke(), "
            f"or an agent of a supported framework ({', '.join(names)}){hint}"
        )


def _as_list(policy: object) -> list[object | str]:
    if policy is None:
        return []
    return list(cast("Sequence[object]", policy)) if isinstance(policy, list | tuple) else [policy]


def _name_of(agent: object) -> str:
    for attribute in ("name", "__name__"):
        name = getattr(agent, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(agent).__name__


def _open_parent() -> Run | None:
    """Return the run that this one is started in: its policies and its budget hold here too."""
    parent = context.here.get()
    if parent is not None and (not parent.closed or parent.halted is not None):
        return parent
    session = context.session()
    return session.ambient() if session is not None else None


def _has_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
