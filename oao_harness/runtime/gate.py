"""The one place every call passes: judged, written, acted, written.

The logic is `_begin` and `_finish`, computations without I/O of their own; `call`, `acall`, `stream` and `astream`
are thin drivers around them. In replay only the acting differs: the recorded outcome is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from oao_harness.errors import PolicyViolation, ReplayDiverged, RunHalted
from oao_harness.journal.codec import decode_error, encode_error, error_line, opaque
from oao_harness.journal.records import call_fields, outcome_fields
from oao_harness.journal.replay import Served
from oao_harness.runtime.context import Frame, frame
from oao_harness.runtime.dispatch import Steps, drive, drive_async, observe
from oao_harness.runtime.frozen import freeze_call, freeze_outcome
from oao_harness.runtime.judging import judge_batch, judge_call, judge_outcome, reserve, settle
from oao_harness.runtime.retry import delay_before_retry
from oao_harness.runtime.run import Run
from oao_harness.runtime.shapes import Answer, Shape, ValueShape
from oao_harness.runtime.within import each_within, each_within_async
from oao_hookspecs import (
    Call,
    CallDecided,
    CallFinished,
    CallRetried,
    Deny,
    Json,
    Modify,
    Outcome,
    Usage,
)

__all__ = ["Answer", "Shape", "ValueShape", "acall", "astream", "call", "stream"]

R = TypeVar("R")


@dataclass(slots=True, kw_only=True)
class _Ticket:
    """A call on its way through the gate."""

    run: Run
    n: int
    call: Call
    parent: int | None
    served: Served | None = None
    reserved: tuple[int, ...] = ()
    written: bool = False
    """True where the journal says that the call is allowed, and waits for its outcome."""
    started: float = 0.0
    attempts: int = 1


def _begin(run: Run, call: Call) -> Steps[_Ticket]:
    """Latch, match, decide, reserve, write: everything before the effect.

    Raises:
        RunHalted: The call must not happen.
    """
    run.refuse_if_over()
    outer = frame.get()
    parent = outer.n if outer is not None and outer.run is run else None
    ticket = _Ticket(run=run, n=run.next_number(), call=call, parent=parent)
    try:
        if run.replay is not None:
            yield from _match(ticket)
        given: Call | None = None
        decision, by = yield from judge_call(run, call)
        if isinstance(decision, Modify):
            given, ticket.call = call, decision.call
        if not isinstance(decision, Deny):
            ticket.reserved, denial, by = reserve(run, ticket.call)
            decision = denial or decision
        recorded = ticket.served.decision if ticket.served is not None else decision.verdict
        if not isinstance(decision, Deny) and recorded.partition(" ")[0] != decision.verdict:
            reason = f"{call.kind} {call.name}: {recorded} when recorded, {decision.verdict} now (replay diverged)"
            yield from _diverging(run, reason, ticket.n)
            raise run.require_halt()
        run.calls.append((call.kind, call.name))
        run.write("call", call_fields(ticket.call, decision, n=ticket.n, parent=parent, given=given))
        ticket.written = not isinstance(decision, Deny)
        if run.hooks.heard("oao_call_decided"):
            shown = freeze_call(ticket.call)
            event = CallDecided(execution_id=run.execution_id, n=ticket.n, call=shown, decision=decision)
            yield from observe(run.hooks, "oao_call_decided", {"event": event, "run": run})
        if isinstance(decision, Deny):
            yield from run.refusing(decision, n=ticket.n, by=by)
            raise run.require_halt()
        if ticket.served is not None:
            for child, usage in ticket.served.children:
                yield from _judge_inner(ticket, child, usage)
        run.refuse_if_over()
    except (RunHalted, GeneratorExit, asyncio.CancelledError) as error:
        _abandon(ticket, error)
        raise
    except BaseException as error:
        # Whatever breaks the judging breaks the run: an unjudged call must not be tried again.
        yield from run.halting(
            PolicyViolation(f"the gate failed: {error_line(error)}", rule="gate", plugin="oao", n=ticket.n)
        )
        _abandon(ticket, error)
        raise
    ticket.started = run.clock.monotonic()
    return ticket


def _judge_inner(ticket: _Ticket, call: Call, usage: Usage | None) -> Steps[None]:
    """Judge and count a call that a served outcome stands for: it is not made again, but it must still be allowed."""
    run = ticket.run
    decision, by = yield from judge_call(run, call)
    denial = decision if isinstance(decision, Deny) else None
    if denial is None:
        reserved, denial, by = reserve(run, call)
        overspent = settle(run, reserved, usage)
        if denial is None and overspent is not None:
            denial, by = overspent
    if denial is not None:
        yield from run.refusing(denial, n=ticket.n, by=by)
        raise run.require_halt()


def _abandon(ticket: _Ticket, error: BaseException) -> None:
    """Settle a call that will not happen after all, and say so where the journal has it as allowed."""
    _settle(ticket, None)
    if ticket.written:
        with suppress(RunHalted):  # a journal that fails has halted the run
            outcome = Outcome(error=encode_error(error))
            ticket.run.write("outcome", outcome_fields(outcome, n=ticket.n, late=ticket.run.closed))


def _settle(ticket: _Ticket, usage: Usage | None) -> tuple[Deny, Run] | None:
    """Settle the call's reservations; once, however it ends."""
    reserved, ticket.reserved = ticket.reserved, ()
    return settle(ticket.run, reserved, usage)


