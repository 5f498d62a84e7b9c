"""Another try of a call that failed: written and observed before it is waited for."""

from __future__ import annotations

from oao_harness.journal.codec import error_line
from oao_harness.runtime.dispatch import Steps, observe
from oao_harness.runtime.passage import Ticket
from oao_harness.runtime.retry import delay_before_retry
from oao_hookspecs import CallRetried

__all__ = ["retrying"]


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
