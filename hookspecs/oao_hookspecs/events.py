"""Events: what an observer is told, after it was journaled. `NAME` is the event's familiar name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from oao_hookspecs.approvals import ApprovalAnswer, ApprovalRequest
from oao_hookspecs.calls import Call, Json, Outcome
from oao_hookspecs.decisions import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run was opened; nothing of the agent has run."""

    NAME: ClassVar = "EXECUTION_STARTED"
    execution_id: str
    agent_name: str
    task: Json
    adapter: str = ""
    """How the agent is driven: `graph` for a workflow, else for example `function` or `langgraph`."""
    parent: str | None = None
    """Id of the run that it is nested in."""
    node: str = ""
    """What that run calls it, where it is a named part of it."""
    traceparent: str = ""
    """W3C trace context of who submitted it to a queue."""
    waited_s: float | None = None
    """Seconds it waited for a worker; None for a run that was not queued."""
    replayed: bool = False
    """True where a recording is played: nothing of it happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed:
    """A run that was put down goes on in this process; its finished calls are served first."""

    NAME: ClassVar = "EXECUTION_RESUMED"
    execution_id: str
    agent_name: str
    adapter: str = ""
    parent: str | None = None
    node: str = ""
    traceparent: str = ""
    """W3C trace context of who submitted it to a queue; see `RunStarted`."""
    began_in: str = ""
    """W3C trace context that the run itself had when it began; empty where nobody traced it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateEntered:
    """The run moved to another state of its lifecycle."""

    NAME: ClassVar = "STATE_ENTER"
    execution_id: str
    state: str
    """INIT, PLAN, EXECUTE, REVIEW or TERMINATE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """The agent's framework began a step of its own, for example a LangGraph superstep."""

    NAME: ClassVar = "STEP_STARTED"
    execution_id: str
    index: int
    """Number of the step in the run, from 1."""
    name: str
    """What the framework calls it, for example the names of the nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDecided:
    """A call was judged and written; it has not happened yet, and will not if the decision denies it."""

    NAME: ClassVar = "TOOL_CALL"
    execution_id: str
    n: int
    """Number of the call in the run, from 1."""
    call: Call
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequested:
    """A call is held, and the question to a person is written."""

    NAME: ClassVar = "APPROVAL_REQUESTED"
    execution_id: str
    request: ApprovalRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAnswered:
    """A question was answered, and the answer is written; a rejection halts the run."""

    NAME: ClassVar = "APPROVAL_ANSWERED"
    execution_id: str
    request: ApprovalRequest
    answer: ApprovalAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRetried:
    """A call failed for a transient cause and will be tried again."""

    NAME: ClassVar = "RETRY_ATTEMPTED"
    execution_id: str
    n: int
    attempt: int
    """The try that failed, from 1."""
    delay_s: float
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished:
    """A call ended and its outcome was written."""

    NAME: ClassVar = "TOOL_CALL_FINISHED"
    execution_id: str
    n: int
    call: Call
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ViolationFound:
    """A policy, a budget or a replay stopped the run."""

    NAME: ClassVar = "POLICY_VIOLATION"
    execution_id: str
    rule: str
    plugin: str
    reason: str
    n: int | None = None
    """Number of the call that was refused; None where no single call is to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPaused:
    """This process does nothing more for a run that is not over."""

    NAME: ClassVar = "EXECUTION_PAUSED"
    execution_id: str
    status: str
    """SUSPENDED (waits for a person), QUEUED (is tried again, maybe elsewhere), DEAD (a dead letter), or LOST (another
    process has it, or its journal cannot be written)."""
    reason: str
    totals: Mapping[str, Json] = field(default_factory=dict[str, Json])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The run is over and its journal is complete."""

    NAME: ClassVar = "EXECUTION_COMPLETE"
    execution_id: str
    status: str
    """SUCCESS or FAILED."""
    error: str | None
    totals: Mapping[str, Json] = field(default_factory=dict[str, Json])


Event: TypeAlias = (
    RunStarted
    | RunResumed
    | StateEntered
    | StepStarted
    | CallDecided
    | ApprovalRequested
    | ApprovalAnswered
    | CallRetried
    | CallFinished
    | ViolationFound
    | RunPaused
    | RunFinished
)
