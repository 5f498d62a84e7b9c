"""Where agents run: each in an event loop of its own, in a daemon thread, never in the loop that answers requests.

An agent's async clients stay on one loop. An agent that blocks its loop blocks itself only: what has not begun there
moves to a fresh loop. At its deadline a run is halted and reported, also where its code cannot be stopped: that is left
behind with its gate shut.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast

from oao_harness.errors import PolicyViolation, RunHalted, RunSuspended
from oao_harness.runtime import context, phases
from oao_harness.runtime.dispatch import drive
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.workers import submit
from oao_harness.server.refusals import AgentUnavailable, CutOff, Stopping, TooBusy

__all__ = ["Hosts"]

_log: Final = logging.getLogger(__name__)

_BEAT_S: Final = 1.0
"""Seconds after which a loop that does not answer counts as blocked."""
_UNWIND_S: Final = 1.0
"""Seconds that a halted run may take to report by itself."""
_UNREPORTED_S: Final = 10.0
"""Seconds that the report of a run may take whose code does not end: its journal may be slow."""
_TRIES: Final = 3
_MOST_BLOCKED: Final = 32
"""Blocked loops of one agent, each a thread: where there are more, it is not run any more until one is free."""

Make = Callable[[], Awaitable[ExecutionReport]]


@dataclass(slots=True, eq=False)
class _Work:
    """One run, from the request for it to its report."""

    execution_id: str
    make: Make
    asker: asyncio.AbstractEventLoop
    done: asyncio.Future[ExecutionReport]
    context: contextvars.Context
    lock: threading.Lock = field(default_factory=threading.Lock)
    taken: bool = False
    """True as soon as a loop has begun with it, or nobody may any more."""
    task: asyncio.Task[Any] | None = None
    begun: list[asyncio.Task[None]] = field(default_factory=list["asyncio.Task[None]"])

    def take(self) -> bool:
        """Return True for the first who asks."""
        with self.lock:
            first, self.taken = not self.taken, True
        return first

    def begin(self) -> None:
        """In the agent's loop: begin soon, unless another loop did."""
        if not self.taken:
            # Kept here: a loop has only weak references to its tasks.
            self.begun.append(asyncio.ensure_future(self._drive()))

    async def _drive(self) -> None:
        # Not before: what was begun in the same turn may block the loop.
        if not self.take():
            return
        self.task = asyncio.current_task()
        report: ExecutionReport | None = None
        error: BaseException | None = None
        try:
            report = await self.make()
        except BaseException as raised:  # noqa: BLE001 - told to who asked; a cancellation has no other reader
            error = raised
        self.settle(report, error)

    def settle(self, report: ExecutionReport | None, error: BaseException | None) -> None:
        """Tell who asked, from any thread."""

        def told() -> None:
            if self.done.done():
                return
            self.done.add_done_callback(_heard)
            if error is None:
                self.done.set_result(cast("ExecutionReport", report))
            elif isinstance(error, asyncio.CancelledError | StopIteration | KeyboardInterrupt | SystemExit):
                self.done.set_exception(CutOff(f"run {self.execution_id} was cut off ({type(error).__name__})"))
            else:
                self.done.set_exception(error)

        try:
            self.asker.call_soon_threadsafe(told)
        except RuntimeError:
            _log.debug("run %s ended after the server did", self.execution_id)


class _Host:
    """An event loop in a thread, for one agent."""

    def __init__(self, name: str) -> None:
        self.works: set[_Work] = set()
        self.asked_at: float | None = None
        """When it was asked for a sign of life that it has not given."""
        self._is_told = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"oao-agent-{name}", daemon=True)
        # In an empty context: the thread belongs to no run.
        contextvars.Context().run(self._thread.start)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            # An agent can stop its loop, or raise what ends one. The other runs on it, and the next ones, need it.
            while not self._is_told:
                try:
                    self._loop.run_forever()
                except BaseException as error:  # noqa: BLE001 - SystemExit too: this thread is not the process
                    _log.warning("%s: %s ended its event loop, which goes on", self._thread.name, type(error).__name__)
        finally:
            self._loop.close()

    def post(self, work: _Work) -> None:
        self.works.add(work)
        self._loop.call_soon_threadsafe(work.begin, context=work.context)

    def cancel(self, work: _Work) -> None:
        task = work.task
        if task is not None:
            self._loop.call_soon_threadsafe(task.cancel)

    def look(self, now: float) -> bool:
        """Ask for a sign of life; return False where the last one is overdue."""
        if self.asked_at is not None:
            return now - self.asked_at < _BEAT_S

        def alive() -> None:
            self.asked_at = None

        self.asked_at = now
        self._loop.call_soon_threadsafe(alive)
        return True

    def stop(self) -> None:
        """End the loop as soon as it is free; nobody waits for that."""
        self._is_told = True
        with suppress(RuntimeError):
            # It may have ended by now.
            self._loop.call_soon_threadsafe(self._loop.stop)


