"""Calls and outcomes: the unit that is governed, journaled and replayed. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Json: TypeAlias = "None | bool | int | float | str | Sequence[Json] | Mapping[str, Json]"
"""What a journal can hold."""

Effect: TypeAlias = Literal["pure", "idempotent", "once"]
"""What repeating a tool call does: nothing, nothing new, or a second effect."""

Access: TypeAlias = Literal["read", "write"]
"""What a tool does to the world: it only looks, or it changes something outside of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolTraits:
    """What is declared about a tool. None is no opinion."""

    effect: Effect | None = None
    access: Access | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one model call."""

    input_tokens: int = 0
    """Tokens the provider read, cached ones included."""
    output_tokens: int = 0
    """Tokens the provider wrote, reasoning included."""
    estimated: bool = False
    """True where the provider reported nothing and oao counted characters."""

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One request to a model, as the provider sees it."""

    name: str
    """Model id, for example `gpt-4o`."""
    messages: Sequence[Mapping[str, Json]]
    """The conversation: `role`, `content`, and where present `name`, `calls`, `call_id`."""
    tools: Sequence[Mapping[str, Json]] = ()
    """Schemas of the tools offered to the model."""
    params: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """What else changes the answer: temperature, tool_choice, stop ..."""
    scope: str = ""
    """Where in the agent the call was made, for example the LangGraph node path."""
    id: str = ""
    """Unique among all calls of all runs; set by the gate for what hooks are handed, else empty."""
    kind: Literal["model"] = "model"

    @property
    def call_id(self) -> None:
        """A model call has no id of its own before it is made."""
        return None

    @property
    def request(self) -> dict[str, Json]:
        """The whole request: what is journaled, and what a replay compares."""
        request: dict[str, Json] = {"messages": self.messages}
        if self.tools:
            request["tools"] = self.tools
        request.update(self.params)
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One execution of a tool."""

    name: str
    """Tool name."""
    arguments: Mapping[str, Json]
    """Arguments by parameter name, as the tool's body will see them."""
    call_id: str | None = None
    """The id that the model gave to this call, where a model asked for it."""
    scope: str = ""
    """Where in the agent the call was made, for example the LangGraph node path."""
    effect: Effect | None = None
    """What repeating the call does; None where nobody declared it."""
    access: Access | None = None
    """Whether the tool only reads; None where nobody declared it."""
    defaulted: tuple[str, ...] = ()
    """Names of the arguments that have the value which the tool itself declares as their default."""
    proposed: bool = False
    """True while a model's batch is judged before any of it starts; the call is asked about again before it runs."""
    id: str = ""
    """Unique among all calls of all runs; set by the gate for what hooks are handed; empty while only proposed."""
    kind: Literal["tool"] = "tool"

    @property
    def request(self) -> Mapping[str, Json]:
        """The arguments: what is journaled, and what a replay compares."""
        return self.arguments


Call: TypeAlias = ModelCall | ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedCall:
    """A tool call that a model's answer asks for; nothing has run yet."""

    name: str
    arguments: Mapping[str, Json]
    call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """An exception as a value."""

    type: str
    """Qualified class name: `module:Class`."""
    message: str
    """`str()` of the exception."""
    data: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """Encoded arguments and attributes, enough to raise the same class again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended: a value or an error."""

    value: Json = None
    """The encoded result; None where the call failed."""
    error: ErrorInfo | None = None
    """Set where the call raised."""
    usage: Usage | None = None
    """Tokens; None for a tool."""
    proposed: Sequence[ProposedCall] = ()
    """Tool calls that a model asks for."""
    attempts: int = 1
    """How often the call was tried, from 1."""
    duration_s: float = 0.0
    """Seconds from the decision to the outcome."""
    replayed: bool = False
    """True where a recorded outcome was served and nothing ran."""
