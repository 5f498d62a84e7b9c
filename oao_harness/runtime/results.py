"""Between a call's effect and its end: what redactors leave of its result, and whether it is tried again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from oao_harness.journal.codec import alike, decode_error, encode_error, error_line, opaque
from oao_harness.runtime.dispatch import Steps, observe
from oao_harness.runtime.judging import redacted
from oao_harness.runtime.passage import Ticket, finish
from oao_harness.runtime.retry import delay_before_retry
from oao_harness.runtime.run import Run
from oao_harness.runtime.shapes import Answer
from oao_hookspecs import CallRetried, Deny, Json

__all__ = ["must_redact", "redacting", "redacting_error", "retrying"]

T = TypeVar("T")


def redacting(ticket: Ticket, answer: Answer, result: T, load: Callable[[Json], T]) -> Steps[tuple[Answer, T]]:
    """Return what the redactors leave of a tool's result; the result itself where they change nothing.

    Args:
        ticket: The call; its effect has happened.
        answer: The result as it would be journaled.
        result: As the body returned it.
        load: Makes a result of what was journaled.

    Raises:
        RunHalted: One failed; the result is withheld from the agent and from the journal.
    """
    run = ticket.run
    try:
        value, refusal = yield from redacted(run, ticket.call, answer.value)
    except BaseException:
        # Cancelled meanwhile: what happened must be written all the same.
        yield from finish(ticket, _withheld(answer.value), None)
        raise
    if refusal is None:
        if value == answer.value and alike(value, answer.value):
            return answer, result
        try:
            return Answer(value, answer.usage, answer.proposed), load(value)
        except Exception as error:  # noqa: BLE001 - a value's own class may refuse what is left of it
            what = f"tool {ticket.call.name}: what is left of its result cannot be read back: {error_line(error)}"
            refusal = Deny(rule="policy-error", plugin="oao", reason=f"{what}; redact texts, not parts of values"), run
    yield from _withholding(ticket, answer.value, refusal)
    raise run.require_halt()


def redacting_error(ticket: Ticket, error: BaseException) -> Steps[BaseException]:
    """Return what the redactors leave of what a tool raised; the error itself where they change nothing.

    Raises:
        RunHalted: One failed; the error is withheld from the agent and from the journal.
    """
    if not must_redact(ticket) or not isinstance(error, Exception):
        return error
    info = encode_error(error)
    said: dict[str, Json] = {"message": info.message, "data": info.data}
    found, refusal = yield from redacted(ticket.run, ticket.call, said)
    if refusal is None:
        left: Mapping[str, Json] = found if isinstance(found, Mapping) else {}
        message, data = left.get("message"), left.get("data")
        if isinstance(message, str) and isinstance(data, Mapping):
            return error if alike(found, said) else decode_error(replace(info, message=message, data=data))
        reason = f"tool {ticket.call.name}: what is left of its error is no error; redact texts, not parts of values"
        refusal = Deny(rule="policy-error", plugin="oao", reason=reason), ticket.run
    yield from _withholding(ticket, error, refusal)
    raise ticket.run.require_halt()


def _withheld(value: object) -> Answer:
    return Answer(opaque(type(value), "withheld: it could not be redacted"))


def _withholding(ticket: Ticket, value: object, refusal: tuple[Deny, Run]) -> Steps[None]:
    """End a call whose result or error nobody may see, and halt the run."""
    yield from finish(ticket, _withheld(value), None)
    yield from ticket.run.refusing(refusal[0], n=ticket.n, by=refusal[1])


def must_redact(ticket: Ticket) -> bool:
    """Return True where somebody must see a tool's result before the agent does."""
    return ticket.run.redacts and ticket.call.kind == "tool"


def retrying(ticket: Ticket, error: BaseException, *, began: bool = False) -> Steps[float | None]:
    """Return the seconds to wait before another try, written and observed, or None where there is none."""
    run = ticket.run
    if began or ticket.served is not None or not isinstance(error, Exception) or run.halted is not None or run.closed:
        return None
    if ticket.call.kind == "model" and run.replay is not None and run.replay.plays_wire:
        # Its requests come from the recording, and that holds every try that was made.
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
