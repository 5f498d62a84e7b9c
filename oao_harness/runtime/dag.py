"""Runs graphs of agents: durable, in parallel where nothing waits, one budget over all.

The workflow is a run, its nodes are nested runs of it. See `graph` for the graph itself and `walking` for the order.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from oao_harness.errors import ConfigError, UsageError
from oao_harness.journal.codec import alike
from oao_harness.journal.leases import LEASE_S
from oao_harness.plugins.manager import hook_names
from oao_harness.runtime.approvals import Approver
from oao_harness.runtime.graph import Outputs, TaskGraph, TaskNode
from oao_harness.runtime.graph_forking import branch_graph
from oao_harness.runtime.orchestrator import Orchestrator, name_of
from oao_harness.runtime.plain import as_json
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.requeuing import Retries
from oao_harness.runtime.shared_budget import SharedBudget
from oao_harness.runtime.stored_reports import bare_report
from oao_harness.runtime.walking import MAX_CONCURRENCY, Nodes, Walk, prepared, require_concurrency
from oao_hookspecs import Clock, Principal, Store

__all__ = ["GraphExecutor", "GraphResults", "Outputs", "Retries", "TaskGraph", "TaskNode"]

T = TypeVar("T")

_MOST_TOLD: Final = 20


class GraphResults(dict[str, ExecutionReport]):
    """The reports of the nodes by name, in the order the nodes were added, and that of the workflow.

    Args:
        nodes: The reports of the nodes.
        workflow: The report of the run around them.
    """

    def __init__(self, nodes: Mapping[str, ExecutionReport], workflow: ExecutionReport) -> None:
        super().__init__(nodes)
        self.workflow = workflow
        """How the whole went: its id, `final_output`, what all nodes used together."""

    def __repr__(self) -> str:
        # Python itself asks for it, of the result of a loop's main task: never that of ten thousand reports.
        told = [f"{name}: {report.status}" for name, report in itertools.islice(self.items(), _MOST_TOLD)]
        more = f", and {len(self) - _MOST_TOLD} more" if len(self) > _MOST_TOLD else ""
        return f"GraphResults({self.workflow.status}; {', '.join(told)}{more})"


class GraphExecutor:
    """Runs a graph of agents. Holds configuration only: one executor serves any number of runs.

    Args:
        graph: The graph.
        policy: Holds over all nodes together; see `Orchestrator`. A node may have one of its own besides.
        max_concurrency: Agents that run at the same time, >= 1.
        workflow_id: Id of the run; a new one for each by default. Where its journal is in the store already and the
            run is not over, `execute` goes on with it.
        store: Where journals go: a store, or a URL such as `sqlite:flow.db`; memory by default.
        persistence_url: Another name of `store`.
        plugins: See `Orchestrator`. Those that only listen hear of the nodes' runs too.
        approver: See `Orchestrator`.
        budget: See `Orchestrator`.
        clock: See `Orchestrator`.
        lease_s: See `Orchestrator`.
        nodes: Runs single nodes; in this process by default.

    Raises:
        ConfigError: The graph has a cycle or lacks a node, or an option is wrong.
    """

    def __init__(
        self,
        graph: TaskGraph,
        policy: object | str | Sequence[object | str] | None = None,
        max_concurrency: int = MAX_CONCURRENCY,
        workflow_id: str | None = None,
        *,
        store: Store | str | None = None,
        persistence_url: str | None = None,
        plugins: Sequence[object | str] = (),
        approver: Approver | None = None,
        budget: SharedBudget | None = None,
        clock: Clock | None = None,
        lease_s: float = LEASE_S,
        nodes: Nodes | None = None,
    ) -> None:
        if not isinstance(graph, TaskGraph):  # pyright: ignore[reportUnnecessaryIsInstance] - the seed takes any
            raise ConfigError(f"{graph!r:.80} is no TaskGraph")
        if store is not None and persistence_url is not None:
            raise ConfigError("store= and persistence_url= both say where journals go; leave one of them out")
        graph.validate()
        self.graph = graph
        self.workflow_id = workflow_id
        self._max_concurrency = require_concurrency(max_concurrency)
        self._nodes = nodes or Nodes([plugin for plugin in plugins if _only_listens(plugin)])
        self.orchestrator = Orchestrator(
            policy,
            store if store is not None else persistence_url,
            plugins,
            approver=approver,
            budget=budget,
            clock=clock,
            lease_s=lease_s,
        )
        """Runs the workflow; holds the store, and the questions that wait for a person."""

    @property
    def store(self) -> Store:
        """Where the journals are."""
        return self.orchestrator.store

    def execute(self, task: object = None, *, principal: Principal | None = None) -> GraphResults:
        """Run the graph on a task and wait for the reports; see `execute_async`."""
        return in_loop_of_its_own(lambda: self.execute_async(task, principal=principal))

    async def execute_async(self, task: object = None, *, principal: Principal | None = None) -> GraphResults:
        """Run the graph on a task.

        Args:
            task: What nodes without a task of their own are asked.
            principal: Who the run acts for.

        Returns:
            The reports of all nodes, in the order they were added: FAILED with the error, SKIPPED with the reason
            where one before it failed or a condition is false, SUSPENDED where a person must decide.

        Raises:
            UsageError: The run of this id is over, or was begun with another task.
        """
        graph, workflow_id = self.graph, self.workflow_id
        if workflow_id is not None and self._has_begun(workflow_id, task):
            return await self.resume_async(workflow_id)
        return await self._walked(
            lambda: self.orchestrator.run_async(graph, task, execution_id=workflow_id, principal=principal)
        )

    def resume(
        self, workflow_id: str | None = None, *, task: object = None, allow_changes: bool = False
    ) -> GraphResults:
        """Go on with a run that was suspended or interrupted; see `resume_async`."""
        return in_loop_of_its_own(lambda: self.resume_async(workflow_id, task=task, allow_changes=allow_changes))

    async def resume_async(
        self, workflow_id: str | None = None, *, task: object = None, allow_changes: bool = False
    ) -> GraphResults:
        """Go on with a run that was suspended or interrupted. A node that has ended is not run again.

        Args:
            workflow_id: The run; that of this executor by default.
            task: The task, where it is no plain JSON and so is not in the journal.
            allow_changes: True goes on although the graph, its agents' code or the policy is another one now.

        Raises:
            UsageError: The run is unknown or over, or its code has changed.
        """
        found = self._id(workflow_id)
        return await self._walked(
            lambda: self.orchestrator.resume_async(found, self.graph, task=task, allow_changes=allow_changes)
        )

    def fork(
        self,
        workflow_id: str | None = None,
        at: str | Iterable[str] = (),
        *,
        results: Mapping[str, object] | None = None,
        task: object = None,
    ) -> GraphResults:
        """Run a part of the graph anew, as a new run; see `fork_async`."""
        return in_loop_of_its_own(lambda: self.fork_async(workflow_id, at, results=results, task=task))

    async def fork_async(
        self,
        workflow_id: str | None = None,
        at: str | Iterable[str] = (),
        *,
        results: Mapping[str, object] | None = None,
        task: object = None,
    ) -> GraphResults:
        """Run a part of the graph anew, as a new run; the old one stays as it is.

        Args:
            workflow_id: The run; that of this executor by default.
            at: The nodes that run anew, with all that depend on them. What failed or never ran does so in any case;
                all other nodes keep their results.
            results: What nodes are to have returned instead, by name; what depends on them runs anew.
            task: See `resume_async`.

        Raises:
            UsageError: There is no such run or node.
        """
        names = [at] if isinstance(at, str) else list(at)
        clock = self.orchestrator.clock
        new = branch_graph(self.store, self._id(workflow_id), self.graph, clock, at=names, results=results)
        return await self._walked(
            lambda: self.orchestrator.resume_async(new, self.graph, task=task, allow_changes=True)
        )

    async def _walked(self, run: Callable[[], Awaitable[ExecutionReport]]) -> GraphResults:
        walk = Walk(self.graph, max_concurrency=self._max_concurrency, nodes=self._nodes)
        token = prepared.set(walk)
        try:
            workflow = await run()
        finally:
            prepared.reset(token)
        if walk.began:
            await walk.settled()
            return GraphResults(walk.reports(), workflow)
        now = self.orchestrator.clock.time()
        is_held = workflow.status == "SUSPENDED"
        status, said = ("QUEUED", "waits") if is_held else ("SKIPPED", "not run")
        why = f"{said}: the workflow is suspended" if is_held else f"{said}: {workflow.error}"
        return GraphResults(
            {
                name: bare_report(name_of(node.agent), "QUEUED" if status == "QUEUED" else "SKIPPED", why, now=now)
                for name, node in self.graph.nodes.items()
            },
            workflow,
        )

    def _has_begun(self, workflow_id: str, task: object) -> bool:
        """Return True where the run is in the store.

        Raises:
            UsageError: It was begun with another task.
        """
        started = next(iter(self.store.read(workflow_id)), None)
        if started is None:
            return False
        if task is not None and not alike(started.get("task"), as_json(task)):
            raise UsageError(
                f"workflow {workflow_id!r} was begun with another task, {started.get('task')!r:.80}; "
                "go on with that one, or use another workflow_id"
            )
        return True

    def _id(self, workflow_id: str | None) -> str:
        found = workflow_id or self.workflow_id
        if found is None:
            raise UsageError("which workflow? give its id: results.workflow.execution_id, or `oao runs`")
        return found


def _only_listens(plugin: object | str) -> bool:
    """Return True for a plugin that decides and limits nothing: it may hear of a call in two runs."""
    if isinstance(plugin, str):
        return False
    hooks = [name for name in dir(plugin) if name.startswith("oao_")]
    return bool(hooks) and set(hooks) <= {*hook_names()["observe"], "oao_traceparent"}


def in_loop_of_its_own(make: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine to its end from sync code; where a loop runs in this thread, in another thread."""

    async def run() -> T:
        return await make()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run())
    with ThreadPoolExecutor(1, thread_name_prefix="oao-graph") as pool:
        return pool.submit(contextvars.copy_context().run, asyncio.run, run()).result()
