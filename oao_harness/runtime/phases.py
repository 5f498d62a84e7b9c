"""The phases of a run as computations: PLAN, REVIEW, TERMINATE. EXECUTE, between them, is the agent's own code."""

from __future__ import annotations

import datetime as dt
import functools
import operator
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final, Literal, cast

from oao_harness.errors import ReplayDiverged, RunHalted, RunSuspended
from oao_harness.journal.codec import encode, error_line, opaque
from oao_harness.journal.questions import principal_to_json, request_fields
from oao_harness.runtime import context
from oao_harness.runtime.dispatch import Steps, decide, observe, traceparent
from oao_harness.runtime.doubts import doubt_fields, suspend_for_doubts
from oao_harness.runtime.execute import Ending, interruption
from oao_harness.runtime.fingerprint import digest, fingerprints, version_of_policies
from oao_harness.runtime.frozen import freeze
from oao_harness.runtime.judging import as_denial
from oao_harness.runtime.plain import as_json, as_text
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.requeuing import put_down, requeued
from oao_harness.runtime.run import Run
from oao_hookspecs import Adapter, Allow, Deny, Json, Limits, RunFinished, RunPaused, RunResumed, RunStarted, tenant_of

__all__ = ["abort", "execute_phase", "give_up", "halt_text", "plan", "refuse_unseen", "review", "suspended_report"]


_ONLY: Final = "can only be allowed or denied here"

_LIMITS: Final = operator.attrgetter(*Limits.__slots__)


@functools.cache
def _version() -> str:
    return version("oao-harness")


def plan(
    run: Run, *, adapter: str, policies: Sequence[object], agent: object = None, tools: Sequence[object] = ()
) -> Steps[bool]:
    """Open the run, fix what it is made of, and let the policies see the task.

    Args:
        run: A run in INIT.
        adapter: Name of the adapter.
        policies: As objects, for the journal.
        agent: For its fingerprint.
        tools: Tools passed explicitly.

    Returns:
        False where the task was refused: the run must not enter EXECUTE.
    """
    context.opened(run)
    task = as_json(run.task)
    described = [_describe(policy) for policy in policies]
    run.policy_version = version_of_policies(policies)
    made_of: dict[str, Json] = {
        "adapter": adapter,
        "policy": described,
        "limits": _limits_to_json(run.limits),
        "fingerprints": fingerprints(agent, tools, policy=run.policy_version),
        "oao": _version(),
    }
    run.fingerprint = digest([str(made_of), str(task)])
    if run.resumption is not None:
        run.write("run.resumed", {"agent": run.agent_name, **made_of})
        yield from _told_resumed(run, adapter)
        yield from run.entering("PLAN")
        if (yield from suspend_for_doubts(run)):
            return False
    else:
        if run.queued_at is not None:
            made_of["waited_s"] = round(max(0.0, run.clock.time() - run.queued_at), 3)
        yield from _opening(run, task, adapter, cast("float | None", made_of.get("waited_s")))
        yield from run.entering("PLAN")
        if run.hooks.heard("oao_traceparent") and (trace := traceparent(run.hooks, run)) is not None:
            made_of["traceparent"] = trace
        # Whoever dies of a job must have left a trace of its attempt, see `fruitless`: before the first code that is
        # not oao's. Entering EXECUTE writes what waits.
        decides = any(member.hooks.heard("oao_decide_run") for member in run.lineage)
        run.write("plan", made_of, later=run.queued_at is None or not decides)
    for member in run.lineage:
        decision = yield from decide(member.hooks, "oao_decide_run", {"run": run})
        if not isinstance(decision, Allow):
            yield from run.refusing(as_denial(decision, f"a task {_ONLY}"), n=None, by=member)
            return False
    return True


def _told_resumed(run: Run, adapter: str) -> Steps[None]:
    if run.hooks.heard("oao_run_resumed") and not run.is_served:
        event = RunResumed(
            execution_id=run.execution_id,
            agent_name=run.agent_name,
            adapter=adapter,
            parent=None if run.parent is None else run.parent.execution_id,
            node=run.node,
            traceparent=run.traceparent,
            began_in=run.began_in,
        )
        yield from observe(run.hooks, "oao_run_resumed", {"event": event, "run": run})


