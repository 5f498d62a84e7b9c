"""Hooks of the deciding mode: they may be `def` or `async def`.

An error, a timeout, or an answer that is not a decision means Deny (fail closed). The strictest answer wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oao_hookspecs._markers import hookspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from oao_hookspecs.approvals import ApprovalAnswer, ApprovalRequest
    from oao_hookspecs.calls import Json, ModelCall, Outcome, ToolCall
    from oao_hookspecs.decisions import Decision
    from oao_hookspecs.interfaces import RunView


@hookspec
def oao_decide_run(run: RunView) -> Decision | None | Awaitable[Decision | None]:
    """Judge the task before the agent starts.

    Asked once per run, in PLAN. `Deny` and `Ask` refuse the run: it ends FAILED without having entered
    EXECUTE. None is no opinion.

    Args:
        run: The run, its agent's name and its task.

    Mode: decide.
    """


@hookspec
def oao_decide_model_call(call: ModelCall, run: RunView) -> Decision | None | Awaitable[Decision | None]:
    """Judge a request to a model before it is sent.

    Asked once for every model call, on replay too. `Deny` halts the run; None is no opinion.

    Args:
        call: The request as the provider would see it.
        run: The run so far.

    Mode: decide.
    """


@hookspec
def oao_decide_tool_call(call: ToolCall, run: RunView) -> Decision | None | Awaitable[Decision | None]:
    """Judge a tool call before its body runs.

    Asked once for every tool call, on replay too, and again where a later policy modified it (with the same
    `call.id`); and before that for each call of a batch that a model proposes (`call.proposed`), so that no sibling
    of a denied call starts. `Deny` halts the run; `Ask` holds the call until a person answers; `Modify` changes the
    arguments; None is no opinion.

    Args:
        call: Name, arguments and, where a model asked for it, the call id.
        run: The run so far.

    Mode: decide.
    """


@hookspec
def oao_decide_batch(calls: Sequence[ToolCall], run: RunView) -> Decision | None | Awaitable[Decision | None]:
    """Judge the tool calls of one answer of a model together, before any of them starts.

    Asked once for every answer that asks for two calls or more, on replay too, after each of them was judged alone.
    They start in chance order, so a policy that cares for order must answer as for the worst. `Deny` halts the
    run; `Ask` and `Modify` are refused here; None is no opinion.

    Args:
        calls: The calls in the order of the answer, each `proposed`.
        run: The run so far.

    Mode: decide.
    """


@hookspec
def oao_answer_approval(
    request: ApprovalRequest, run: RunView
) -> ApprovalAnswer | None | Awaitable[ApprovalAnswer | None]:
    """Answer the question of a held call at once, in place of a person who answers later.

    Asked once for every held call. The first answer that is not None counts; an error is a `Reject`. Where nobody
    answers, the run is suspended.

    Args:
        request: The call, and which rule holds it.
        run: The run so far.

    Mode: decide.
    """


@hookspec
def oao_redact_result(call: ToolCall, value: Json, run: RunView) -> Json | Awaitable[Json]:
    """Take out of a tool's result what neither the agent nor the journal may see.

    Asked once for every tool call that succeeded live, before its outcome is journaled. Each implementation is
    handed what the one before left; it returns the value, changed or not. An error withholds the result and
    halts the run.

    Args:
        call: The call as it was made.
        value: Its encoded result.
        run: The run so far.

    Mode: decide.
    """


@hookspec
def oao_decide_outcome(
    call: ModelCall | ToolCall, outcome: Outcome, run: RunView
) -> Decision | None | Awaitable[Decision | None]:
    """Judge what a call returned before the agent sees it.

    Asked once for every finished call, on replay too, after the outcome is journaled. `Deny` and `Ask` halt the
    run; `Modify` is refused here; None is no opinion.

    Args:
        call: The call as it was made.
        outcome: Its encoded value or its error, and its tokens.
        run: The run so far, this call included.

    Mode: decide.
    """


@hookspec
def oao_decide_output(output: Json, run: RunView) -> Decision | None | Awaitable[Decision | None]:
    """Judge the agent's final output.

    Asked once per run that was not halted, in REVIEW. `Deny` and `Ask` make the run FAILED and withhold the
    output from the report; None is no opinion.

    Args:
        output: The encoded final output.
        run: The run, all calls included.

    Mode: decide.
    """
