"""Every name that a trace of oao uses: of spans, events and attributes. Pure, and the only place that spells them.

The conventions for generative AI are still in development: what changes there is changed here and nowhere else.
Sources: opentelemetry-semantic-conventions 0.66b2 (`gen_ai.*`, `error.type`), Langfuse 5 (`langfuse.*`),
OpenInference 0.1 (`openinference.*`, `input.value`, `output.value`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

__all__ = [
    "Kind",
    "agent_span",
    "captures_content",
    "kind_attributes",
    "model_span",
    "provider_of",
    "step_span",
    "tool_span",
    "workflow_span",
]

Kind: TypeAlias = Literal["agent", "workflow", "node", "step", "model", "tool", "guardrail"]
"""What a span stands for."""

SCOPE: Final = "oao"
NODE_SPAN: Final = "dag.schedule_task"
GUARDRAIL_SPAN: Final = "guardrail"

# Generative AI
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
TEMPERATURE: Final = "gen_ai.request.temperature"
TOP_P: Final = "gen_ai.request.top_p"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
AGENT_NAME: Final = "gen_ai.agent.name"
AGENT_ID: Final = "gen_ai.agent.id"
WORKFLOW_NAME: Final = "gen_ai.workflow.name"
CONVERSATION: Final = "gen_ai.conversation.id"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
ERROR_TYPE: Final = "error.type"
# Only where content is opted in
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
INPUT_VALUE: Final = "input.value"
OUTPUT_VALUE: Final = "output.value"

# What the tools that show traces ask for
LANGFUSE_TYPE: Final = "langfuse.observation.type"
OPENINFERENCE_KIND: Final = "openinference.span.kind"
SESSION: Final = "session.id"
USER: Final = "user.id"

# Our own
EXECUTION_ID: Final = "oao.execution_id"
AGENT: Final = "oao.agent"
ADAPTER: Final = "oao.adapter"
NODE: Final = "oao.node"
PARENT: Final = "oao.parent"
TENANT: Final = "oao.tenant"
WAITED: Final = "oao.queue.waited_s"
RESUMED: Final = "oao.resumed"
STATUS: Final = "oao.status"
ERROR: Final = "oao.error"
COST: Final = "oao.cost_usd"
TOTALS: Final = "oao.total."
STEP: Final = "oao.step.index"
STEP_NAME: Final = "oao.step.name"
CALL: Final = "oao.call.n"
CALL_STATUS: Final = "oao.call.status"
ATTEMPTS: Final = "oao.call.attempts"
ESTIMATED: Final = "oao.usage.estimated"
EFFECT: Final = "oao.tool.effect"
VERDICT: Final = "oao.decision.verdict"
WOULD: Final = "oao.decision.would"
RULE: Final = "oao.decision.rule"
PLUGIN: Final = "oao.decision.plugin"
REASON: Final = "oao.decision.reason"
SOURCE: Final = "oao.decision.source"
SUBJECT: Final = "oao.decision.subject"
APPROVAL: Final = "oao.approval.id"
ANSWER: Final = "oao.approval.answer"
APPROVED_BY: Final = "oao.approval.by"
RETRY_ATTEMPT: Final = "oao.retry.attempt"
RETRY_DELAY: Final = "oao.retry.delay_s"

# Events on spans
DECISION_EVENT: Final = "oao.decision"
VIOLATION_EVENT: Final = "oao.violation"
ASKED_EVENT: Final = "oao.approval.requested"
ANSWERED_EVENT: Final = "oao.approval.answered"
RETRY_EVENT: Final = "oao.retry"

LINK_KIND: Final = "oao.link"
BEGAN_IN: Final = "began_in"
AROUND: Final = "around"

_LANGFUSE: Final[Mapping[Kind, str]] = {
    "agent": "agent",
    "workflow": "chain",
    "node": "chain",
    "step": "chain",
    "model": "generation",
    "tool": "tool",
    "guardrail": "guardrail",
}
_OPENINFERENCE: Final[Mapping[Kind, str]] = {
    "agent": "AGENT",
    "workflow": "CHAIN",
    "node": "CHAIN",
    "step": "CHAIN",
    "model": "LLM",
    "tool": "TOOL",
    "guardrail": "GUARDRAIL",
}
_OPERATIONS: Final[Mapping[Kind, str]] = {
    "agent": "invoke_agent",
    "workflow": "invoke_workflow",
    "model": "chat",
    "tool": "execute_tool",
}
# Names that a model id may begin with, and the conventions' word for who serves it. A gateway may say otherwise.
_PROVIDERS: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "google": "gcp.gemini",
    "groq": "groq",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "openai": "openai",
    "perplexity": "perplexity",
    "vertex_ai": "gcp.vertex_ai",
    "xai": "x_ai",
}
_FAMILIES: Final[Mapping[str, str]] = {
    "claude-": "anthropic",
    "command-": "cohere",
    "deepseek-": "deepseek",
    "gemini-": "gcp.gemini",
    "gpt-": "openai",
    "grok-": "x_ai",
    "mistral-": "mistral_ai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
}
_CONTENT: Final = frozenset({"true", "1", "span_only", "span_and_event"})


def _is_latest() -> bool:
    chosen = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "")
    return "gen_ai_latest_experimental" in (one.strip().lower() for one in chosen.split(","))


def captures_content() -> bool:
    """Return True where tasks, messages, arguments and results may be in spans. Events of logs are not emitted."""
    return os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").strip().lower() in _CONTENT


def agent_span(agent: str) -> str:
    """Return the name of an agent's run."""
    return f"invoke_agent {agent}".rstrip() if _is_latest() else "orchestrator.run"


def workflow_span(name: str) -> str:
    """Return the name of a graph's run."""
    return f"invoke_workflow {name}".rstrip() if _is_latest() else "dag.execute"


def tool_span(tool: str) -> str:
    """Return the name of a tool call."""
    return f"execute_tool {tool}".rstrip() if _is_latest() else "tool.execute"


def model_span(model: str) -> str:
    """Return the name of a model call."""
    return f"chat {model}".rstrip()


def step_span(index: int) -> str:
    """Return the name of a step of the agent's framework."""
    return f"oao.step.{index}"


def kind_attributes(kind: Kind) -> dict[str, str]:
    """Return what says to each tool what a span stands for."""
    found = {LANGFUSE_TYPE: _LANGFUSE[kind], OPENINFERENCE_KIND: _OPENINFERENCE[kind]}
    if kind in _OPERATIONS:
        found[OPERATION] = _OPERATIONS[kind]
    return found


def provider_of(model: str) -> str | None:
    """Return who serves a model as far as its id tells, or None."""
    lowered = model.lower()
    for sign in ("/", ":", "."):
        before, found, _ = lowered.partition(sign)
        if found and before in _PROVIDERS:
            return _PROVIDERS[before]
    return next((provider for family, provider in _FAMILIES.items() if lowered.startswith(family)), None)
