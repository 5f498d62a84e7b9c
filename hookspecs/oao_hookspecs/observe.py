"""Hooks of the observing mode: they may be `def` or `async def`, and hear what is already journaled.

An error or a timeout is logged once with the plugin's name, and that observer is muted; the run goes on (fail open).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oao_hookspecs._markers import hookspec

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from oao_hookspecs.events import (
        ApprovalAnswered,
        ApprovalRequested,
        CallDecided,
        CallFinished,
        CallRetried,
        RunFinished,
        RunPaused,
        RunResumed,
        RunStarted,
        StateEntered,
        StepStarted,
        ViolationFound,
    )
    from oao_hookspecs.interfaces import RunView


@hookspec
def oao_run_started(event: RunStarted, run: RunView) -> None | Awaitable[None]:
    """Hear that a run was opened.

    Called once per run, first of all events. The return value is ignored.

    Args:
        event: Execution id, agent and task.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_run_resumed(event: RunResumed, run: RunView) -> None | Awaitable[None]:
    """Hear that a run goes on that was suspended, queued again, or interrupted.

    Called once per time that it goes on, in place of `oao_run_started`. The return value is ignored.

    Args:
        event: Execution id, agent, and where it was traced.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_state_entered(event: StateEntered, run: RunView) -> None | Awaitable[None]:
    """Hear that the run entered a state of its lifecycle.

    Called once per state and run. The return value is ignored.

    Args:
        event: The state.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_step_started(event: StepStarted, run: RunView) -> None | Awaitable[None]:
    """Hear that the agent's framework began a step of its own.

    Called once per step, only for frameworks that have steps. The return value is ignored.

    Args:
        event: Number and name of the step.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_call_decided(event: CallDecided, run: RunView) -> None | Awaitable[None]:
    """Hear that a call was judged; it has not happened yet.

    Called once per call, on replay too. The return value is ignored.

    Args:
        event: The call and the decision.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_approval_requested(event: ApprovalRequested, run: RunView) -> None | Awaitable[None]:
    """Hear that a call is held until a person answers.

    Called once per question. The return value is ignored.

    Args:
        event: The question.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_approval_answered(event: ApprovalAnswered, run: RunView) -> None | Awaitable[None]:
    """Hear that a question was answered at once, by a plugin; answers given later are in the journal.

    Called once per such answer. The return value is ignored.

    Args:
        event: The question and the answer.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_call_retried(event: CallRetried, run: RunView) -> None | Awaitable[None]:
    """Hear that a call failed for a transient cause and will be tried again.

    Called once per failed try. The return value is ignored.

    Args:
        event: The error and the delay.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_call_finished(event: CallFinished, run: RunView) -> None | Awaitable[None]:
    """Hear that a call ended.

    Called once per call that was allowed, on replay too (`event.outcome.replayed`). The return value is ignored.

    Args:
        event: The call and its outcome.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_violation(event: ViolationFound, run: RunView) -> None | Awaitable[None]:
    """Hear that a policy, a budget or a replay stopped the run.

    Called at most once per run: the first violation halts it. The return value is ignored.

    Args:
        event: Rule, plugin and reason.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_run_paused(event: RunPaused, run: RunView) -> None | Awaitable[None]:
    """Hear that this process puts a run down that is not over: it waits for a person, or for a worker.

    Called once per time, last of all events until it goes on. The return value is ignored.

    Args:
        event: Why, and the totals so far.
        run: The run.

    Mode: observe.
    """


@hookspec
def oao_run_finished(event: RunFinished, run: RunView) -> None | Awaitable[None]:
    """Hear that a run is over.

    Called once per run, last of all events. The return value is ignored.

    Args:
        event: Status, error and totals.
        run: The run.

    Mode: observe.
    """