def _match(ticket: _Ticket) -> Steps[None]:
    run = ticket.run
    assert run.replay is not None  # noqa: S101 - for the type checker
    served = run.replay.serve(ticket.call, run.agent_name)
    if isinstance(served, str):
        yield from _diverging(run, served, ticket.n)
        raise run.require_halt()
    ticket.served = served


def _diverging(run: Run, reason: str, n: int) -> Steps[None]:
    """Halt every run that plays the same recording: after a divergence none of its answers means anything."""
    for member in run.lineage:
        if member.replay is run.replay:
            yield from member.halting(
                ReplayDiverged(reason, rule="replay", plugin="oao", n=n if member is run else None)
            )


def _finish(ticket: _Ticket, answer: Answer | None, error: BaseException | None) -> Steps[None]:
    """Settle, write, judge the outcome and the batch it proposes: everything after the effect.

    Raises:
        RunHalted: The outcome was refused, or the run was halted meanwhile.
    """
    run = ticket.run
    if ticket.served is not None:
        served = ticket.served.outcome
        outcome = Outcome(
            value=served.value,
            error=served.error,
            usage=served.usage,
            proposed=answer.proposed if answer is not None else (),
            attempts=served.attempts,
            duration_s=served.duration_s,
            replayed=True,
        )
    else:
        outcome = Outcome(
            value=answer.value if answer is not None else None,
            error=encode_error(error) if error is not None else None,
            usage=answer.usage if answer is not None else None,
            proposed=answer.proposed if answer is not None else (),
            attempts=ticket.attempts,
            duration_s=run.clock.monotonic() - ticket.started,
        )
    overspent = _settle(ticket, outcome.usage)
    run.write("outcome", outcome_fields(outcome, n=ticket.n, late=run.closed))
    if isinstance(error, PolicyViolation):
        # Raised by the body: a denial is a denial, also where the agent catches it.
        yield from run.halting(error)
    if run.hooks.heard("oao_call_finished"):
        event = CallFinished(
            execution_id=run.execution_id, n=ticket.n, call=freeze_call(ticket.call), outcome=freeze_outcome(outcome)
        )
        yield from observe(run.hooks, "oao_call_finished", {"event": event, "run": run})
    run.refuse_if_over()
    refusal = overspent
    if refusal is None and (len(run.lineage) > 1 or run.hooks.heard("oao_decide_outcome")):
        refusal = yield from judge_outcome(run, ticket.call, outcome)
    if refusal is None and len(outcome.proposed) > 1:
        refusal = yield from judge_batch(run, outcome.proposed)
    if refusal is not None:
        yield from run.refusing(refusal[0], n=ticket.n, by=refusal[1])
        raise run.require_halt()


