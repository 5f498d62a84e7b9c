"""The shape of a policy file: its tables and keys, as pydantic models. What they mean is compiled elsewhere."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ApprovalsTable",
    "LabelTable",
    "LimitsTable",
    "PolicyDocument",
    "PriceTable",
    "RedactTable",
    "RoleTable",
    "RuleTable",
    "SequenceTable",
    "ToolTable",
    "ToolsTable",
]

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]
Money: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Stop: TypeAlias = Literal["deny", "ask"]


class _Table(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class PriceTable(_Table):
    """`unknown_price`: what a model without a known price is taken to cost."""

    input_per_million: Money
    """US dollars for a million input tokens."""
    output_per_million: Money
    """US dollars for a million output tokens."""


class LimitsTable(_Table):
    """`[limits]`: what one run may spend, the runs nested in it included. What is not named has no limit."""

    max_steps: Count | None = None
    """Governed calls, or the framework's own steps, whichever are more."""
    max_model_calls: Count | None = None
    """Calls of models."""
    max_tool_calls: Count | None = None
    """Calls of tools."""
    max_tokens: Count | None = None
    """Input and output tokens together."""
    max_input_tokens: Count | None = None
    """Tokens sent to models."""
    max_output_tokens: Count | None = None
    """Tokens received from models."""
    max_cost_usd: Money | None = None
    """Money for model calls in US dollars."""
    unknown_price: PriceTable | None = None
    """Without it a model whose price nobody knows is denied where `max_cost_usd` is set."""
    assumed_output_tokens: Count | None = None
    """Reserved for the answer of a model call that names no bound of its own."""
    timeout_seconds: Seconds | None = None
    """Wall time of the agent."""
    call_timeout_seconds: Seconds | None = None
    """Wall time of one model or tool call."""
    max_retries: Count | None = None
    """Tries of a call that failed for a transient cause, after 1 s, 2 s, 4 s ...; none by default."""
    require_governed: bool = False
    """True refuses an agent whose calls oao cannot see."""


class ToolsTable(_Table):
    """`[tools]`: which tools may be called at all. Exact names and globs; `deny` beats `ask`, `ask` beats `allow`."""

    allow: list[Name] | None = None
    """As soon as it is there, a tool that neither it nor `ask` lists is denied."""
    deny: list[Name] = []
    """They are denied."""
    ask: list[Name] = []
    """Each call is held until a person approves it."""


class RedactTable(_Table):
    """One item of `redact`: what is taken out of a tool's result before anybody sees it."""

    pattern: Annotated[str, Field(min_length=1)] | None = None
    """A regular expression of Python; every match in every text of the result, at any depth, is replaced."""
    field: Name | None = None
    """Or: the value of every key of this name, at any depth, is replaced."""
    replacement: Annotated[str, Field(alias="with")] = "[redacted]"
    """Key `with`: the literal text that takes its place."""


class ToolTable(_Table):
    """`[[tool]]`: facts and bounds of tools. For each key the exact name counts, else the first glob that has it."""

    name: Name
    """Exact name or glob."""
    effect: Literal["pure", "idempotent", "once"] | None = None
    """What repeating a call does: nothing, nothing new, or a second effect."""
    access: Literal["read", "write"] | None = None
    """Whether the tool only looks. A tool that nobody describes is taken to write."""
    max_calls: Count | None = None
    """Calls in one run; all tools that a glob selects count together."""
    redact: list[RedactTable] | None = None
    """What is taken out of its results."""


