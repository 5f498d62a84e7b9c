"""Runs the agent's own code under a deadline: in this thread, in a daemon thread, or in a task.

A hanging thread cannot be killed: the run is reported at its deadline and its gate stays shut, so that what is left
behind can do nothing more.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

from oao_harness.errors import RunHalted, RunSuspended
from oao_harness.runtime.context import here
from oao_harness.runtime.run import Run
from oao_harness.runtime.workers import submit

__all__ = ["CANCEL_S", "GRACE_S", "Ending", "execute", "execute_async", "interruption", "run_body", "tell"]

GRACE_S: Final = 0.05
"""How long an agent may take to unwind by itself after a halt, before its task is cancelled."""
# How long a halted agent may take to unwind before the run is reported without it.
_UNWIND_S: Final = 0.5
CANCEL_S: Final = 0.03
"""How long after a cancellation at the deadline: the report must not come much later than the limit."""
# A stream inside of streams takes some turns for each of them, and the time of the callbacks that are told of it.
_CLOSING_TURNS: Final = 40
_CLOSING_S: Final = 0.2


@dataclass(slots=True)
class Ending:
    """How the agent's code ended."""

    result: object = None
    error: BaseException | None = None
    done: bool = False
    """False where it is still running."""


def tell(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Have something done on a loop, from whatever thread; one that is closed has nobody left who waits."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)


def interruption() -> RunSuspended:
    """Return why a run is suspended that somebody stopped: it goes on when it is resumed, and asks nobody."""
    return RunSuspended("interrupted from the keyboard", rule="interrupted", plugin="oao")


def execute(run: Run, body: Callable[[], object], *, in_thread: bool = False) -> Ending:
    """Run sync code of an agent; with a deadline in a daemon thread, else in this thread.

    Args:
        run: The run; halted by this function where the deadline passes.
        body: The agent's code.
        in_thread: True runs it in a thread even without a deadline.

    Raises:
        KeyboardInterrupt: The user interrupted; the run is halted.
    """
    ending = Ending()
    if run.deadline is None and run.call_timeout_s is None and not in_thread:
        _run_body(run, body, ending)
    else:
        _wait(run, _start(run, body, ending, None), ending)
    return ending


def _run_body(run: Run, body: Callable[[], object], ending: Ending) -> None:
    token = here.set(run)
    try:
        ending.result = body()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        group = cast("BaseExceptionGroup[BaseException]", error) if isinstance(error, BaseExceptionGroup) else None
        if group is not None and group.subgroup((KeyboardInterrupt, SystemExit)) is not None:
            raise
        ending.error = error
    finally:
        here.reset(token)
    ending.done = True


def run_body(run: Run, body: Callable[[], object], ending: Ending) -> None:
    """Run sync code of an agent in this thread, which is none that a user could interrupt."""
    try:
        _run_body(run, body, ending)
    except BaseException as error:  # noqa: BLE001 - a SystemExit in a thread would vanish
        ending.error, ending.done = error, True


def _start(run: Run, body: Callable[[], object], ending: Ending, notify: Callable[[], None] | None) -> threading.Event:
    wake = run.wake_event()

    def target() -> None:
        run_body(run, body, ending)
        wake.set()
        if notify is not None:
            notify()

    context = contextvars.copy_context()
    submit(lambda: context.run(target))
    return wake


def _wait(run: Run, wake: threading.Event, ending: Ending) -> None:
    try:
        while not ending.done:
            left_s = None if run.deadline is None else max(0.0, run.deadline - run.clock.monotonic())
            if not wake.wait(left_s):
                run.time_out()
            if ending.done:
                return
            wake.clear()
            if run.halted is not None:
                wake.wait(CANCEL_S if run.halted.rule in {"timeout", "call_timeout"} else _UNWIND_S)
                return
    except KeyboardInterrupt:
        run.latch(interruption())
        raise


async def execute_async(run: Run, body: Callable[[], Awaitable[object]], *, is_sync: bool = False) -> Ending:
    """Run async code of an agent in a task of its own, or sync code in a daemon thread.

    Args:
        run: The run; halted by this function where the deadline passes.
        body: The agent's code.
        is_sync: True where `body` blocks and returns a plain value.

    Raises:
        CancelledError: The caller was cancelled; the run is halted and the agent cancelled.
    """
    ending = Ending()
    loop = asyncio.get_running_loop()
    # Done when the task is, or when nobody waits for it any longer. `asyncio.wait` would make more of it.
    over: asyncio.Future[None] = loop.create_future()
    is_late = False

    def end() -> None:
        if not over.done():
            over.set_result(None)

    def ended(task: asyncio.Task[None]) -> None:
        _retrieve(task)
        end()

    def expire() -> None:
        nonlocal is_late
        is_late = True
        end()

    task = loop.create_task(_in_thread(run, body, ending) if is_sync else _in_task(run, body, ending))
    task.add_done_callback(ended)
    _cancel_when_halted(run, task, end)
    left_s = None if run.deadline is None else max(0.0, run.deadline - run.clock.monotonic())
    timer = None if left_s is None else loop.call_later(left_s, expire)
    try:
        await over
        if is_late and not task.done():
            run.time_out()
            task.cancel("oao: the run is past its deadline")
            await asyncio.wait({task}, timeout=CANCEL_S)
    except asyncio.CancelledError:
        run.latch(_why_cancelled(run))
        task.cancel()
        await asyncio.wait({task}, timeout=_UNWIND_S)
        raise
    finally:
        if timer is not None:
            timer.cancel()
    return ending


def _cancel_when_halted(run: Run, task: asyncio.Task[None], give_up: Callable[[], None]) -> None:
    """Cancel the agent's task when the run is halted: it frees what swallowed the halt or waits for ever.

    Args:
        run: The run.
        task: Of its agent.
        give_up: Called when the run was halted and the task did not end in time after that.
    """
    loop = task.get_loop()

    def cancel() -> None:
        if not task.done():
            task.cancel("oao: the run is halted")
            loop.call_later(_UNWIND_S, give_up)

    def halted() -> None:
        if run.patient and isinstance(run.halted, RunSuspended):
            return
        tell(loop, lambda: loop.call_later(GRACE_S, cancel))

    run.on_halt(halted)


def _why_cancelled(run: Run) -> RunHalted:
    held = next((one.halted for one in run.lineage if isinstance(one.halted, RunSuspended)), None)
    if held is not None:
        # The run around it waits for a person, or for another worker: this one goes on with it.
        return held
    return interruption() if _is_interrupted() else RunHalted("cancelled by the caller", rule="cancelled", plugin="oao")


def _is_interrupted() -> bool:
    """Return True where Ctrl-C was pressed while `asyncio.run` ran: it tells its main task by cancelling it."""
    runner = getattr(getattr(signal.getsignal(signal.SIGINT), "func", None), "__self__", None)
    return isinstance(runner, asyncio.Runner) and getattr(runner, "_interrupt_count", 0) > 0


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


async def _in_task(run: Run, body: Callable[[], Awaitable[object]], ending: Ending) -> None:
    # A task has a context of its own: nothing to reset.
    here.set(run)
    try:
        ending.result = await body()
        # Python closes an async stream that `break` left in later turns of the loop: only then is it written and paid.
        turns = 0
        while run.reading and turns < _CLOSING_TURNS:
            turns += 1
            await asyncio.sleep(0 if turns < _CLOSING_TURNS // 2 else _CLOSING_S / _CLOSING_TURNS)
    except asyncio.CancelledError as error:
        if run.halted is None:
            ending.error, ending.done = error, True
        raise
    except KeyboardInterrupt:
        run.latch(interruption())
        raise
    except BaseException as error:  # noqa: BLE001 - RunHalted among them; a group of exceptions too
        ending.error = error
    ending.done = True


async def _in_thread(run: Run, body: Callable[[], object], ending: Ending) -> None:
    loop = asyncio.get_running_loop()
    finished = asyncio.Event()

    def notify() -> None:
        tell(loop, finished.set)

    _start(run, body, ending, notify)
    await finished.wait()
