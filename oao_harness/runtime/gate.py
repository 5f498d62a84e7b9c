"""The one place every call passes: judged, written, acted, written.

`call`, `acall`, `stream` and `astream` are thin drivers around the effect; what is before and after it is written
once, in `passage`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, closing, suppress
from typing import Any, Final, TypeVar, cast

from oao_harness.errors import RunHalted
from oao_harness.journal.codec import decode_error, error_line, opaque
from oao_harness.journal.replay import Divergence, Served
from oao_harness.runtime.context import Frame, frame
from oao_harness.runtime.dispatch import drive, drive_async
from oao_harness.runtime.passage import (
    Ticket,
    abandon,
    diverging,
    finish,
)
from oao_harness.runtime.results import must_redact, redacting, redacting_error
from oao_harness.runtime.retrying import retrying
from oao_harness.runtime.run import Run
from oao_harness.runtime.shapes import Answer, Shape, ValueShape
from oao_harness.runtime.turns import enter, enter_async, take_turn, take_turn_async
from oao_harness.runtime.within import each_within, each_within_async
from oao_hookspecs import Call, Json

__all__ = ["Answer", "Shape", "ValueShape", "acall", "astream", "call", "stream"]

R = TypeVar("R")
_END: Final = object()


def _again(ticket: Ticket, error: BaseException, begun: Answer | None = None) -> bool:
    """Wait before another try; return False where there is none, and the call has ended with the error.

    Args:
        ticket: The call.
        error: Why it failed.
        begun: What of a stream had come by then; it is paid for.
    """
    run, timeout_s = ticket.run, ticket.run.hooks.timeout_s
    try:
        delay_s = drive(retrying(ticket, error, began=begun is not None), timeout_s)
        if delay_s is not None:
            run.halt_event().wait(delay_s)
            run.refuse_if_over()
    except BaseException:
        _ended(ticket, error, begun)
        raise
    if delay_s is None:
        drive(finish(ticket, begun, error), timeout_s)
        return False
    ticket.attempts += 1
    return True


async def _again_async(ticket: Ticket, error: BaseException, begun: Answer | None = None) -> bool:
    """Wait before another try; see `_again`."""
    run, timeout_s = ticket.run, ticket.run.hooks.timeout_s
    if not isinstance(error, Exception):
        # Not awaited: this task may be being cancelled, and what happened must be written all the same.
        return _again(ticket, error, begun)
    try:
        delay_s = await drive_async(retrying(ticket, error, began=begun is not None), timeout_s)
        if delay_s is not None:
            await asyncio.sleep(delay_s)
            run.refuse_if_over()
    except BaseException:
        _ended(ticket, error, begun)
        raise
    if delay_s is None:
        await drive_async(finish(ticket, begun, error), timeout_s)
        return False
    ticket.attempts += 1
    return True


def _ended(ticket: Ticket, error: BaseException, begun: Answer | None) -> None:
    """End a call whose next try was given up: halted or cancelled while it waited, and that is what goes on."""
    with suppress(RunHalted):
        drive(finish(ticket, begun, error), ticket.run.hooks.timeout_s)


def _dumped(ticket: Ticket, shape: Shape, value: object) -> Answer:
    """Return what the journal keeps of a result. The effect has happened: a value that resists must not undo that."""
    try:
        return shape.dump(value)
    except Exception as error:  # noqa: BLE001 - a result may run any code when it is looked at
        what = f"the result of call {ticket.n} ({ticket.call.kind} {ticket.call.name}) could not be journaled"
        ticket.run.note_ungoverned(f"{what}: {error_line(error)}")
        return Answer(value=opaque(type(value), f"{type(error).__name__} while it was looked at"))


def _begun(ticket: Ticket, shape: Shape, chunks: list[Any]) -> Answer | None:
    """Return what a stream that failed had cost by then, or None where nothing had come."""
    if not chunks or ticket.served is not None:
        return None
    return Answer(value=None, usage=_dumped(ticket, shape, chunks).usage)


def _whole(chunks: list[Any]) -> list[Any]:
    """Return the chunks of a stream as redactors must see them: what is hidden in a text may be cut by chunks."""
    is_text = len(chunks) > 1 and all(isinstance(chunk, str) for chunk in chunks)
    return ["".join(chunks)] if is_text else chunks


def _serve(ticket: Ticket, shape: Shape) -> tuple[Any, Answer | None]:
    """Return the recorded value and what it says about itself; raise the recorded error later."""
    outcome = cast("Served", ticket.served).outcome
    if outcome.error is not None:
        return None, None
    try:
        value = _loaded(ticket, shape.load)
    except RunHalted as halt:
        abandon(ticket, halt)
        raise
    return value, _dumped(ticket, shape, value)


def _loaded(ticket: Ticket, load: Callable[[Json], R]) -> R:
    """Return a recorded value as an object. That it cannot be read back is a divergence, no error of the tool's."""
    run, call = ticket.run, ticket.call
    try:
        return load(cast("Served", ticket.served).outcome.value)
    except Exception as error:
        text = f"{call.kind} {call.name}: its recorded result cannot be read: {error_line(error)} (replay diverged)"
        step = cast("Served", ticket.served).event
        divergence = Divergence(kind="unreadable", text=text, step=step, name=call.name)
        drive(diverging(run, divergence, ticket.n), run.hooks.timeout_s)
        raise run.require_halt() from error


