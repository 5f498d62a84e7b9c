"""What spans and their events say about runs, calls and decisions, as attributes."""

from __future__ import annotations

from typing import TypeAlias

from oao_harness.listeners import content
from oao_harness.listeners import conventions as names
from oao_hookspecs import (
    Allow,
    ApprovalAnswer,
    ApprovalRequest,
    CallDecided,
    CallFinished,
    CallRetried,
    Decision,
    Deny,
    ModelCall,
    Modify,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    RunView,
    StepStarted,
    ViolationFound,
)

__all__ = [
    "Attributes",
    "answered",
    "asked",
    "call_asked",
    "call_denied",
    "call_ended",
    "decision",
    "denial",
    "guardrail",
    "held_call",
    "is_graph",
    "node",
    "retry",
    "run_began",
    "run_ended",
    "step",
    "stopped",
    "violation",
]

Attributes: TypeAlias = dict[str, str | bool | int | float]

_FAILED = frozenset({"FAILED", "DEAD", "LOST"})


def is_graph(event: RunStarted | RunResumed) -> bool:
    """Return True for the run of a workflow."""
    return event.adapter == "graph"


def run_began(event: RunStarted | RunResumed, run: RunView) -> Attributes:
    """Describe a run that begins or goes on."""
    kind: names.Kind = "workflow" if is_graph(event) else "agent"
    found: Attributes = {
        **names.kind_attributes(kind),
        names.EXECUTION_ID: event.execution_id,
        names.CONVERSATION: event.execution_id,
        names.AGENT: event.agent_name,
        names.ADAPTER: event.adapter,
        names.RESUMED: isinstance(event, RunResumed),
    }
    if is_graph(event):
        found[names.WORKFLOW_NAME] = event.agent_name
    else:
        found |= {names.AGENT_NAME: event.agent_name, names.AGENT_ID: event.agent_name}
    if event.parent is not None:
        found[names.PARENT] = event.parent
    if event.node:
        found[names.NODE] = event.node
    if run.principal is not None:
        found[names.USER] = run.principal.id
        if run.principal.tenant:
            found[names.TENANT] = run.principal.tenant
    if isinstance(event, RunStarted):
        if event.waited_s is not None:
            found[names.WAITED] = event.waited_s
        if names.captures_content():
            found |= content.task_attributes(event.task)
    return found


def node(event: RunStarted | RunResumed) -> Attributes:
    """Describe the span around a part of a graph."""
    return {
        **names.kind_attributes("node"),
        names.NODE: event.node,
        names.EXECUTION_ID: event.execution_id,
        names.PARENT: event.parent or "",
    }


def run_ended(event: RunPaused | RunFinished, run: RunView, rule: str) -> tuple[Attributes, str | None]:
    """Describe how a run ended or was put down, and what its status says where it failed.

    Args:
        event: The end.
        run: The run.
        rule: The rule that stopped it; empty for none.
    """
    found: Attributes = {names.STATUS: event.status, names.COST: run.cost_usd}
    for name, total in event.totals.items():
        if isinstance(total, int | float) and name != "cost_usd":
            found[names.TOTALS + name] = total
    found |= {names.INPUT_TOKENS: run.input_tokens, names.OUTPUT_TOKENS: run.output_tokens}
    said = event.reason if isinstance(event, RunPaused) else event.error
    text = content.scrubbed(said or "")
    if isinstance(event, RunPaused):
        found[names.ERROR] = text
    if event.status not in _FAILED:
        return found, None
    found |= {names.ERROR: text, names.ERROR_TYPE: rule or _class_in(text)}
    return found, text


def step(event: StepStarted) -> Attributes:
    """Describe a step of the agent's framework."""
    return {
        **names.kind_attributes("step"),
        names.EXECUTION_ID: event.execution_id,
        names.STEP: event.index,
        names.STEP_NAME: event.name,
    }


def call_asked(event: CallDecided) -> Attributes:
    """Describe a call that was decided."""
    call = event.call
    found: Attributes = {names.EXECUTION_ID: event.execution_id, names.CALL: event.n}
    found[names.CONVERSATION] = event.execution_id
    if isinstance(call, ModelCall):
        found |= {**names.kind_attributes("model"), names.REQUEST_MODEL: call.name}
        found |= content.request_attributes(call)
        if (provider := names.provider_of(call.name)) is not None:
            found[names.PROVIDER] = provider
    else:
        found |= {**names.kind_attributes("tool"), names.TOOL_NAME: call.name, names.TOOL_TYPE: "function"}
        if call.call_id is not None:
            found[names.TOOL_CALL_ID] = call.call_id
        if call.effect is not None:
            found[names.EFFECT] = call.effect
    if names.captures_content():
        found |= content.asked_attributes(call)
    return found