class RuleTable(_Table):
    """`[[rule]]`: a condition and what follows (`when`, `then`), or requirements (`require` ...) and `otherwise`."""

    name: Name
    """Unique in the file; shown with every decision."""
    tools: Annotated[list[Name], Field(min_length=1)] | None = None
    """Which tools the rule is about; all of them by default."""
    models: Annotated[list[Name], Field(min_length=1)] | None = None
    """Which models the rule is about; none by default."""
    access: Literal["read", "write"] | None = None
    """Only tools that read, or only tools that write; a tool that nobody describes is taken to write."""
    agents: Annotated[list[Name], Field(min_length=1)] | None = None
    """Only calls of these agents; of all by default."""
    when: str | None = None
    """CEL; the rule applies where it is true. Without it the rule always applies."""
    then: Literal["deny", "ask", "allow"] | None = None
    """What happens where the rule applies; `allow` documents, and never overrides a denial."""
    require: str | None = None
    """CEL that must be true."""
    values_from: dict[str, Annotated[list[Name], Field(min_length=1)]] = {}
    """Argument (dotted for nested ones) to sources: `task`, `tool:NAME` (or glob), `list:NAME`."""
    roles: Annotated[list[Name], Field(min_length=1)] | None = None
    """The principal must have one of these."""
    otherwise: Stop | None = None
    """What happens where a requirement is not met; `deny` by default."""
    reason: str = ""
    """One sentence for the person who reads the decision."""


class SequenceTable(_Table):
    """`[[sequence]]`: what may follow what in one run. Exactly one of three forms."""

    name: Name
    """Unique in the file; shown with every decision."""
    after: Annotated[list[Name], Field(min_length=1)] | None = None
    """With `never`: once one of these tools was called, ..."""
    never: Annotated[list[Name], Field(min_length=1)] | None = None
    """... none of these may be."""
    only: Annotated[list[Name], Field(min_length=1)] | None = None
    """With `after_success_of`: these tools may be called only ..."""
    after_success_of: Annotated[list[Name], Field(min_length=1)] | None = None
    """... once one of these finished without an error."""
    at_most: Count | None = None
    """With `of`: so many calls ..."""
    of: Annotated[list[Name], Field(min_length=1)] | None = None
    """... of these tools together."""
    then: Stop = "deny"
    """What happens to a call that breaks it."""
    reason: str = ""
    """One sentence for the person who reads the decision."""


class LabelTable(_Table):
    """`[[label]]`: a mark that a run gets and never loses; conditions read it in `run.labels`."""

    name: Name
    """What conditions call it."""
    tools: Annotated[list[Name], Field(min_length=1)]
    """Calls of these tools set it."""
    when: str | None = None
    """CEL; only where it is true. A condition on `result` is judged when the call has ended."""


class RoleTable(_Table):
    """`[[role]]`: what the principals of a role may do. What no role lists is open to everybody."""

    name: Name
    """As principals have it."""
    agents: list[Name] = []
    """Agents that only principals with such a role may run."""
    tools: list[Name] = []
    """Tools that only principals with such a role may have called."""
    approve: list[Name] = []
    """Tools whose held calls this role may approve."""


class ApprovalsTable(_Table):
    """`[approvals]`: who answers the questions of this file, and how."""

    approvers: list[Name] = []
    """Roles of those who may answer; anybody by default."""
    needed: Annotated[int, Field(ge=1, le=100)] = 1
    """How many different people must approve."""
    expires_seconds: Seconds = 86_400.0
    """After which a question can no longer be approved."""


class PolicyDocument(_Table):
    """A whole policy file."""

    name: Name | None = None
    """How decisions and reports call it; the file's name without its ending by default."""
    mode: Literal["enforce", "observe"] = "enforce"
    """`observe` judges and reports what it would have stopped, and stops nothing."""
    extends: Name | None = None
    """`off`, `standard`, `strict`, or another file, relative to this one. Rules add up; the stricter wins."""
    limits: LimitsTable = LimitsTable()
    tools: ToolsTable = ToolsTable()
    tool: list[ToolTable] = []
    rule: list[RuleTable] = []
    lists: dict[str, list[str | int | float]] = {}
    """Named lists of approved values, for `values_from`."""
    sequence: list[SequenceTable] = []
    label: list[LabelTable] = []
    role: list[RoleTable] = []
    approvals: ApprovalsTable = ApprovalsTable()
