"""The logic of the gate: all that is before a call's effect (`begin`) and after it (`finish`).

Computations without I/O of their own; `gate` drives them around the effect. In replay only the acting differs:
the recorded outcome is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar, cast

from oao_harness.errors import PolicyViolation, ReplayDiverged, RunHalted, RunSuspended
from oao_harness.journal.codec import encode_error, error_line
from oao_harness.journal.questions import Question
from oao_harness.journal.records import call_fields, outcome_fields
from oao_harness.journal.replay import Divergence, Served
from oao_harness.runtime.approvals import hold, suspend
from oao_harness.runtime.callers import caller_line
from oao_harness.runtime.context import Frame, frame
from oao_harness.runtime.dispatch import ALLOWED, Steps, observe
from oao_harness.runtime.execute import interruption
from oao_harness.runtime.frozen import freeze_call, freeze_outcome
from oao_harness.runtime.judging import (
    NOTHING,
    Reservation,
    is_unjudged,
    judge_batch,
    judge_call,
    judge_outcome,
    release,
    reserve,
    settle,
)
from oao_harness.runtime.overrides import overridden
from oao_harness.runtime.revisits import Visit
from oao_harness.runtime.run import Run
from oao_harness.runtime.shapes import Answer
from oao_harness.runtime.watchdog import Watch, watch_call
from oao_hookspecs import (
    Allow,
    Call,
    CallDecided,
    CallFinished,
    Decision,
    Deny,
    Json,
    Outcome,
    ProposedCall,
    ToolCall,
    Usage,
)

__all__ = [
    "Ticket",
    "TooEarly",
    "abandon",
    "begin",
    "count_again",
    "diverging",
    "finish",
]

# Each approval may give other arguments, and each is judged again: one that is undone would be given for ever.
_MOST_EDITS: Final = 8
_VIOLATION: Final = encode_error(PolicyViolation()).type


T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Ticket:
    """A call on its way through the gate."""

    run: Run
    n: int
    request: Call
    """As the agent made it: what its body is given where no policy modified it."""
    call: Call
    """As it is judged, written and shown."""
    parent: int | None
    served: Served | None = None
    reserved: Reservation = NOTHING
    granted: tuple[Question, ...] = ()
    """The approvals that it uses."""
    written: bool = False
    """True where the journal says that the call is allowed, and waits for its outcome."""
    watch: Watch | None = None
    started: float = 0.0
    attempts: int = 1
    again: bool = False
    """True where it began before the run was interrupted."""
    inner: int = 0
    """Calls judged that a served outcome stands for."""
    outer: Frame | None = None
    """The call whose body made this one, of this run or of one that it is nested in."""
    waits: bool = False
    """True where its body waits for a person."""
    visit: Visit | None = None
    """Its place in the history of the agent's framework, where that can go back."""
    changed: bool = False
    """True where a policy or an approval put other arguments in place of the agent's."""
    carried: int = 0
    """See `Frame.carried`."""
    told: Call | None = None
    """See `shown`."""

    @property
    def shown(self) -> Call:
        """What observers are handed of the call once it is decided: frozen, one for all of them and no policy's.

        It takes its time to make, and what is done and journaled is never made of it.
        """
        if self.told is None:
            self.told = freeze_call(self.call, unique=self.unique)
        return self.told

    @property
    def unique(self) -> str:
        """Id of the call among all calls of all runs, for what hooks are handed."""
        return f"{self.run.execution_id}#{self.n}"

    @property
    def acting(self) -> Call:
        """What the body is given: the agent's own request, or what the policies made of it."""
        return self.call if self.changed or self.is_swapped else self.request

    @property
    def is_swapped(self) -> bool:
        """True where another model is asked than the one that the agent names."""
        return self.call.kind == "model" and self.call.name != self.request.name

    @property
    def event(self) -> int | None:
        """Number of the recorded event that answers it, where a recording does."""
        return self.served.event if self.served is not None else None

    @property
    def is_known(self) -> bool:
        """True where the run's own journal holds the call's outcome: it was written, and told, before."""
        return self.served is not None and self.served.known


class TooEarly(Exception):  # noqa: N818 - no error: the call may be made once others were
    """The call was recorded, and what had ended before it was not asked for yet."""