def _opening(run: Run, task: Json, adapter: str, waited_s: float | None) -> Steps[None]:
    """Write the first record of a run, and in the run that it is nested in that it began."""
    started: dict[str, Json] = {"execution_id": run.execution_id, "agent": run.agent_name, "task": task}
    given = _whole(run.task)
    if given != task:
        started["input"] = given
    if run.principal is not None:
        started["principal"] = principal_to_json(run.principal)
    if tenant_of(started) != run.tenant:
        started["tenant"] = run.tenant
    if run.origin:
        started["origin"] = dict(run.origin)
    child: dict[str, Json] = {"execution_id": run.execution_id}
    if run.node:
        started["node"] = child["node"] = run.node
    if run.parent is not None:
        started["parent"] = run.parent.execution_id
        if run.parent_call is not None:
            started["parent_call"] = child["n"] = run.parent_call
    # First: a process that dies in between leaves a run that did nothing, not a name without a journal.
    if run.queued_at is None:
        run.write("run.started", started, later=run.parent is None and not run.hooks.heard("oao_run_started"))
    if run.parent is not None and not run.parent.closed:
        run.parent.write("child", child)
    if run.hooks.heard("oao_run_started"):
        event = RunStarted(
            execution_id=run.execution_id,
            agent_name=run.agent_name,
            task=freeze(task),
            adapter=adapter,
            parent=None if run.parent is None else run.parent.execution_id,
            node=run.node,
            traceparent=run.traceparent,
            waited_s=waited_s,
            replayed=run.replay is not None,
        )
        yield from observe(run.hooks, "oao_run_started", {"event": event, "run": run})


def _whole(task: object) -> Json:
    """Return a task so that it comes back as the object it was, as far as a journal can hold it."""
    try:
        return encode(task)
    except Exception:  # noqa: BLE001 - a user's own code; the task is journaled for reading in any case
        return opaque(type(task), "a task that cannot be written")


def refuse_unseen(run: Run, adapter: Adapter, agent: object, tools: Sequence[object]) -> Steps[bool]:
    """Say that an agent's calls cannot be seen; return False where a policy wants them governed."""
    if tools or adapter.sees(agent):
        return True
    for member in run.lineage:
        member.note_ungoverned(f"agent {run.agent_name!r} ({adapter.name}): oao cannot see its model and tool calls")
    by = next((member for member in run.lineage if member.limits.require_governed), None)
    if by is None:
        return True
    denial = Deny(
        rule="require_governed",
        plugin="oao",
        reason=(
            f"agent {run.agent_name!r} is ungoverned: oao cannot see its model and tool calls; pass its tools "
            "(tools=[...]), mark them with @oao_harness.tool, or use a policy without require_governed"
        ),
    )
    yield from run.refusing(denial, n=None, by=by)
    return False


def execute_phase(run: Run) -> Steps[None]:
    """Enter EXECUTE and start the clock of the time limit."""
    yield from run.entering("EXECUTE")
    deadlines = [member.deadline for member in run.lineage[1:] if member.deadline is not None]
    if run.limits.timeout_s is not None:
        deadlines.append(run.clock.monotonic() + run.limits.timeout_s)
    if deadlines:
        run.deadline = min(deadlines)
    timeouts = [member.limits.call_timeout_s for member in run.lineage if member.limits.call_timeout_s is not None]
    if timeouts:
        run.call_timeout_s = min(timeouts)


def review(run: Run, ending: Ending | None, adapter: Adapter | None) -> Steps[ExecutionReport]:
    """Judge the output, settle, end the run and report.

    Args:
        run: A run in EXECUTE, or one that PLAN refused.
        ending: How the agent's code ended; None where it never ran.
        adapter: Finds the output in what the agent returned; None takes the result itself.
    """
    if not run.ends_by("itself"):
        return _report(run, None, halt_text(run.require_halt()))
    held = next((one.halted for one in run.lineage if isinstance(one.halted, RunSuspended)), None)
    if held is not None and not (run.node and ending is not None and ending.done and not run.turned_away):
        # Also where the agent swallowed that its calls were refused, and seems to be done: it will go on. A part that
        # asked for nothing more is done.
        run.latch(held)
    _try_again(run, ending)
    if isinstance(run.halted, RunSuspended):
        return (yield from _suspended(run))
    output: Json = None
    error: str | None = None
    if run.lifecycle.state == "INIT":
        # The journal failed before PLAN was entered.
        run.lifecycle.enter("PLAN")
    if run.lifecycle.state == "EXECUTE":
        yield from run.entering("REVIEW")
        if ending is not None and isinstance(ending.error, RunHalted):
            # Raised by the agent itself, or by an outer run: a halt is a halt.
            yield from run.halting(ending.error)
            if isinstance(run.halted, RunSuspended):
                return (yield from _suspended(run))
        if run.halted is None and ending is not None:
            error = _error_text(ending)
            unplayed = run.must_play.unplayed_text() if run.must_play is not None and error is None else None
            if unplayed is not None:
                yield from run.halting(ReplayDiverged(unplayed, rule="replay", plugin="oao", kind="unplayed"))
            elif error is None:
                found = adapter.output(ending.result) if adapter is not None else ending.result
                output = as_json(found)
                yield from _judge_output(run, output)
    yield from run.entering("TERMINATE")
    # The gate is shut before the report is made: what is still running cannot be denied behind its back.
    run.close()
    if run.halted is not None:
        error, output = halt_text(run.halted), None
    report = _report(run, output, error)
    if error is None and ending is not None:
        report.keep_result(ending.result)
    yield from _finished(run, report.status, report.error, report.final_output)
    return _as_written(run, report)


