"""What requests and answers look like: the schemas of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from oao_harness.fleet.status import JobStatus
from oao_harness.runtime.report import ExecutionReport
from oao_hookspecs import ApprovalRequest, RunSummary

__all__ = [
    "AgentRow",
    "AnswerRequest",
    "AnswerResult",
    "ApprovalRow",
    "CoverageAnswer",
    "DeadlineRequest",
    "DoubtRow",
    "ForkRequest",
    "JobRequest",
    "JobRow",
    "JobSubmitted",
    "PolicyDiffRequest",
    "PolicyRow",
    "QueueRow",
    "RejectRequest",
    "ResolveRequest",
    "RunDetail",
    "RunMultiRequest",
    "RunPage",
    "RunRequest",
    "RunRow",
]

Name = Annotated[str, Field(min_length=1, max_length=100)]
PolicyName = Annotated[str, Field(min_length=1, max_length=500)]
Deadline = Annotated[float | None, Field(gt=0, le=86_400, description="Seconds that the run may take.")]
_STRICT: Final = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Request(BaseModel):
    model_config = _STRICT


class RunRequest(_Request):
    """A run of a registered agent."""

    agent: Name = Field(description="The name that the agent is registered by.")
    task: Any = Field(default=None, description="What it is asked: any JSON.")
    policy: list[PolicyName] = Field(
        default_factory=list,
        max_length=8,
        description="Policies that hold besides those of the agent, by name.",
    )
    deadline_s: Deadline = None


class RunMultiRequest(_Request):
    """Runs of several registered agents side by side."""

    agents: (
        Annotated[dict[Name, JsonValue], Field(min_length=1, max_length=100)]
        | Annotated[list[Name], Field(min_length=1, max_length=100)]
    ) = Field(description="Their names; or by name what each is asked, null for what all are asked.")
    task: Any = Field(default=None, description="What all are asked.")
    policy: list[PolicyName] = Field(default_factory=list, max_length=8, description="See `/run`.")
    max_concurrency: int = Field(default=5, ge=1, le=100, description="Agents at the same time.")
    deadline_s: Deadline = None


class DeadlineRequest(_Request):
    """How long a run may take that goes on, or is played again."""

    deadline_s: Deadline = None


class ForkRequest(_Request):
    """Where a fork begins, and what is otherwise in it."""

    at: Annotated[int, Field(ge=1, le=2**31)] | Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="Number of the first call that is made anew, or a node of a graph; by default where the run ended.",
    )
    result: Any = Field(default=None, description="What that call returns instead; only where it is given.")
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="The model that is asked from there on."
    )
    deadline_s: Deadline = None


class RunRow(BaseModel):
    """One row of the list of runs."""

    execution_id: str
    agent: str
    status: str = Field(description="QUEUED, RUNNING, SUSPENDED, DEAD, SUCCESS or FAILED.")
    started_at: float = Field(description="Unix seconds.")
    finished_at: float | None = Field(default=None, description="Unix seconds; null while it is open.")
    totals: dict[str, Any] | None = Field(default=None, description="Steps, calls, tokens, where they are known.")
    parent: str | None = Field(default=None, description="The run that it is nested in.")
    forked_from: str | None = Field(default=None, description="The run whose beginning it has.")
    tenant: str = ""

    @classmethod
    def of(cls, row: RunSummary) -> RunRow:
        """Return a row of a store as the API shows it."""
        return cls(
            execution_id=row.execution_id,
            agent=row.agent_name,
            status=row.status,
            started_at=row.started_at,
            finished_at=row.finished_at,
            totals=None if row.totals is None else dict(row.totals),
            parent=row.parent,
            forked_from=row.forked_from,
            tenant=getattr(row, "tenant", "") or "",
        )


class RunPage(BaseModel):
    """A page of the list of runs, the newest first."""

    runs: list[RunRow]
    next: str | None = Field(description="Path of the next page; null on the last one.")


class RunDetail(BaseModel):
    """A run, as far as it is."""

    execution_id: str
    agent: str
    status: str = Field(description="QUEUED, RUNNING, SUSPENDED, DEAD, SUCCESS or FAILED.")
    task: Any = Field(default=None, description="What it was asked.")
    principal: dict[str, Any] | None = Field(default=None, description="Who it acts for.")
    parent: str | None = None
    forked: dict[str, Any] | None = Field(default=None, description="Which run it was forked from, and where.")
    report: ExecutionReport = Field(description="How it went until now.")


class AgentRow(BaseModel):
    """An agent that may be run."""

    name: str
    source: str = Field(description="Where it is registered.")
    policies: list[str] = Field(description="What always holds for its runs.")
    slots: int = Field(description="Runs of it at once in this server.")
    taken: int | None = Field(description="How many there are; null for a caller of one tenant.")
    waiting: int | None = Field(description="How many more wait; null for a caller of one tenant.")


class ApprovalRow(BaseModel):
    """A held call, and where the question about it stands."""

    id: str
    execution_id: str
    agent: str
    tool: str
    kind: str
    arguments: dict[str, Any]
    rule: str
    reason: str
    source: str
    state: str = Field(description="pending, approved, rejected or expired.")
    approvers: list[str] = Field(description="Roles of those who may answer; empty for anybody.")
    needed: int = Field(description="How many different people must approve.")
    answers: int = Field(description="How many have answered.")
    requested_at: float = Field(description="Unix seconds.")
    expires_at: float = Field(description="Unix seconds.")
    principal: dict[str, Any] | None = Field(default=None, description="Who the run acts for.")

    @classmethod
    def of(cls, request: ApprovalRequest, state: str, answers: int) -> ApprovalRow:
        """Return a question as the API shows it."""
        who = request.principal
        return cls(
            id=request.id,
            execution_id=request.execution_id,
            agent=request.agent_name,
            tool=request.tool,
            kind=request.kind,
            arguments=dict(request.arguments),
            rule=request.rule,
            reason=request.reason,
            source=request.source,
            state=state,
            approvers=list(request.approvers),
            needed=request.needed,
            answers=answers,
            requested_at=request.requested_at,
            expires_at=request.expires_at,
            principal=None if who is None else {"id": who.id, "roles": list(who.roles), "tenant": who.tenant},
        )


class AnswerRequest(_Request):
    """An approval."""

    arguments: dict[str, JsonValue] | None = Field(
        default=None, description="Replaces those asked about; the policies judge the call again."
    )
    note: str = Field(default="", max_length=4000, description="Kept in the journal.")


class RejectRequest(_Request):
    """A refusal."""

    note: str = Field(default="", max_length=4000, description="Kept in the journal.")


class AnswerResult(BaseModel):
    """What became of an answer."""

    execution_id: str = Field(description="The run that it is for: the outermost one.")
    goes_on: bool = Field(description="True where the run goes on now.")
    why: str = Field(default="", description="Why it does not.")


class DoubtRow(BaseModel):
    """A call of which nobody knows whether it happened."""

    id: str
    execution_id: str
    n: int
    agent: str
    tool: str
    arguments: dict[str, Any]
    began_at: float = Field(description="Unix seconds.")


class ResolveRequest(_Request):
    """What became of a call in doubt."""

    landed: bool = Field(description="True: it happened. False: it did not, and is made again with the same key.")
    result: Any = Field(default=None, description="What it returned, where it happened.")
    note: str = Field(default="", max_length=4000, description="Kept in the journal.")


class PolicyRow(BaseModel):
    """A policy that a request may name."""

    name: str
    agents: list[str] = Field(description="Whose runs it always holds for.")
    is_file: bool = Field(description="True where it has rules whose coverage can be asked for.")
    rules: int


class CoverageAnswer(BaseModel):
    """What stored runs have exercised of a policy."""

    runs: int
    calls: int
    percent: float
    rules: list[dict[str, Any]]
    unruled: dict[str, int] = Field(description="Calls of tools that no rule is about.")


class PolicyDiffRequest(_Request):
    """Two policies, to be laid beside the newest stored runs."""

    before: list[PolicyName] = Field(min_length=1, max_length=8, description="The policies as they are, by name.")
    after: list[PolicyName] = Field(default_factory=list, max_length=8, description="As they would be, by name.")
    document: str | None = Field(default=None, max_length=200_000, description="As it would be: a policy file's text.")
    agent: Annotated[str, Field(max_length=100)] = Field(default="", description="Only runs of this agent.")
    limit: int = Field(default=200, ge=1, le=2000, description="How many runs.")


class JobRequest(_Request):
    """A job: a run that waits for a worker."""

    agent: Name
    task: Any = None
    policy: list[PolicyName] = Field(default_factory=list, max_length=8, description="See `/run`.")
    priority: Literal["high", "normal", "low"] = "normal"
    delay_s: float = Field(default=0.0, ge=0, le=31_536_000, description="Seconds before which no worker begins.")
    retries: int | None = Field(default=None, ge=0, le=1000, description="How often it is tried again.")


class JobSubmitted(BaseModel):
    """A job that is not lost any more."""

    execution_id: str


class JobRow(BaseModel):
    """How far a job is."""

    execution_id: str
    agent: str
    status: str = Field(description="QUEUED, RUNNING, SUSPENDED, DEAD, SUCCESS or FAILED.")
    tenant: str
    priority: str
    attempts: int
    retries: int
    reason: str
    not_before: float = Field(description="Unix seconds before which nobody begins with it.")
    queued_at: float = Field(description="Unix seconds.")
    started_at: float | None
    ended_at: float | None
    report: ExecutionReport | None = Field(default=None, description="Its report, where it is over or waits.")

    @classmethod
    def of(cls, status: JobStatus, report: ExecutionReport | None = None) -> JobRow:
        """Return a job as the API shows it."""
        return cls(
            execution_id=status.execution_id,
            agent=status.agent,
            status=status.status,
            tenant=status.tenant,
            priority=status.priority,
            attempts=status.attempts,
            retries=status.retries,
            reason=status.reason,
            not_before=status.not_before,
            queued_at=status.queued_at,
            started_at=status.started_at,
            ended_at=status.ended_at,
            report=report,
        )


class QueueRow(BaseModel):
    """What is in the queue, and who works."""

    queued: int = Field(description="As all of this: of the caller's tenant alone, where it has one.")
    delayed: int
    running: int
    workers: Sequence[Mapping[str, Any]]
