"""A named part of a run whose agent is sync, taken through all its phases in one thread that asks for nothing else.

The thread cannot be stopped. Where the part is halted and its agent does not end, somebody else ends and reports it,
and what the thread still does may do nothing more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from oao_harness.errors import RunSuspended
from oao_harness.runtime import phases
from oao_harness.runtime.dispatch import Steps, drive, drive_async
from oao_harness.runtime.execute import CANCEL_S, GRACE_S, Ending, run_body, tell
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.run import Run
from oao_hookspecs import Adapter

__all__ = ["SyncPart"]


class SyncPart:
    """A part of a run that has been planned, or was refused.

    Args:
        run: Its run, in INIT.
        adapter: Drives its agent.
        agent: The agent, which is sync.
        planning: Takes the run to EXECUTE; False where it was refused.
    """

    __slots__ = ("_adapter", "_agent", "_planned", "_reported", "_timer", "run")

    def __init__(self, run: Run, adapter: Adapter, agent: object, planning: Steps[bool]) -> None:
        self.run = run
        self._adapter = adapter
        self._agent = agent
        self._reported = threading.Lock()
        """Held from then on by who ends and reports the run: the thread, or who does not wait for it any longer."""
        self._timer: asyncio.TimerHandle | None = None
        try:
            self._planned = drive(planning, run.hooks.timeout_s)
        except BaseException as error:
            self._abort(error)
            raise

    def go(self, loop: asyncio.AbstractEventLoop, give_up: Callable[[], None]) -> ExecutionReport | None:
        """Run the agent in this thread and report; None where somebody else has reported it meanwhile.

        Args:
            loop: Where `give_up` is called.
            give_up: Called when the run was halted and the agent had time to end; also where it did.
        """
        run = self.run
        ending: Ending | None = None
        try:
            if self._planned:
                ending = Ending()
                run.on_halt(lambda: self._soon(loop, give_up))
                # A time limit of a run around this one is kept there.
                has_limit = run.limits.timeout_s is not None
                if has_limit:
                    tell(loop, lambda: self._watch(loop))
                run_body(run, lambda: self._adapter.drive(self._agent, run.task, ()), ending)
                if has_limit:
                    tell(loop, self._unwatch)
            if not self._reported.acquire(blocking=False):
                return None
            return drive(phases.review(run, ending, self._adapter), run.hooks.timeout_s)
        except BaseException as error:
            self._abort(error)
            raise

    async def report_without_it(self) -> ExecutionReport | None:
        """Report the run although its agent still runs; None where it has ended by itself."""
        if not self._reported.acquire(blocking=False):
            return None
        try:
            return await drive_async(phases.review(self.run, Ending(), self._adapter), self.run.hooks.timeout_s)
        except BaseException as error:
            self._abort(error)
            raise

    def _abort(self, error: BaseException) -> None:
        drive(phases.abort(self.run, error), self.run.hooks.timeout_s)

    def _soon(self, loop: asyncio.AbstractEventLoop, give_up: Callable[[], None]) -> None:
        halted = self.run.halted
        if self._reported.locked() or (self.run.patient and isinstance(halted, RunSuspended)):
            return
        is_late = halted is not None and halted.rule in {"timeout", "call_timeout"}
        tell(loop, lambda: loop.call_later(CANCEL_S if is_late else GRACE_S, give_up))

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.run.deadline is not None:
            self._timer = loop.call_later(max(0.0, self.run.deadline - self.run.clock.monotonic()), self.run.time_out)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