def begin(run: Run, request: Call, *, patient: bool = False) -> Steps[Ticket]:
    """Latch, match, decide, hold, reserve, write: everything before the effect.

    Args:
        run: The run.
        request: What the agent asks for.
        patient: True for a caller that would rather wait for other calls than diverge.

    Raises:
        RunHalted: The call must not happen.
        TooEarly: It may, after others; nothing was done yet.
    """
    run.refuse_if_over()
    outer = frame.get()
    parent = outer.n if outer is not None and outer.run is run else None
    call, served = (request, None) if run.is_plain else (yield from _match(run, request, patient=patient))
    visit = run.revisits.visit(request, parent) if run.revisits is not None else None
    served = visit.served if served is None and visit is not None else served
    call = overridden(run, call) if served is None or served.again else call
    n = run.next_number(served)
    ticket = Ticket(run=run, n=n, request=request, call=call, parent=parent, served=served, outer=outer, visit=visit)
    try:
        decision, by = (ALLOWED, run) if is_unjudged(run, call) else (yield from _judge(ticket))
        if not isinstance(decision, Deny):
            ticket.reserved, denial, by = reserve(run, ticket.call, spends=served is None or served.again)
            decision = denial or decision
        recorded = served.decision if served is not None else decision.verdict
        if recorded and not isinstance(decision, Deny) and recorded.partition(" ")[0] != decision.verdict:
            text = f"{call.kind} {call.name}: {recorded} when recorded, {decision.verdict} now (replay diverged)"
            step = served.event if served is not None else None
            yield from diverging(run, Divergence(kind="verdict", text=text, step=step, name=call.name), n)
            raise run.require_halt()
        run.calls.append((call.kind, call.name))
        if not ticket.is_known or isinstance(decision, Deny):
            _write_call(ticket, decision)
            if run.hooks.heard("oao_call_decided"):
                event = CallDecided(execution_id=run.execution_id, n=n, call=ticket.shown, decision=decision)
                yield from observe(run.hooks, "oao_call_decided", {"event": event, "run": run})
        if isinstance(decision, Deny):
            yield from run.refusing(decision, n=n, by=by)
            raise run.require_halt()
        if served is not None:
            for child, ended, denied in served.children:
                yield from _judge_inner(ticket, child, ended, happened=not denied)
            if served.again:
                ticket.served, ticket.again = None, True
        run.refuse_if_over()
    except (RunHalted, GeneratorExit, asyncio.CancelledError) as error:
        abandon(ticket, error)
        raise
    except BaseException as error:
        # Whatever breaks the judging breaks the run: an unjudged call must not be tried again.
        yield from run.halting(PolicyViolation(f"the gate failed: {error_line(error)}", rule="gate", plugin="oao", n=n))
        abandon(ticket, error)
        raise
    ticket.started = run.clock.monotonic()
    if run.call_timeout_s is not None and ticket.served is None:
        ticket.watch = watch_call(run, n, f"{call.kind} {call.name}")
    return ticket


def _judge(ticket: Ticket) -> Steps[tuple[Decision, Run]]:
    """Ask the policies, and where one of them wants a person to decide, that person."""
    run = ticket.run
    edits = 0
    while True:
        judged = yield from judge_call(run, ticket.call, ticket.unique)
        ticket.changed = ticket.changed or judged.call is not ticket.call
        ticket.call = judged.call
        if not judged.asks or ticket.is_known:
            return judged.decision, judged.by
        held = yield from hold(run, judged.call, judged.asks, n=ticket.n)
        if held.denial is not None:
            return held.denial
        if held.pending:
            yield from suspend(run, held.pending, n=ticket.n)
            raise run.require_halt()
        # Not yet used: an approval with other arguments is used by the call that has them.
        if held.edited is not None:
            edits += 1
            if edits > _MOST_EDITS:
                reason = f"tool {ticket.call.name}: a policy undoes the arguments that an approval gave it"
                return Deny(rule="policy-error", plugin="oao", reason=reason), run
            ticket.call, ticket.changed = held.edited, True
            continue
        for question in held.granted:
            if not run.questions.take(question, ticket.n):
                break
            ticket.granted = (*ticket.granted, question)
        else:
            return judged.decision, judged.by


