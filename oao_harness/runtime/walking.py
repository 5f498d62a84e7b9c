"""Walks a graph: a node starts when those that it depends on have ended; each is a nested run of the graph's own run.

Nothing here is recursive, and a node costs the same in a small graph as in a large one.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, cast

from oao_harness.errors import ConfigError, GraphError, OaoError, RunHalted, RunSuspended, UsageError
from oao_harness.journal.branching import new_id
from oao_harness.journal.codec import error_line
from oao_harness.runtime import context
from oao_harness.runtime.dispatch import drive_async
from oao_harness.runtime.execute import tell
from oao_harness.runtime.graph import TaskGraph, TaskNode
from oao_harness.runtime.lanes import Attempt, Lanes, Slots
from oao_harness.runtime.node_states import Ended, Past, ended_by, outputs_of
from oao_harness.runtime.node_tasks import Exactly, items_of, task_of
from oao_harness.runtime.nodes import Nodes
from oao_harness.runtime.opening import Place
from oao_harness.runtime.orchestrator import name_of
from oao_harness.runtime.passage import count_again
from oao_harness.runtime.phases import halt_text
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.resuming import decode_task
from oao_harness.runtime.stored_reports import bare_report
from oao_harness.runtime.sync_parts import SyncPart
from oao_hookspecs import Adapter, Json

__all__ = ["MAX_CONCURRENCY", "Nodes", "Walk", "prepared", "require_concurrency"]

MAX_CONCURRENCY: Final = 10
"""Agents of one graph that run at the same time, by default."""

# How long nodes may take to report after the run was halted; whoever waits for that run waits not much longer.
_WIND_UP_S: Final = 0.4
_NAMED: Final = 4


def require_concurrency(given: object) -> int:
    """Return how many agents may run at the same time.

    Raises:
        ConfigError: It is no whole number from 1.
    """
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ConfigError(f"max_concurrency={given!r:.60}: give a whole number from 1: so many agents run at once")
    return given


class Walk:
    """One walk through a graph, on one event loop; sync nodes in threads, see `lanes`.

    Args:
        graph: The graph; what is added to it later does not count.
        max_concurrency: Agents that run at the same time.
        nodes: Runs them.
        slots: Shared with the walk that this one is a part of; None for slots of its own.
        as_list: True returns what the nodes returned as a list.
    """

    def __init__(
        self,
        graph: TaskGraph,
        *,
        max_concurrency: int = MAX_CONCURRENCY,
        nodes: Nodes | None = None,
        slots: Slots | None = None,
        as_list: bool = False,
    ) -> None:
        self.graph = graph
        self.began = False
        self._nodes = graph.nodes
        self._order = graph.order()
        self._dependents = graph.dependents()
        self._ends = graph.ends()
        self._runner = nodes or Nodes()
        self._slots = slots or Slots(require_concurrency(max_concurrency))
        self._as_list = as_list
        self._ended: dict[str, Ended] = {}
        self._waiting_for: dict[str, int] = {}
        self._held: dict[str, ExecutionReport] = {}
        """Reports of the nodes that wait for a person."""
        self._ids: dict[str, str] = {}
        """Ids of the runs of the nodes that have begun."""
        self._again: set[str] = set()
        """Nodes whose runs have a journal already."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._idle: dict[str, asyncio.Task[None]] = {}
        """Those of them that wait for a slot, or to be tried again."""
        self._broken: BaseException | None = None
        self._lock = threading.RLock()
        """Held around every change of how far the nodes have come."""
        self._going = 0
        """Nodes that were started, and have not ended or stopped."""
        self._adapters: dict[tuple[int, int], Adapter | None] = {}
        """By agent and policy: who drives it in a lane; None where it takes a task of its own."""

    async def go(self, asked: object) -> Json:
        """Run the nodes as parts of the run that this code belongs to.

        Args:
            asked: The task of the graph.

        Returns:
            What the last node returned; where several end the graph, what they returned, by name.

        Raises:
            GraphError: A node failed.
            RunHalted: The run was halted, or waits for a person.
        """
        run = context.here.get()
        if run is None or self.began:
            raise OaoError("a graph is walked once, inside of its run")
        self.began, run.patient = True, True
        self._run, self._asked = run, asked
        self._context = contextvars.copy_context()
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._stop, self._done = asyncio.Event(), asyncio.Event()
        self._lanes = Lanes(
            self._slots, self._context, self._lock, begin=self._begin, drop=self._leave, stops=lambda: self._is_halted
        )
        self._has_lanes = self._runner.are_here and not self._is_in_order()
        await self._remember()
        self._waiting_for = {
            name: sum(one not in self._ended for one in self._nodes[name].dependencies)
            for name in self._order
            if name not in self._ended
        }
        self._advance([name for name, count in self._waiting_for.items() if not count])
        self._lanes.staff()
        try:
            await self._done.wait()
        except asyncio.CancelledError:
            await self._wind_up()
            raise
        return self._output()

    def reports(self) -> dict[str, ExecutionReport]:
        """Return the reports of all nodes, in the order they were added; also of those that did not run."""
        now = self._run.clock.time()
        return {name: self._report(node, now) for name, node in self._nodes.items()}

    async def settled(self) -> None:
        """Wait shortly until the nodes of a run that is over have reported."""
        open_ = [task for name, task in self._tasks.items() if name not in self._idle and not task.done()]
        open_ += self._lanes.busy
        if open_:
            await asyncio.wait(open_, timeout=_WIND_UP_S)

    # What is known already

    async def _remember(self) -> None:
        run = self._run
        if run.resumption is None:
            return
        past = Past.of(list(run.store.read(run.execution_id)), run.store)
        self._ended = {name: ended for name, ended in past.ended.items() if name in self._nodes}
        for name in past.unsaid:
            run.write("node", past.ended[name].fields(name))
        self._ids = dict(past.begun)
        self._again = set(past.begun)
        for execution_id in past.runs():
            calls = run.resumption.calls_of(execution_id)
            if not isinstance(calls, str) and calls:
                # What they spent is spent, and what they did is known to the policies.
                await drive_async(count_again(run, calls), run.hooks.timeout_s)

    # One node after the other

    @property
    def _is_halted(self) -> bool:
        return self._broken is not None or any(one.halted is not None or one.closed for one in self._run.lineage)

    def _is_in_order(self) -> bool:
        """Return True where runs begin and end in an order that was recorded, or is being: all of it on the loop."""
        is_resumed = any(one.resumption is not None or one.playback is not None for one in self._run.lineage)
        return is_resumed or context.session() is not None or any(one.hooks.awaits for one in self._run.lineage)

    def _advance(self, ready: Sequence[str]) -> None:
        """Start the nodes that wait for nothing any more; of those that end without a run, what comes after them.

        Whoever calls this has `Lanes.staff` called after it, or goes on with one of these nodes.
        """
        with self._lock:
            queue = deque(ready)
            while queue:
                name = queue.popleft()
                ended = None if self._is_halted else self._without_run(self._nodes[name])
                if ended is not None:
                    queue += self._end(name, ended)
                elif not self._is_halted:
                    self._start(name)
            self._leave(0)

    def _start(self, name: str) -> None:
        self._going += 1
        if self._adapter_in_lane(name) is not None:
            self._lanes.put(name)
        else:
            self._tell(lambda: self._start_task(name))

    def _start_task(self, name: str) -> None:
        task = self._loop.create_task(self._attend(self._nodes[name]), context=self._context.copy())
        self._tasks[name] = self._idle[name] = task

    def _leave(self, count: int) -> None:
        """Count nodes that have ended, or do not begin any more."""
        with self._lock:
            self._going -= count
            if not self._going:
                self._tell(self._done.set)

    def _tell(self, function: Callable[[], None]) -> None:
        """Have something done on the loop; at once in its own thread."""
        if threading.get_ident() == self._thread:
            function()
        else:
            tell(self._loop, function)

    def _end(self, name: str, ended: Ended) -> list[str]:
        """Keep what became of a node; return those that wait for nothing any more."""
        with self._lock:
            self._ended[name] = ended
            if not self._run.closed:
                self._run.write_if_possible("node", ended.fields(name))
            ready: list[str] = []
            for other in self._dependents[name]:
                if other in self._waiting_for:
                    self._waiting_for[other] -= 1
                    if not self._waiting_for[other]:
                        ready.append(other)
            return ready

    def _without_run(self, node: TaskNode) -> Ended | None:
        """Return what becomes of a node that does not run; None where it does."""
        before = [(one, self._ended[one]) for one in node.dependencies]
        stopped = next(((one, ended.because) for one, ended in before if ended.because), None)
        if stopped is not None:
            through, failed = stopped
            by = "" if through == failed else f" (through {through!r})"
            reason = f"not run: node {failed!r} failed, which it depends on{by}"
            return Ended(status="SKIPPED", reason=reason, because=failed)
        if before and all(ended.status == "SKIPPED" for _, ended in before):
            return Ended(status="SKIPPED", reason="not run: all nodes that it depends on were skipped")
        if node.when is None or node.name in self._ids:
            return None
        try:
            if node.when(outputs_of(self._ended, self._names(node))):
                return None
        except Exception as error:  # noqa: BLE001 - the user's own code
            return Ended(status="FAILED", reason=f"its condition failed: {error_line(error)}", because=node.name)
        return Ended(status="SKIPPED", reason="not run: its condition is false")

    async def _attend(self, node: TaskNode) -> None:
        """Run a node and go on with those after it; whatever happens, the walk hears of it."""
        name, ready = node.name, list[str]()
        try:
            report = await self._run_node(node)
            ready = [] if report is None else self._reported(name, report)
        except BaseException as error:  # noqa: BLE001 - judged there
            ready = self._broken_off(name, error)
        finally:
            self._tasks.pop(name, None)
            self._idle.pop(name, None)
            self._go_on(ready)
            self._lanes.staff()

    def _broken_off(self, name: str, error: BaseException) -> list[str]:
        """Note what a node raised that has no report; return those that wait for nothing any more."""
        if isinstance(error, RunHalted | asyncio.CancelledError):
            # The run around it is halted, and says why; or this node had not begun.
            return []
        if isinstance(error, Exception):
            # An agent that cannot be run, a policy that cannot be made.
            return self._end(name, Ended(status="FAILED", reason=error_line(error), because=name))
        # Raised again where the walk is awaited.
        self._broken = error
        return []

    def _reported(self, name: str, report: ExecutionReport) -> list[str]:
        """Keep the report of a node; return those that wait for nothing any more."""
        if report.status == "SUSPENDED":
            self._held[name] = report
            self._tell(self._stop.set)
            return []
        return self._end(name, ended_by(name, report))

    def _go_on(self, ready: Sequence[str]) -> None:
        """A node has ended, or stopped: go on with those after it."""
        with self._lock:
            self._advance(ready)
            self._leave(1)

    # In lanes

    def _adapter_in_lane(self, name: str) -> Adapter | None:
        """Return who drives a node in a lane; None where it takes a task: it is async, it waits, or it goes on."""
        node = self._nodes[name]
        if not self._has_lanes or node.over is not None or node.tries is not None or name in self._again:
            return None
        key = id(node.agent), id(node.policy)
        if key not in self._adapters:
            try:
                self._adapters[key] = self._runner.orchestrator(node.policy).adapter_in_thread(node.agent)
            except Exception:  # noqa: BLE001 - no agent, or no policy: its task says so
                self._adapters[key] = None
        return self._adapters[key]

    def _begin(self, name: str) -> Attempt | None:
        """Begin with a node in a lane; None where it ended with that."""
        own = self._context.copy()
        try:
            part = own.run(self._planned, name)
        except BaseException as error:  # noqa: BLE001 - judged there
            self._go_on(self._broken_off(name, error))
            return None
        return Attempt(name, part, own, self._loop, self._run_in_lane)

    def _planned(self, name: str) -> SyncPart:
        node, adapter = self._nodes[name], self._adapter_in_lane(name)
        if adapter is None:
            raise OaoError(f"node {name!r} runs in no lane")
        task = task_of(node, self._asked, outputs_of(self._ended, self._names(node)))
        place = Place(node=name, execution_id=new_id())
        self._ids[name] = place.execution_id
        self._again.add(name)
        return self._runner.orchestrator(node.policy).begin_part(place, node.agent, task, adapter)

    def _run_in_lane(self, name: str, run: Callable[[], ExecutionReport | None]) -> bool:
        """Have a node run in a lane; False where it has no report, because somebody else has it."""
        try:
            report = run()
            if report is None:
                return False
            ready = self._reported(name, report)
        except BaseException as error:  # noqa: BLE001 - judged there
            ready = self._broken_off(name, error)
        self._go_on(ready)
        return True

    async def _run_node(self, node: TaskNode) -> ExecutionReport | None:
        """Run a node until it has ended or a person must decide; None where it has not begun, or is to go on later."""
        name = node.name
        execution_id = self._ids.setdefault(name, new_id())
        place = Place(node=name, execution_id=execution_id, begun=name in self._again, retries=node.tries)
        task: object = None
        while True:
            if node.over is not None:
                report = await self._run_items(place, node)
            else:
                async with self._slots:
                    if self._is_halted:
                        self._forget(place)
                        return None
                    if name not in self._again:
                        task = task_of(node, self._asked, outputs_of(self._ended, self._names(node)))
                    elif task is None:
                        task = self._task_again(node, execution_id)
                    running = self._idle.pop(name)
                    self._again.add(name)
                    report = await self._runner.run(place, node, task)
                    self._idle[name] = running
            if report.status == "QUEUED":
                place = replace(place, begun=True)
                if not await self._waited(execution_id):
                    self._held[name] = report
                    return None
                continue
            return report

    def _forget(self, place: Place) -> None:
        if not place.begun:
            self._ids.pop(place.node, None)

    async def _run_items(self, place: Place, node: TaskNode) -> ExecutionReport:
        """Run the agent of a node for each item of a list: a graph without edges, which has slots with this one."""
        if self._is_halted:
            self._forget(place)
            raise asyncio.CancelledError
        tasks = items_of(node, self._asked, outputs_of(self._ended, self._names(node)))
        items = TaskGraph(
            (
                TaskNode(f"{node.name}[{index}]", node.agent, Exactly(task), retries=node.tries)
                for index, task in enumerate(tasks)
            ),
            name=name_of(node.agent),
        )
        if not tasks:
            return bare_report(items.name, "SUCCESS", None, now=self._run.clock.time(), output=[])
        self._idle.pop(node.name)
        self._again.add(node.name)
        prepared.set(Walk(items, nodes=self._runner, slots=self._slots, as_list=True))
        return await self._runner.run(replace(place, retries=None), replace(node, agent=items, task=None), tasks)

    def _names(self, node: TaskNode) -> Sequence[str]:
        return cast("Sequence[str]", node.dependencies)

    def _task_again(self, node: TaskNode, execution_id: str) -> object:
        """Return what a node was asked that goes on; a function that makes tasks may make another one now."""
        started = next(iter(self._run.store.read(execution_id)), None)
        if started is not None:
            try:
                return decode_task(started, None)
            except UsageError:
                pass
        return task_of(node, self._asked, outputs_of(self._ended, self._names(node)))

    async def _waited(self, execution_id: str) -> bool:
        """Wait until a node is tried again; False where the walk stops before."""
        last = next((one for one in reversed(list(self._run.store.read(execution_id)))), None)
        until = cast("float", last.get("not_before") or 0.0) if last is not None else 0.0
        left_s = max(0.0, until - self._run.clock.time())
        try:
            await asyncio.wait_for(self._stop.wait(), left_s)
        except TimeoutError:
            return not self._is_halted
        return False

    # The end

    async def _wind_up(self) -> None:
        """Let the nodes of a halted run report: they are halted with it."""
        halt = self._run.halted or RunHalted("cancelled by the caller", rule="cancelled", plugin="oao")
        if not isinstance(halt, RunSuspended):
            for inner in tuple(self._run.nested):
                inner.halt_now(type(halt)(halt.reason, rule=halt.rule, plugin=halt.plugin, source=halt.source))
        self._stop.set()
        for task in (*self._idle.values(), *self._lanes.idle):
            task.cancel()
        await self.settled()

    def _output(self) -> Json:
        if self._broken is not None:
            raise self._broken
        halted = next((one.halted for one in self._run.lineage if one.halted is not None), None)
        if halted is not None:
            raise halted
        failed = [name for name in self._nodes if self._ended[name].status == "FAILED"]
        if failed:
            raise GraphError(self._told(failed))
        if self._as_list:
            return [self._ended[name].output for name in self._nodes]
        outputs = outputs_of(self._ended, self._ends)
        return outputs[self._ends[0]] if len(self._ends) == 1 and outputs else cast("Json", outputs)

    def _told(self, failed: Sequence[str]) -> str:
        text = "; ".join(f"node {name!r} failed: {self._ended[name].reason}" for name in failed[:_NAMED])
        more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        skipped = [name for name in self._nodes if self._ended[name].status == "SKIPPED" and self._ended[name].because]
        rest = f", and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
        return f"{text}{more}" + (f"; not run: {', '.join(skipped[:_NAMED])}{rest}" if skipped else "")

    def _report(self, node: TaskNode, now: float) -> ExecutionReport:
        name, agent = node.name, name_of(node.agent)
        ended = self._ended.get(name)
        if ended is not None:
            return ended.as_report(agent, now)
        held = self._held.get(name)
        if held is not None:
            return held
        run, halt = self._run, next((one.halted for one in self._run.lineage if one.halted is not None), None)
        why = "the workflow was stopped" if halt is None else halt_text(halt)
        if halt is None or not isinstance(halt, RunSuspended):
            if name in self._again:
                return bare_report(agent, "FAILED", why, now=now, execution_id=self._ids[name])
            return bare_report(agent, "SKIPPED", f"not run: {why}", now=now)
        on = ", ".join(self._held) or run.execution_id
        return bare_report(agent, "QUEUED", f"waits: {on} is suspended", now=now, execution_id=self._ids.get(name, ""))


prepared: Final[contextvars.ContextVar[Walk | None]] = contextvars.ContextVar("oao_walk", default=None)
"""The walk that the next run of its graph takes; whoever prepared it asks it for the reports of the nodes."""
