"""One recorded call, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from oao_hookspecs import Call, Effect, ErrorInfo, Json, ModelCall, Outcome, ToolCall, Usage

__all__ = ["HTTP", "HttpCall", "RecordedEvent"]

HTTP: Final = "http"
"""The kind of a request that an agent's or a tool's own code sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One HTTP request, as a replay is asked for it. It passes no gate: policies judge the call around it."""

    name: str
    """Method and host."""
    request: Mapping[str, Json]
    """`method`, `url`, and where present `query` and `body`."""
    call_id: None = None
    scope: str = ""
    kind: Literal["http"] = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """One recorded call."""

    n: int
    """Number in the recording, from 1."""
    kind: str
    name: str
    run: str
    """Name of the agent whose run made the call."""
    start: int
    end: int
    """Ticks of the recording's logical clock."""
    request: Mapping[str, Json]
    key: str
    value: Json = None
    error: ErrorInfo | None = None
    usage: Usage | None = None
    decision: str = "allow"
    """Verdict and rule, for example `deny max_tool_calls`."""
    parent: int | None = None
    """Number of the event inside whose body the call was made."""
    attempts: int = 1
    finished: bool = True
    """False where no outcome was written before the recording ended."""
    call_id: str | None = None
    batch: int | None = None
    """Number of the model event whose answer asked for this call together with others."""
    scope: str = ""
    at: float | None = None
    """When it ended, in seconds after the recording's clock began; None where nobody knows."""
    took_s: float | None = None
    """How long it took, in seconds; None where that was less than a millisecond."""
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json], compare=False)
    """What the file says of it that this version does not know; kept when the file is written again."""
    effect: Effect | None = field(default=None, compare=False)
    call_n: int = field(default=0, compare=False)
    """Number of the call in the journal of its run; 0 where the recording is a file."""
    redacted: frozenset[str] = field(default=frozenset(), compare=False)
    """What of it somebody redacted after it was written: `request`, `result`."""

    @property
    def call(self) -> Call:
        """The call as it was made."""
        if self.kind == HTTP:
            return cast("Call", HttpCall(name=self.name, request=self.request))
        if self.kind == "tool":
            return ToolCall(name=self.name, arguments=self.request, call_id=self.call_id, scope=self.scope)
        rest = dict(self.request)
        messages = cast("Sequence[Mapping[str, Json]]", rest.pop("messages", ()))
        tools = cast("Sequence[Mapping[str, Json]]", rest.pop("tools", ()))
        return ModelCall(name=self.name, messages=messages, tools=tools, params=rest, scope=self.scope)

    @property
    def outcome(self) -> Outcome | None:
        """How the call ended; None where nobody knows."""
        if not self.finished:
            return None
        return Outcome(
            value=self.value,
            error=self.error,
            usage=self.usage,
            attempts=self.attempts,
            duration_s=self.took_s or 0.0,
            replayed=True,
        )

    @property
    def denied(self) -> bool:
        """True where a policy refused the call when it was recorded."""
        return self.decision.startswith("deny")
