"""The report of a run: what a caller, a server and an exit code are told."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

__all__ = ["ExecutionReport"]


class ExecutionReport(BaseModel):
    """How one run went. `report.result` is what the agent returned, as the object it was; it is not serialised."""

    model_config = ConfigDict(extra="forbid")

    execution_id: str
    """Id of the run, unique."""
    agent_name: str
    """Name of the agent."""
    status: Literal["SUCCESS", "FAILED", "SUSPENDED", "QUEUED", "SKIPPED"]
    """SUSPENDED: a person must approve a call, or say whether one happened; `Orchestrator.resume` goes on then.
    QUEUED: it waits for a worker, to be tried again, or, as a node of a graph that is suspended, for others.
    SKIPPED: a node of a graph that does not run, because one that it depends on failed or a condition is false."""
    error: str | None = None
    """Why the run failed, waits or was skipped, one line; None for a success."""
    violation: dict[str, Any] | None = None
    """`rule`, `plugin`, `reason`; `source` (file and line of the rule) where it is known; the number `n` of the call
    where one is to blame. None where nothing was refused."""
    total_tokens: int = 0
    """Input and output tokens of all model calls."""
    input_tokens: int = 0
    """Tokens sent to models."""
    output_tokens: int = 0
    """Tokens received from models."""
    cost_usd: float | None = None
    """US dollars of all model calls whose price was asked for; None where no policy limits money."""
    tokens_estimated: bool = False
    """True where a provider reported no usage and a part of the tokens was estimated from characters."""
    total_steps: int = 0
    """Governed calls or the framework's own steps, whichever are more."""
    model_calls: int = 0
    """Calls of models."""
    tool_calls: int = 0
    """Calls of tools."""
    tool_usage: dict[str, int] = Field(default_factory=dict[str, int])
    """Calls by tool name."""
    execution_time_seconds: float = 0.0
    """Wall time of the run in seconds."""
    state_history: list[str] = Field(default_factory=list[str])
    """The states of its lifecycle, in order: `INIT`, `PLAN`, `EXECUTE`, `REVIEW`, `TERMINATE`."""
    final_output: Any = None
    """The agent's answer, as JSON; None where the run failed."""
    approvals: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    """The open questions of a suspended run: `id`, `tool`, `arguments`, `rule`, `reason`, `expires_at` ..."""
    in_doubt: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    """Calls of a suspended run of which nobody knows whether they happened: `id`, `tool`, `arguments`, `began_at`."""
    observed: list[str] = Field(default_factory=list[str])
    """What a policy that only observes would have stopped, one line each."""
    ungoverned: list[str] = Field(default_factory=list[str])
    """What could not be governed, one line each."""
    timestamp: datetime
    """When the run started, UTC."""
    execution_hash: str = ""
    """Equal for equal agent, task, policy and sequence of calls."""

    _result: object = PrivateAttr(default=None)

    @property
    def result(self) -> object:
        """What the agent returned; None where the run failed."""
        return self._result

    def keep_result(self, result: object) -> None:
        """Keep what the agent returned; called once, by the machine."""
        self._result = result

    def json(self, *, indent: int | None = None) -> str:  # type: ignore[override]
        """Return the report as JSON text.

        Args:
            indent: Spaces of indentation; None for one line.
        """
        return self.model_dump_json(indent=indent)