@dataclass(slots=True)
class _Agent:
    host: _Host
    blocked: list[_Host] = field(default_factory=list[_Host])


class Hosts:
    """The loops of all agents. Its methods belong to one event loop at a time, except where they say otherwise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._agents: dict[str, _Agent] = {}
        self._works: dict[str, _Work] = {}
        self._stopping = False
        self._watch: threading.Timer | None = None

    @property
    def at_work(self) -> frozenset[str]:
        """Ids of the runs that were asked for and have not been reported."""
        return frozenset(self._works)

    async def run(self, name: str, execution_id: str, make: Make, *, deadline_s: float | None) -> ExecutionReport:
        """Run something of an agent in the agent's loop and return its report.

        From any event loop. Where the caller is cancelled the run is cancelled.

        Args:
            name: Of the agent.
            execution_id: Of the run, which must be the id of the run that `make` opens.
            make: Makes the computation, in the agent's loop.
            deadline_s: Seconds after which the run is halted and reported; None for none.

        Raises:
            TooBusy: Too many loops of the agent are blocked.
            AgentUnavailable: The deadline has passed and the run has not begun.
            Stopping: The server is being shut down, and the run does not end in time.
        """
        asker = asyncio.get_running_loop()
        work = _Work(execution_id, make, asker, asker.create_future(), contextvars.copy_context())
        host = self._host(name)
        with self._lock:
            if self._stopping:
                raise Stopping("the server is being shut down; ask again in a moment")
            self._works[execution_id] = work
        host.post(work)
        timer = None if deadline_s is None else asker.call_later(deadline_s, self._late, work, deadline_s)
        try:
            return await asyncio.shield(work.done)
        except asyncio.CancelledError:
            await self._cancelled(name, work)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            with self._lock:
                if self._works.get(execution_id) is work:
                    del self._works[execution_id]
            self._forget(name, work)

    async def run_sync(
        self, execution_id: str, make: Callable[[], ExecutionReport], *, deadline_s: float | None
    ) -> ExecutionReport:
        """Run something that blocks in a daemon thread; see `run`."""
        asker = asyncio.get_running_loop()
        work = _Work(execution_id, cast("Make", make), asker, asker.create_future(), contextvars.copy_context())

        def job() -> None:
            report: ExecutionReport | None = None
            error: BaseException | None = None
            if work.take():
                try:
                    report = work.context.run(make)
                except BaseException as raised:  # noqa: BLE001 - told to who asked
                    error = raised
                work.settle(report, error)

        with self._lock:
            if self._stopping:
                raise Stopping("the server is being shut down; ask again in a moment")
            self._works[execution_id] = work
        submit(job)
        timer = None if deadline_s is None else asker.call_later(deadline_s, self._late, work, deadline_s)
        try:
            return await work.done
        finally:
            if timer is not None:
                timer.cancel()
            with self._lock:
                if self._works.get(execution_id) is work:
                    del self._works[execution_id]

    def halt(self, execution_id: str, halt: RunHalted) -> bool:
        """Halt a run that is open in this process, soon; return False where there is none. From any thread."""
        found = context.open_runs({execution_id})
        for run in found:
            # Its observers and its journal may take their time.
            submit(functools.partial(_quiet, functools.partial(run.halt_now, halt)))
        return bool(found)

    async def stop(self, drain_s: float, unwind_s: float) -> None:
        """Let the runs at work end, put down those that take longer, and answer whoever still waits. Bounded.

        What is put down is suspended in its journal; what cannot be stopped is left open there. Both can be resumed.

        Args:
            drain_s: Seconds that runs may take to end by themselves.
            unwind_s: Seconds that they may take to be put down.
        """
        with self._lock:
            self._stopping = True
            mine = [work for work in self._works.values() if work.asker is asyncio.get_running_loop()]
        await _settled(mine, drain_s)
        why = "the server was stopped"
        # Those of other loops are a fleet's, which puts them down itself.
        for run in context.open_runs([work.execution_id for work in mine if not work.done.done()]):
            run.latch(RunSuspended(why, rule="interrupted", plugin="oao"))
        await _settled(mine, unwind_s)
        for work in list(self._works.values()):
            work.take()
            work.settle(None, Stopping(f"the server was stopped; run {work.execution_id} can be resumed"))
        with self._lock:
            hosts = [host for agent in self._agents.values() for host in (agent.host, *agent.blocked)]
            self._agents.clear()
            if self._watch is not None:
                self._watch.cancel()
        for host in hosts:
            host.stop()

    def _host(self, name: str) -> _Host:
        with self._lock:
            agent = self._agents.get(name)
            if agent is None:
                agent = self._agents[name] = _Agent(_Host(name))
            elif len(agent.blocked) >= _MOST_BLOCKED:
                raise TooBusy(f"agent {name!r} has blocked {_MOST_BLOCKED} event loops; none is made for it any more")
            self._begin_watch()
            return agent.host

    def _forget(self, name: str, work: _Work) -> None:
        with self._lock:
            agent = self._agents.get(name)
            if agent is not None:
                for host in (agent.host, *agent.blocked):
                    host.works.discard(work)

    # A thread of its own looks after the loops: it must not be one of those that may be blocked.

    def _begin_watch(self) -> None:
        if self._watch is None:
            self._watch = threading.Timer(_BEAT_S / 2, self._look)
            self._watch.daemon = True
            contextvars.Context().run(self._watch.start)

    def _look(self) -> None:
        now = time.monotonic()
        with self._lock:
            for name, agent in self._agents.items():
                if agent.host.works and not agent.host.look(now):
                    self._replace(name, agent)
                for host in list(agent.blocked):
                    if not host.look(now) or host.works:
                        continue
                    agent.blocked.remove(host)
                    host.stop()
            busy = any(agent.host.works or agent.blocked for agent in self._agents.values())
            self._watch = None
            if busy and not self._stopping:
                self._begin_watch()

    def _replace(self, name: str, agent: _Agent) -> None:
        """Give an agent a fresh loop, and what has not begun on the blocked one."""
        _log.warning("agent %s blocks its event loop; what comes next runs on another one", name)
        agent.blocked.append(agent.host)
        if len(agent.blocked) >= _MOST_BLOCKED:
            return
        old, agent.host = agent.host, _Host(name)
        for work in [one for one in old.works if not one.taken]:
            old.works.discard(work)
            agent.host.post(work)

    # What has no time left

    def _late(self, work: _Work, deadline_s: float, tries: int = 0) -> None:
        if work.done.done():
            return
        halt = PolicyViolation(f"deadline: {deadline_s:g} s are over", rule="deadline", plugin="server")
        if not tries and work.take():
            work.settle(None, AgentUnavailable(f"run {work.execution_id} did not begin in {deadline_s:g} s"))
            return
        if not self.halt(work.execution_id, halt):
            # It may be about to open, or be on its way to its report.
            if tries < _TRIES:
                work.asker.call_later(_UNWIND_S, self._late, work, deadline_s, tries + 1)
            else:
                self._unopened(work, deadline_s)
            return
        work.asker.call_later(_UNWIND_S, self._give_up, work, halt)

    def _unreported(self, work: _Work) -> None:
        work.settle(None, AgentUnavailable(f"run {work.execution_id} does not end; its journal says how far it is"))

    def _unopened(self, work: _Work, deadline_s: float) -> None:
        reason = f"run {work.execution_id} did not begin in {deadline_s:g} s: its agent takes that long to be made"
        work.settle(None, AgentUnavailable(reason))

    def _give_up(self, work: _Work, halt: RunHalted) -> None:
        """Report a run whose code does not end."""
        if work.done.done() or self._stopping:
            return

        def give_up() -> None:
            for run in context.open_runs({work.execution_id}):
                report = drive(phases.give_up(run, halt), run.hooks.timeout_s)
                if report is not None:
                    work.settle(report, None)

        submit(functools.partial(_quiet, give_up))
        work.asker.call_later(_UNREPORTED_S, self._unreported, work)

    async def _cancelled(self, name: str, work: _Work) -> None:
        """Cancel a run whose caller was, and wait for it a little."""
        if work.take():
            return
        with self._lock:
            agent = self._agents.get(name)
            hosts = [] if agent is None else [agent.host, *agent.blocked]
        for host in hosts:
            if work in host.works:
                host.cancel(work)
        await asyncio.wait({work.done}, timeout=_UNWIND_S)


def _heard(done: asyncio.Future[ExecutionReport]) -> None:
    """Take an error that nobody waits for any more."""
    if not done.cancelled():
        done.exception()


async def _settled(works: Sequence[_Work], most_s: float) -> None:
    waiting = [work.done for work in works if not work.done.done()]
    if waiting:
        await asyncio.wait(waiting, timeout=most_s)


def _quiet(what: Callable[[], Any]) -> None:
    """Do something in a thread that must not end of an error."""
    try:
        what()
    except (Exception, RunHalted):  # noqa: BLE001 - whatever it is, the others' threads must live on
        _log.exception("a run could not be halted")