def _retrying(ticket: _Ticket, error: BaseException, *, began: bool = False) -> Steps[float | None]:
    """Return the seconds to wait before another try, written and observed, or None where there is none."""
    run = ticket.run
    if began or ticket.served is not None or not isinstance(error, Exception) or run.halted is not None or run.closed:
        return None
    left_s = None if run.deadline is None else run.deadline - run.clock.monotonic()
    delay_s = delay_before_retry(run.limits.retry, ticket.call, error, ticket.attempts, left_s)
    if delay_s is None:
        return None
    text = error_line(error)
    run.write("retry", {"n": ticket.n, "attempt": ticket.attempts, "delay_s": delay_s, "error": text})
    if run.hooks.heard("oao_call_retried"):
        event = CallRetried(
            execution_id=run.execution_id, n=ticket.n, attempt=ticket.attempts, delay_s=delay_s, error=text
        )
        yield from observe(run.hooks, "oao_call_retried", {"event": event, "run": run})
    return delay_s


def _again(ticket: _Ticket, error: BaseException, *, began: bool = False) -> bool:
    """Wait before another try; return False where there is none, and the call has ended with the error."""
    run, timeout_s = ticket.run, ticket.run.hooks.timeout_s
    try:
        delay_s = drive(_retrying(ticket, error, began=began), timeout_s)
        if delay_s is not None:
            run.halt_event.wait(delay_s)
            run.refuse_if_over()
    except BaseException:
        _ended(ticket, error)
        raise
    if delay_s is None:
        drive(_finish(ticket, None, error), timeout_s)
        return False
    ticket.attempts += 1
    return True


async def _again_async(ticket: _Ticket, error: BaseException, *, began: bool = False) -> bool:
    """Wait before another try; see `_again`."""
    run, timeout_s = ticket.run, ticket.run.hooks.timeout_s
    if not isinstance(error, Exception):
        # Not awaited: this task may be being cancelled, and what happened must be written all the same.
        return _again(ticket, error, began=began)
    try:
        delay_s = await drive_async(_retrying(ticket, error, began=began), timeout_s)
        if delay_s is not None:
            await asyncio.sleep(delay_s)
            run.refuse_if_over()
    except BaseException:
        _ended(ticket, error)
        raise
    if delay_s is None:
        await drive_async(_finish(ticket, None, error), timeout_s)
        return False
    ticket.attempts += 1
    return True


def _ended(ticket: _Ticket, error: BaseException) -> None:
    """End a call whose next try was given up: halted or cancelled while it waited, and that is what goes on."""
    with suppress(RunHalted):
        drive(_finish(ticket, None, error), ticket.run.hooks.timeout_s)


def _dumped(ticket: _Ticket, shape: Shape, value: object) -> Answer:
    """Return what the journal keeps of a result. The effect has happened: a value that resists must not undo that."""
    try:
        return shape.dump(value)
    except Exception as error:  # noqa: BLE001 - a result may run any code when it is looked at
        what = f"the result of call {ticket.n} ({ticket.call.kind} {ticket.call.name}) could not be journaled"
        ticket.run.note_ungoverned(f"{what}: {error_line(error)}")
        return Answer(value=opaque(type(value), f"{type(error).__name__} while it was looked at"))


def _serve(ticket: _Ticket, shape: Shape) -> tuple[Any, Answer | None]:
    """Return the recorded value and what it says about itself; raise the recorded error later."""
    outcome = cast("Served", ticket.served).outcome
    if outcome.error is not None:
        return None, None
    try:
        value = _loaded(ticket, shape.load)
    except RunHalted as halt:
        _abandon(ticket, halt)
        raise
    return value, _dumped(ticket, shape, value)


def _loaded(ticket: _Ticket, load: Callable[[Json], R]) -> R:
    """Return a recorded value as an object. That it cannot be read back is a divergence, no error of the tool's."""
    run, call = ticket.run, ticket.call
    try:
        return load(cast("Served", ticket.served).outcome.value)
    except Exception as error:
        reason = f"{call.kind} {call.name}: its recorded result cannot be read: {error_line(error)} (replay diverged)"
        drive(_diverging(run, reason, ticket.n), run.hooks.timeout_s)
        raise run.require_halt() from error


def _raise_served(ticket: _Ticket) -> None:
    error = ticket.served.outcome.error if ticket.served is not None else None
    if error is not None:
        raise decode_error(error)