def _try_again(run: Run, ending: Ending | None) -> None:
    """Leave a run open whose agent failed, where it is to be tried again."""
    if run.halted is None and ending is not None and ending.error is not None:
        again = requeued(run, ending.error)
        if again is not None:
            put_down(run, again)


def _as_written(run: Run, report: ExecutionReport) -> ExecutionReport:
    """Return a report after the last record was written, with what came of that."""
    late: dict[str, object] = {}
    if run.unwritten is not None and report.error is None:
        # A success that the journal does not hold is none.
        late = {"status": "FAILED", "error": halt_text(run.unwritten), "final_output": None}
        report.keep_result(None)
    if len(report.ungoverned) != len(run.ungoverned):
        late["ungoverned"] = list(run.ungoverned)
    return report.model_copy(update=late) if late else report


def _suspended(run: Run) -> Steps[ExecutionReport]:
    """Leave the run open: it waits for a person, and its journal says for what."""
    context.closed(run)
    if run.requeued is not None:
        fields = run.requeued.fields(run.clock.time())
        type_ = "run.suspended" if run.requeued.dead else "run.queued"
        run.write_if_possible(type_, {**fields, "totals": cast("Json", dict(run.budget.snapshot()))})
        run.close()
        yield from _told_paused(run, "DEAD" if run.requeued.dead else "QUEUED", run.requeued.reason)
        return _report(run, None, run.requeued.reason, status="SUSPENDED" if run.requeued.dead else "QUEUED")
    pending = run.questions.pending(run.clock.time())
    suspended: dict[str, Json] = {
        "reason": run.require_halt().reason,
        "approvals": [question.request.id for question in pending],
        "totals": cast("dict[str, Json]", dict(run.budget.snapshot())),
    }
    if run.waiting:
        suspended["inside"] = list(run.waiting)
    if run.doubts:
        suspended["in_doubt"] = [doubt.n for doubt in run.doubts]
    run.write_if_possible("run.suspended", suspended)
    run.close()
    yield from _told_paused(run, "SUSPENDED", run.require_halt().reason)
    if run.unwritten is not None:
        return _report(run, None, halt_text(run.unwritten))
    return _report(run, None, None, status="SUSPENDED")


def _told_paused(run: Run, status: str, reason: str) -> Steps[None]:
    if run.hooks.heard("oao_run_paused") and not run.is_served:
        lost = run.unwritten is not None
        event = RunPaused(
            execution_id=run.execution_id,
            status="LOST" if lost else status,
            reason=reason,
            totals=cast("dict[str, Json]", freeze(cast("Json", dict(run.budget.snapshot())))),
        )
        yield from observe(run.hooks, "oao_run_paused", {"event": event, "run": run})


def suspended_report(run: Run) -> ExecutionReport:
    """Return the report of a run that still waits: nothing of it was started."""
    run.halted = RunSuspended("waits for a person")
    return _report(run, None, None, status="SUSPENDED")


def _judge_output(run: Run, output: Json) -> Steps[None]:
    for member in run.lineage:
        if not member.hooks.heard("oao_decide_output"):
            continue
        decision = yield from decide(member.hooks, "oao_decide_output", {"output": freeze(output), "run": run})
        if not isinstance(decision, Allow):
            yield from run.refusing(as_denial(decision, f"an output {_ONLY}"), n=None, by=member)
            return


def _finished(run: Run, status: str, error: str | None, output: Json) -> Steps[None]:
    context.closed(run)
    totals = cast("dict[str, Json]", dict(run.budget.snapshot()))
    finished: dict[str, Json] = {"status": status, "error": error, "output": output, "totals": totals}
    yield from run.writing_if_possible("run.finished", finished)
    if run.is_lost:
        yield from _told_paused(run, "LOST", run.require_halt().reason)
    elif run.hooks.heard("oao_run_finished") and not run.is_served:
        event = RunFinished(
            execution_id=run.execution_id, status=status, error=error, totals=cast("dict[str, Json]", freeze(totals))
        )
        yield from observe(run.hooks, "oao_run_finished", {"event": event, "run": run})