def _write_call(ticket: Ticket, decision: Decision) -> None:
    """Journal the request and the decision."""
    run, served = ticket.run, ticket.served
    if isinstance(decision, Allow) and decision.would:
        run.note_observed(ticket.call, decision)
    if served is not None and served.again and not isinstance(decision, Deny):
        run.write("again", {"n": ticket.n, **({"name": ticket.call.name} if ticket.is_swapped else {})})
    else:
        given = ticket.request if ticket.changed else None
        fields = call_fields(ticket.call, decision, n=ticket.n, parent=ticket.parent, given=given)
        if ticket.is_swapped:
            fields["given_name"] = ticket.request.name
        if ticket.granted:
            fields["approvals"] = [question.request.id for question in ticket.granted]
        if ticket.event is not None:
            fields["event"] = ticket.event
        run.write("call", fields, ticket.event)
    ticket.written = not isinstance(decision, Deny)


def _judge_inner(ticket: Ticket, call: Call, ended: Outcome | None, *, happened: bool) -> Steps[None]:
    """Judge and count a call that a served outcome stands for: it is not made again, but it must still be allowed.

    One that was denied, by a run nested in this one, did not happen: it is judged, and not counted.
    """
    run, n = ticket.run, ticket.n or None
    ticket.inner += 1
    unique = f"{ticket.unique}.{ticket.inner}"
    judged = yield from judge_call(run, run.described(call), unique)
    denial, by = (judged.decision, judged.by) if isinstance(judged.decision, Deny) else (None, run)
    if denial is None and judged.asks and not ticket.is_known:
        held = yield from hold(run, judged.call, judged.asks)
        if held.pending:
            yield from suspend(run, held.pending, n=n)
            raise run.require_halt()
        if held.denial is not None:
            denial, by = held.denial
        for question in held.granted:
            run.questions.take(question, ticket.n)
    if denial is None:
        reserved, denial, by = reserve(run, call, spends=False)
        if not happened:
            release(run, call, reserved)
            reserved = NOTHING
        refusal = settle(run, reserved, ended.usage if ended is not None else None)
        if denial is None and refusal is None and happened and ended is not None:
            # What its result means to a policy, such as a label, would be forgotten.
            refusal = yield from judge_outcome(run, replace(judged.call, id=unique), ended)
        if denial is None and refusal is not None:
            denial, by = refusal
    if denial is not None:
        yield from run.refusing(denial, n=n, by=by)
        raise run.require_halt()


def count_again(run: Run, calls: Iterable[tuple[Call, Outcome | None, bool]]) -> Steps[None]:
    """Judge and count the calls of a part of a resumed run that is not run again, because it has ended.

    Args:
        run: The outer run.
        calls: Each with how it ended, or None, and whether it was denied.

    Raises:
        RunHalted: The policies refuse what they allowed then, or a limit is passed.
    """
    nothing = ToolCall(name="", arguments={})
    known = Served(outcome=Outcome(), known=True)
    ticket = Ticket(run=run, n=0, request=nothing, call=nothing, parent=None, served=known)
    for call, ended, denied in calls:
        yield from _judge_inner(ticket, call, ended, happened=not denied)


def abandon(ticket: Ticket, error: BaseException) -> None:
    """Settle a call that will not happen after all, and say so where the journal has it as allowed."""
    _settle(ticket, None)
    if ticket.written:
        with suppress(RunHalted):  # a journal that fails has halted the run
            fields = outcome_fields(Outcome(error=encode_error(error)), n=ticket.n, late=ticket.run.closed)
            ticket.run.write("outcome", {**fields, "abandoned": True}, ticket.event)


def _settle(ticket: Ticket, usage: Usage | None) -> tuple[Deny, Run] | None:
    """Settle the call's reservations; once, however it ends."""
    if ticket.watch is not None:
        ticket.watch.stop()
    reserved, ticket.reserved = ticket.reserved, NOTHING
    return settle(ticket.run, reserved, usage)


def _match(run: Run, request: Call, *, patient: bool) -> Steps[tuple[Call, Served | None]]:
    """Return the call with what is declared about its tool, and what a recording holds for it, if it holds anything."""
    try:
        call = run.described(request)
        served = run.replay.serve(call, run.label) if run.replay is not None else None
        if run.resumption is not None and not isinstance(served, Served):
            swapped = (replace(call, name=name) for name in run.resumption.swapped(call))
            for other in (overridden(run, call), *swapped):
                again = run.resumption.serve(other, run.label) if other is not call else None
                if isinstance(again, Served):
                    call, served = other, again
                    break
    except Exception as error:
        reason = f"the gate failed: {error_line(error)}"
        yield from run.halting(PolicyViolation(reason, rule="gate", plugin="oao"))
        raise
    if isinstance(served, Divergence):
        if patient and (served.kind == "order" or _is_early(run, served)):
            raise TooEarly
        caller = caller_line()
        told = served if caller is None else replace(served, text=f"{served.text}\n  {caller}")
        yield from diverging(run, told, len(run.calls) + 1)
        raise run.require_halt()
    return call, served


