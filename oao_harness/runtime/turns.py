"""Whose turn it is in a replay: calls that race begin, and end, in the order that was recorded.

So whoever asks which call was ready first sees what was seen when it was recorded. Bounded: a program that does not
run them together any more waits a few milliseconds and goes on. In a resumed run a call only waits for those that
others of its threads and tasks are about to ask for: else chance would say whether the run goes on or has diverged.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from oao_harness.runtime.dispatch import drive, drive_async
from oao_harness.runtime.passage import Ticket, TooEarly, begin
from oao_hookspecs import Call

if TYPE_CHECKING:
    from oao_harness.journal.playback import Playback
    from oao_harness.runtime.run import Run

__all__ = ["Arrivals", "enter", "enter_async", "in_loop", "take_turn", "take_turn_async"]

# How often a loop may go round, and how long it may then rest, without any call having come or ended.
_ROUNDS: Final = 40
_QUIET_S: Final = 0.005
# Even where calls come and end all the time, or one that waits for its turn never gets it.
_LONGEST_S: Final = 1.0
_REST_S: Final = 0.001
# How long a resumed run's other threads and tasks may take until one of them asks for what it had done.
_ARRIVES_S: Final = 5.0
# What the one before needs to hand its result on: through the rest of its task, or to another thread.
_HANDING_ON: Final = 4
# Tasks of a loop in which one agent runs: its own, and the one that waits for it.
_ALONE: Final = 2


def enter(run: Run, request: Call) -> Ticket:
    """Begin a call; where others must come first that other threads are about to make, wait for them a moment."""
    timeout_s = run.hooks.timeout_s
    if run.playback is None:
        return drive(begin(run, request), timeout_s) if run.resumption is None else _enter_resumed(run, request)
    playback, patience = run.playback, _Patience(run.playback)
    while patience.lasts() and not in_loop():
        try:
            return drive(begin(run, request, patient=True), timeout_s)
        except TooEarly:
            with playback.changed:
                playback.changed.wait(_REST_S)
    return drive(begin(run, request), timeout_s)


async def enter_async(run: Run, request: Call) -> Ticket:
    """Begin a call; where others must come first that other tasks are about to make, let these go on."""
    timeout_s = run.hooks.timeout_s
    if run.playback is None:
        if run.resumption is None:
            return await drive_async(begin(run, request), timeout_s)
        return await _enter_resumed_async(run, request)
    patience = _Patience(run.playback)
    while patience.lasts():
        try:
            return await drive_async(begin(run, request, patient=True), timeout_s)
        except TooEarly:
            await _rest(0.0 if patience.rounds <= _ROUNDS else _REST_S)
    return await drive_async(begin(run, request), timeout_s)


def _enter_resumed(run: Run, request: Call) -> Ticket:
    timeout_s = run.hooks.timeout_s
    arrivals = Arrivals(run)
    while arrivals.may_come and not in_loop():
        try:
            return drive(begin(run, request, patient=True), timeout_s)
        except TooEarly:
            arrivals.wait()
    return drive(begin(run, request), timeout_s)


async def _enter_resumed_async(run: Run, request: Call) -> Ticket:
    timeout_s = run.hooks.timeout_s
    arrivals = Arrivals(run)
    while arrivals.may_come:
        try:
            return await drive_async(begin(run, request, patient=True), timeout_s)
        except TooEarly:
            await arrivals.wait_async()
    return await drive_async(begin(run, request), timeout_s)


class Arrivals:
    """The calls of a resumed run that others of its threads and tasks may be about to ask for again.

    Args:
        run: It.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.may_come = run.resumption is not None and (run.threads > 0 or _has_other_tasks())
        """False where nobody else is there, or nobody came for too long."""
        self._version = self._latest

    @property
    def _latest(self) -> int:
        return self._run.resumption.version if self._run.resumption is not None else 0

    def wait(self) -> None:
        """Wait in a thread until one has come."""
        until = time.monotonic() + _ARRIVES_S
        while self._is_quiet(until):
            self._run.halt_event().wait(_REST_S)

    async def wait_async(self) -> None:
        """Wait in a task until one has come."""
        until = time.monotonic() + _ARRIVES_S
        while self._is_quiet(until):
            await _rest(_REST_S)

    def _is_quiet(self, until: float) -> bool:
        if self._latest != self._version:
            self._version = self._latest
            return False
        self.may_come = time.monotonic() < until and all(one.halted is None for one in self._run.lineage)
        return self.may_come