def call_denied(denial_: Deny) -> Attributes:
    """Describe the end of a call that must not happen."""
    return {names.CALL_STATUS: "denied", names.ERROR_TYPE: denial_.rule}


def denial(denial_: Deny) -> str:
    """Return what the status of a denied call says."""
    return f"denied by {denial_.rule}: {content.scrubbed(denial_.reason)}"


def call_ended(event: CallFinished) -> tuple[Attributes, str | None]:
    """Describe how a call ended, and what its status says where it failed."""
    outcome, call = event.outcome, event.call
    found: Attributes = {names.CALL_STATUS: "ok" if outcome.error is None else "failed"}
    if outcome.attempts > 1:
        found[names.ATTEMPTS] = outcome.attempts
    if outcome.usage is not None:
        found |= {
            names.INPUT_TOKENS: outcome.usage.input_tokens,
            names.OUTPUT_TOKENS: outcome.usage.output_tokens,
            names.ESTIMATED: outcome.usage.estimated,
        }
    if isinstance(call, ModelCall):
        found[names.RESPONSE_MODEL] = content.response_model(outcome) or call.name
    if names.captures_content():
        found |= content.ended_attributes(call, outcome)
    if outcome.error is None:
        return found, None
    found[names.ERROR_TYPE] = outcome.error.type.removeprefix("builtins:").replace(":", ".")
    return found, content.scrubbed(outcome.error.message)


def decision(found: Decision) -> Attributes:
    """Describe a decision."""
    said: Attributes = {names.VERDICT: found.verdict, names.RULE: found.rule, names.PLUGIN: found.plugin}
    plain = isinstance(found, Allow) and not found.would
    said[names.REASON] = found.reason if plain and found.rule == "default" else content.scrubbed(found.reason)
    if found.source:
        said[names.SOURCE] = found.source
    if isinstance(found, Allow) and found.would:
        said[names.WOULD] = found.would
    return said


def guardrail(found: Decision, subject: str) -> Attributes:
    """Describe a decision that is a span of its own.

    Args:
        found: The decision.
        subject: What it is about, for example `tool send`.
    """
    said = decision(found) | names.kind_attributes("guardrail") | {names.SUBJECT: subject}
    if isinstance(found, Modify) and names.captures_content():
        said |= content.asked_attributes(found.call)
    return said


def held_call(request: ApprovalRequest) -> Attributes:
    """Describe the decision to ask a person, as a span of its own."""
    said = asked(request) | names.kind_attributes("guardrail")
    return said | {names.VERDICT: "ask", names.SUBJECT: f"{request.kind} {request.tool}"}


def asked(request: ApprovalRequest) -> Attributes:
    """Describe a question to a person."""
    said: Attributes = {names.APPROVAL: request.id, names.TOOL_NAME: request.tool, names.RULE: request.rule}
    said[names.REASON] = content.scrubbed(request.reason)
    if request.source:
        said[names.SOURCE] = request.source
    return said


def answered(request: ApprovalRequest, answer: ApprovalAnswer) -> Attributes:
    """Describe the answer to a question."""
    return {
        names.APPROVAL: request.id,
        names.TOOL_NAME: request.tool,
        names.ANSWER: answer.verdict,
        names.APPROVED_BY: answer.by.id,
    }


def retry(event: CallRetried) -> Attributes:
    """Describe a try that failed."""
    return {
        names.RETRY_ATTEMPT: event.attempt,
        names.RETRY_DELAY: event.delay_s,
        names.ERROR: content.scrubbed(event.error),
    }


def violation(event: ViolationFound) -> Attributes:
    """Describe what stopped a run."""
    found: Attributes = {names.RULE: event.rule, names.PLUGIN: event.plugin}
    found[names.REASON] = content.scrubbed(event.reason)
    if event.n is not None:
        found[names.CALL] = event.n
    return found


def stopped(event: ViolationFound) -> Attributes:
    """Describe what stopped a run, as a span of its own."""
    return violation(event) | names.kind_attributes("guardrail") | {names.VERDICT: "deny", names.SUBJECT: "run"}


def _class_in(error: str) -> str:
    """Return the class or the rule that an error's line begins with."""
    first = error.partition(":")[0]
    return first if first.replace(".", "").replace("_", "").replace("-", "").isalnum() else "_OTHER"