def _raise_served(ticket: Ticket) -> None:
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
    ticket = enter(run, request)
    if ticket.served is not None:
        value, answer = _serve(ticket, shape)
        try:
            take_turn(ticket)
        except BaseException as error:
            _ended(ticket, error, answer)
            raise
        drive(finish(ticket, answer, None), timeout_s)
        _raise_served(ticket)
        return cast("R", value)
    while True:
        token = frame.set(ticket)
        try:
            result = act(ticket.acting)
            break
        except BaseException as error:
            failed = drive(redacting_error(ticket, error), timeout_s)
            again = _again(ticket, failed)
            if not again and failed is error:
                raise
        finally:
            frame.reset(token)
        if not again:
            # Out here, so that what was taken out of the error is not its context.
            raise failed
    answer = _dumped(ticket, shape, result)
    if must_redact(ticket):
        answer, result = drive(redacting(ticket, answer, result, shape.load), timeout_s)
    drive(finish(ticket, answer, None), timeout_s)
    return result


async def acall(run: Run, request: Call, act: Callable[[Call], Awaitable[R]], shape: Shape) -> R:
    """Pass an async call through the gate; see `call`."""
    timeout_s = run.hooks.timeout_s
    ticket = await enter_async(run, request)
    if ticket.served is not None:
        value, answer = _serve(ticket, shape)
        try:
            await take_turn_async(ticket)
        except BaseException as error:
            # Cancelled while it waited, as it may have been when it was recorded: it ends as it did then.
            _ended(ticket, error, answer)
            raise
        await drive_async(finish(ticket, answer, None), timeout_s)
        _raise_served(ticket)
        return cast("R", value)
    while True:
        token = frame.set(ticket)
        try:
            result = await act(ticket.acting)
            break
        except BaseException as error:
            failed = await drive_async(redacting_error(ticket, error), timeout_s)
            again = await _again_async(ticket, failed)
            if not again and failed is error:
                raise
        finally:
            frame.reset(token)
        if not again:
            raise failed
    answer = _dumped(ticket, shape, result)
    if must_redact(ticket):
        answer, result = await drive_async(redacting(ticket, answer, result, shape.load), timeout_s)
    await drive_async(finish(ticket, answer, None), timeout_s)
    return result


def stream(run: Run, request: Call, act: Callable[[Call], Iterator[R]], shape: Shape) -> Generator[R, None, None]:
    """Pass a sync stream through the gate, chunk by chunk; see `call`. A stream that began is not retried."""
    ticket = enter(run, request)
    run.reading[ticket.n] = None
    try:
        yield from _stream(run, ticket, act, shape)
    finally:
        run.reading.pop(ticket.n, None)