def give_up(run: Run, halt: RunHalted) -> Steps[ExecutionReport | None]:
    """End and report a run whose code cannot be stopped, from outside of it; what still runs may do nothing more.

    Args:
        run: The run.
        halt: Why.

    Returns:
        The report; None where the run ends by itself, or is suspended: then it goes on some other time.
    """
    if isinstance(run.halted, RunSuspended) or not run.ends_by("host"):
        return None
    yield from run.halting(halt)
    run.close()
    # Whoever awaited it is not waited for.
    run.group = None
    yield from _finished(run, "FAILED", halt_text(run.require_halt()), None)
    run.muted = True
    return _report(run, None, halt_text(run.require_halt()))


def abort(run: Run, error: BaseException) -> Steps[None]:
    """End a run whose machine broke or whose caller left; what can still be written is written.

    One that was interrupted from the keyboard is suspended: whoever did that may want it to go on later.
    """
    context.closed(run)
    if run.closed or not run.ends_by("itself"):
        return
    if isinstance(error, KeyboardInterrupt):
        run.latch(interruption())
    if run.writer is not None and isinstance(run.halted, RunSuspended):
        yield from _suspended(run)
        return
    run.latch(RunHalted(f"aborted: {error_line(error)}", rule="aborted", plugin="oao"))
    # Nothing is awaited any more.
    run.group = None
    run.close()
    if run.writer is not None:
        yield from _finished(run, "FAILED", halt_text(run.require_halt()), None)


def _error_text(ending: Ending) -> str | None:
    if ending.error is not None:
        return as_text(error_line(ending.error))
    return None if ending.done else "the agent did not end"


def halt_text(halt: RunHalted) -> str:
    """Return why a run was halted, one line: the rule and the reason."""
    line = as_text(halt.reason.partition("\n")[0])
    return f"{halt.rule}: {line}" if halt.rule and not line.startswith(halt.rule) else line


def _report(
    run: Run,
    output: Json,
    error: str | None,
    *,
    status: Literal["SUCCESS", "FAILED", "SUSPENDED", "QUEUED"] | None = None,
) -> ExecutionReport:
    totals, halt = run.budget.totals, run.halted
    violation: dict[str, object] | None = None
    if halt is not None and status not in {"SUSPENDED", "QUEUED"}:
        violation = {"rule": halt.rule, "plugin": halt.plugin, "reason": halt.reason}
        if halt.source:
            violation["source"] = halt.source
        if halt.n is not None:
            violation["n"] = halt.n
    # Fields of few runs are passed only where they say something: pydantic keeps the names of those that it was given.
    told: dict[str, object] = {
        "approvals": [request_fields(one.request) for one in run.questions.pending(run.clock.time())],
        "in_doubt": [doubt_fields(doubt) for doubt in run.doubts],
        "observed": list(run.observed),
        "ungoverned": list(run.ungoverned),
        "violation": violation,
        "tokens_estimated": totals.estimated,
    }
    return ExecutionReport(
        **{name: value for name, value in told.items() if value},  # type: ignore[arg-type]
        execution_id=run.execution_id,
        agent_name=run.agent_name,
        status=status or ("SUCCESS" if error is None else "FAILED"),
        error=error,
        total_tokens=totals.tokens,
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        total_steps=totals.steps,
        model_calls=totals.model_calls,
        cost_usd=None if totals.cost is None else totals.cost_usd,
        tool_calls=totals.tool_calls,
        state_history=list(run.lifecycle.history),
        tool_usage=dict(totals.tool_usage),
        execution_time_seconds=max(0.0, run.clock.monotonic() - run.started),
        final_output=output,
        timestamp=dt.datetime.fromtimestamp(run.started_at, dt.UTC),
        execution_hash=digest([run.fingerprint, *(part for call in run.calls for part in call)]),
    )


def _describe(policy: object) -> str:
    if type(policy).__repr__ is not object.__repr__:
        return repr(policy)
    name = getattr(policy, "name", None)
    return name if isinstance(name, str) else type(policy).__qualname__


def _limits_to_json(limits: Limits) -> Mapping[str, Json]:
    return {
        key: value if type(value) is int and value < 2**63 else as_json(value)
        for key, value in zip(Limits.__slots__, _LIMITS(limits), strict=True)
        if value is not None and value is not False and value != {}
    }