def call(run: Run, request: Call, act: Callable[[Call], R], shape: Shape) -> R:
    """Pass a sync call through the gate.

    Args:
        run: The run it belongs to.
        request: What the agent asks for.
        act: Does it; is given the call as the policies left it.
        shape: How the result is journaled and served.

    Raises:
        RunHalted: It must not happen, or the run was halted meanwhile.
    """
    timeout_s = run.hooks.timeout_s
    ticket = drive(_begin(run, request), timeout_s)
    if ticket.served is not None:
        value, answer = _serve(ticket, shape)
        drive(_finish(ticket, answer, None), timeout_s)
        _raise_served(ticket)
        return cast("R", value)
    while True:
        token = frame.set(ticket)
        try:
            result = act(ticket.call)
            break
        except BaseException as error:
            if not _again(ticket, error):
                raise
        finally:
            frame.reset(token)
    drive(_finish(ticket, _dumped(ticket, shape, result), None), timeout_s)
    return result


async def acall(run: Run, request: Call, act: Callable[[Call], Awaitable[R]], shape: Shape) -> R:
    """Pass an async call through the gate; see `call`."""
    timeout_s = run.hooks.timeout_s
    ticket = await drive_async(_begin(run, request), timeout_s)
    if ticket.served is not None:
        value, answer = _serve(ticket, shape)
        await drive_async(_finish(ticket, answer, None), timeout_s)
        _raise_served(ticket)
        return cast("R", value)
    while True:
        token = frame.set(ticket)
        try:
            result = await act(ticket.call)
            break
        except BaseException as error:
            if not await _again_async(ticket, error):
                raise
        finally:
            frame.reset(token)
    await drive_async(_finish(ticket, _dumped(ticket, shape, result), None), timeout_s)
    return result


def stream(run: Run, request: Call, act: Callable[[Call], Iterator[R]], shape: Shape) -> Generator[R, None, None]:
    """Pass a sync stream through the gate, chunk by chunk; see `call`. A stream that began is not retried."""
    timeout_s = run.hooks.timeout_s
    ticket = drive(_begin(run, request), timeout_s)
    chunks: list[R] = []
    while True:
        try:
            with closing(each_within(frame, _as_frame(ticket), lambda: _source(ticket, act, shape))) as source:
                for chunk in source:
                    chunks.append(chunk)
                    yield chunk
            break
        except GeneratorExit:
            with suppress(RunHalted):  # kept by the run: who closes a stream may be the garbage collector
                drive(_finish(ticket, _dumped(ticket, shape, chunks), None), timeout_s)
            raise
        except BaseException as error:
            if not _again(ticket, error, began=bool(chunks)):
                raise
    drive(_finish(ticket, _dumped(ticket, shape, chunks), None), timeout_s)


async def astream(
    run: Run, request: Call, act: Callable[[Call], AsyncIterator[R]], shape: Shape
) -> AsyncGenerator[R, None]:
    """Pass an async stream through the gate, chunk by chunk; see `stream`."""
    timeout_s = run.hooks.timeout_s
    ticket = await drive_async(_begin(run, request), timeout_s)
    chunks: list[R] = []
    while True:
        try:
            async with aclosing(
                each_within_async(frame, _as_frame(ticket), lambda: _async_source(ticket, act, shape))
            ) as source:
                async for chunk in source:
                    chunks.append(chunk)
                    yield chunk
            break
        except GeneratorExit:
            with suppress(RunHalted):
                drive(_finish(ticket, _dumped(ticket, shape, chunks), None), timeout_s)
            raise
        except BaseException as error:
            if not await _again_async(ticket, error, began=bool(chunks)):
                raise
    await drive_async(_finish(ticket, _dumped(ticket, shape, chunks), None), timeout_s)


def _as_frame(ticket: _Ticket) -> Frame | None:
    return ticket


def _source(ticket: _Ticket, act: Callable[[Call], Iterator[Any]], shape: Shape) -> Iterator[Any]:
    return act(ticket.call) if ticket.served is None else _served_chunks(ticket, shape)


async def _async_source(ticket: _Ticket, act: Callable[[Call], AsyncIterator[Any]], shape: Shape) -> AsyncIterator[Any]:
    if ticket.served is None:
        async with aclosing(cast("AsyncGenerator[Any, None]", act(ticket.call))) as live:
            async for chunk in live:
                yield chunk
    else:
        for chunk in _served_chunks(ticket, shape):
            yield chunk


def _served_chunks(ticket: _Ticket, shape: Shape) -> Iterator[Any]:
    _raise_served(ticket)
    yield from _loaded(ticket, lambda value: list(shape.load_chunks(value)))