def _stream(run: Run, ticket: Ticket, act: Callable[[Call], Iterator[R]], shape: Shape) -> Generator[R, None, None]:
    timeout_s = run.hooks.timeout_s
    chunks: list[R] = []
    withheld = ticket.served is None and must_redact(ticket)
    while True:
        try:
            with closing(each_within(frame, _as_frame(ticket), lambda: _source(ticket, act, shape))) as source:
                for chunk in source:
                    chunks.append(chunk)
                    if not withheld:
                        yield chunk
            break
        except GeneratorExit:
            with suppress(RunHalted):  # kept by the run: who closes a stream may be the garbage collector
                drive(finish(ticket, _dumped(ticket, shape, chunks), None), timeout_s)
            raise
        except BaseException as error:
            failed = drive(redacting_error(ticket, error), timeout_s)
            again = _again(ticket, failed, _begun(ticket, shape, chunks))
            if not again and failed is error:
                raise
        if not again:
            raise failed
    chunks = _whole(chunks) if withheld else chunks
    answer = _dumped(ticket, shape, chunks)
    if withheld:
        # Nothing of a stream may be seen before all of it was redacted.
        answer, chunks = drive(redacting(ticket, answer, chunks, lambda it: [*shape.load_chunks(it)]), timeout_s)
    drive(finish(ticket, answer, None), timeout_s)
    if withheld:
        yield from chunks


async def astream(
    run: Run, request: Call, act: Callable[[Call], AsyncIterator[R]], shape: Shape
) -> AsyncGenerator[R, None]:
    """Pass an async stream through the gate, chunk by chunk; see `stream`."""
    ticket = await enter_async(run, request)
    run.reading[ticket.n] = None
    try:
        async with aclosing(_astream(run, ticket, act, shape)) as chunks:
            async for chunk in chunks:
                yield chunk
    finally:
        run.reading.pop(ticket.n, None)


async def _astream(
    run: Run, ticket: Ticket, act: Callable[[Call], AsyncIterator[R]], shape: Shape
) -> AsyncGenerator[R, None]:
    timeout_s = run.hooks.timeout_s
    chunks: list[R] = []
    withheld = ticket.served is None and must_redact(ticket)
    while True:
        try:
            async with aclosing(
                each_within_async(frame, _as_frame(ticket), lambda: _async_source(ticket, act, shape))
            ) as source:
                async for chunk in source:
                    chunks.append(chunk)
                    if not withheld:
                        yield chunk
            break
        except GeneratorExit:
            with suppress(RunHalted):
                drive(finish(ticket, _dumped(ticket, shape, chunks), None), timeout_s)
            raise
        except BaseException as error:
            failed = await drive_async(redacting_error(ticket, error), timeout_s)
            again = await _again_async(ticket, failed, _begun(ticket, shape, chunks))
            if not again and failed is error:
                raise
        if not again:
            raise failed
    chunks = _whole(chunks) if withheld else chunks
    answer = _dumped(ticket, shape, chunks)
    if withheld:
        redaction = redacting(ticket, answer, chunks, lambda it: [*shape.load_chunks(it)])
        answer, chunks = await drive_async(redaction, timeout_s)
    await drive_async(finish(ticket, answer, None), timeout_s)
    if withheld:
        for chunk in chunks:
            yield chunk


def _as_frame(ticket: Ticket) -> Frame | None:
    return ticket


def _source(ticket: Ticket, act: Callable[[Call], Iterator[Any]], shape: Shape) -> Iterator[Any]:
    return act(ticket.acting) if ticket.served is None else _served_source(ticket, shape)


def _served_source(ticket: Ticket, shape: Shape) -> Iterator[Any]:
    yield from _served_chunks(ticket, shape)
    take_turn(ticket)
    _raise_served(ticket)


async def _async_source(ticket: Ticket, act: Callable[[Call], AsyncIterator[Any]], shape: Shape) -> AsyncIterator[Any]:
    if ticket.served is None:
        async with aclosing(cast("AsyncGenerator[Any, None]", act(ticket.acting))) as live:
            async for chunk in live:
                yield chunk
    else:
        for chunk in _served_chunks(ticket, shape):
            yield chunk
        await take_turn_async(ticket)
        _raise_served(ticket)


def _served_chunks(ticket: Ticket, shape: Shape) -> Iterator[Any]:
    """Yield the recorded chunks; none where the stream failed when it was recorded."""
    if cast("Served", ticket.served).outcome.error is not None:
        return
    chunks = _loaded(ticket, lambda value: iter(shape.load_chunks(value)))
    # One by one: a stream that was left early when it was recorded cannot be read further than it was then.
    while (chunk := _loaded(ticket, lambda _: next(chunks, _END))) is not _END:
        yield chunk