def _is_early(run: Run, divergence: Divergence) -> bool:
    """Return True where a resumed run's other threads may ask for what it had done, and then this call is new."""
    known = divergence.kind in {"doubt", "unreadable"}
    return run.resumption is not None and not known and run.resumption.unplayed_text() is not None


def diverging(run: Run, divergence: Divergence, n: int | None) -> Steps[None]:
    """Halt every run that plays the same recording: after a divergence none of its answers means anything.

    The journals of resumed runs are one recording: what is in doubt inside of a nested run is in doubt outside too.
    """
    for member in run.lineage:
        if member.replay is run.replay or (member.resumption is not None and run.resumption is not None):
            own = n if member is run else None
            halt = ReplayDiverged(
                divergence.text, rule="replay", plugin="oao", n=own, kind=divergence.kind, step=divergence.step
            )
            yield from member.halting(halt)


def finish(ticket: Ticket, answer: Answer | None, error: BaseException | None) -> Steps[None]:
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
    if ticket.visit is not None and run.revisits is not None:
        run.revisits.ended(ticket.visit, outcome)
    overspent = _settle(ticket, outcome.usage)
    if isinstance(error, KeyboardInterrupt):
        run.latch(interruption())
        # Nobody knows how far its body had come: whoever resumes the run is told.
        raise error
    interrupted = isinstance(error, asyncio.CancelledError) and isinstance(run.halted, RunSuspended)
    if ticket.waits or interrupted:
        # Its body waits for a person, or was cancelled because another one does: this is not how it ended.
        raise run.require_halt()
    if not ticket.is_known:
        fields = outcome_fields(outcome, n=ticket.n, late=run.closed, event=ticket.event)
        run.write("outcome", fields, ticket.event)
    violation = error if isinstance(error, PolicyViolation) else _recorded_violation(ticket)
    if violation is not None:
        # Raised by the body: a denial is a denial, also where the agent catches it.
        yield from run.halting(violation)
    if run.hooks.heard("oao_call_finished") and not ticket.is_known:
        ended = freeze_outcome(outcome)
        event = CallFinished(execution_id=run.execution_id, n=ticket.n, call=ticket.shown, outcome=ended)
        yield from observe(run.hooks, "oao_call_finished", {"event": event, "run": run})
    run.refuse_if_over()
    refusal = overspent
    if refusal is None and (run.parent is not None or run.hooks.heard("oao_decide_outcome")):
        refusal = yield from judge_outcome(run, replace(ticket.call, id=ticket.unique), outcome)
    if refusal is None and len(outcome.proposed) > 1:
        refusal = yield from _hold_batch(ticket, outcome.proposed)
    if refusal is not None:
        yield from run.refusing(refusal[0], n=ticket.n, by=refusal[1])
        raise run.require_halt()


def _recorded_violation(ticket: Ticket) -> PolicyViolation | None:
    """Return the violation that the body of a served call ended with: the calls inside of it are not made again."""
    error = ticket.served.outcome.error if ticket.served is not None else None
    if error is None or error.type != _VIOLATION:
        return None
    given = cast("Mapping[str, Json]", error.data.get("attributes") or {})
    rule, plugin = (str(given.get(name) or "") for name in ("rule", "plugin"))
    return PolicyViolation(error.message, rule=rule, plugin=plugin, n=ticket.n)


def _hold_batch(ticket: Ticket, batch: Sequence[ProposedCall]) -> Steps[tuple[Deny, Run] | None]:
    """Judge a batch before any of it starts; where a person must be asked, all of it waits."""
    run = ticket.run
    judged = yield from judge_batch(run, batch, ticket.call.scope, spends=ticket.served is None)
    if judged.denial is not None:
        return judged.denial
    pending: list[Question] = []
    asked: set[str] = set()
    for call, asks in judged.held:
        if ticket.served is not None and run.replay is not None and run.replay.holds(call):
            continue
        held = yield from hold(run, call, asks, others=asked)
        if held.denial is not None:
            return held.denial
        pending += held.pending
    if pending:
        yield from suspend(run, pending, n=None)
        raise run.require_halt()
    return None