def _has_other_tasks() -> bool:
    """Return True where a loop does more than to run one agent for one caller."""
    return in_loop() and len(asyncio.all_tasks()) > _ALONE


class _Patience:
    """How long it is worth to wait: as long as other calls come and end, and a few milliseconds more.

    Args:
        playback: Says whether calls come and end.
    """

    def __init__(self, playback: Playback) -> None:
        self._playback = playback
        self._began = self._quiet_since = time.monotonic()
        self._version: int = playback.version
        self.rounds = 0

    def lasts(self) -> bool:
        """Return False when nothing more is to be expected."""
        now = time.monotonic()
        if self._playback.version != self._version:
            self.rounds, self._quiet_since, self._version = 0, now, self._playback.version
        self.rounds += 1
        return (self.rounds <= _ROUNDS or now - self._quiet_since <= _QUIET_S) and now - self._began <= _LONGEST_S


def take_turn(ticket: Ticket) -> None:
    """Wait in a thread until the calls that ended before this one have ended. Best effort: threads race."""
    playback, event = ticket.run.playback, ticket.event
    if playback is None or event is None or playback.ahead_of(event) is None or in_loop():
        return
    playback.queue(event)
    began = time.monotonic()
    quiet_since, version = began, playback.version
    with playback.changed:
        while (ahead := playback.ahead_of(event)) is not None:
            now = time.monotonic()
            if playback.version != version or playback.is_queueing(ahead):
                quiet_since, version = now, playback.version
            if now - quiet_since > _QUIET_S or now - began > _LONGEST_S:
                playback.give_up(event)
                if now - began > _LONGEST_S:
                    return
            playback.changed.wait(_REST_S)
        # Released meanwhile: whoever ended before this one hands its result on.
        playback.changed.wait(_REST_S)


async def take_turn_async(ticket: Ticket) -> None:
    """Wait in a task until the calls that ended before this one have ended.

    A call that was cancelled when it was recorded waits for being cancelled again, as long as it took then.
    """
    playback, event = ticket.run.playback, ticket.event
    if playback is None or event is None:
        await _end_in_order(ticket)
        return
    if playback.ahead_of(event) is not None:
        playback.queue(event)
        await _queue(playback, event)
    if _was_cancelled(ticket):
        playback.queue(event)
        until = time.monotonic() + _duration_s(ticket) + _LONGEST_S
        while time.monotonic() < until:
            await _rest(_REST_S)


async def _end_in_order(ticket: Ticket) -> None:
    """Let what had ended before a served call of a resumed run be asked for first: sync code cannot wait in a loop."""
    resumption, event = ticket.run.resumption, ticket.served.event if ticket.served is not None else None
    if resumption is None or event is None:
        return
    arrivals = Arrivals(ticket.run)
    while arrivals.may_come and resumption.is_ahead(event):
        await arrivals.wait_async()


async def _queue(playback: Playback, event: int) -> None:
    began = time.monotonic()
    rounds, quiet_since, version = 0, began, playback.version
    while (ahead := playback.ahead_of(event)) is not None:
        now = time.monotonic()
        if playback.version != version or playback.is_queueing(ahead):
            rounds, quiet_since, version = 0, now, playback.version
        rounds += 1
        if (rounds > _ROUNDS and now - quiet_since > _QUIET_S) or now - began > _LONGEST_S:
            playback.give_up(event)
            if now - began > _LONGEST_S:
                return
        await _rest(0.0 if rounds <= _ROUNDS else _REST_S)
    for _ in range(_HANDING_ON):
        await _rest(0.0)


def _was_cancelled(ticket: Ticket) -> bool:
    error = ticket.served.outcome.error if ticket.served is not None else None
    return error is not None and error.type.endswith((":CancelledError", ":Cancelled"))


def _duration_s(ticket: Ticket) -> float:
    return ticket.served.outcome.duration_s if ticket.served is not None else 0.0


async def _rest(delay_s: float) -> None:
    """Let the other tasks of this loop go on; on whichever loop this is."""
    if in_loop():
        await asyncio.sleep(delay_s)
        return
    trio: Any = sys.modules.get("trio")
    if trio is not None:
        await trio.sleep(delay_s)


def in_loop() -> bool:
    """Return True on the thread of a running event loop, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
