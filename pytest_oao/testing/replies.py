"""The values a scripted model server replies with; no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ErrorReply", "Reply", "TextReply", "ToolCall", "ToolCallReply"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One tool call the model asks for.

    Attributes:
        name: The tool's name.
        arguments: The arguments; a str is sent as it is, for a model that writes broken JSON.
    """

    name: str
    arguments: Mapping[str, object] | str


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelReply:
    input_tokens: int = 10
    output_tokens: int = 5
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReply(_ModelReply):
    """The model answers with text; streamed word by word.

    Attributes:
        text: What it says.
        input_tokens: Reported for the prompt.
        output_tokens: Reported for the answer.
        delay_s: Seconds before the answer begins.
        chunk_delay_s: Seconds before each chunk of a stream.
    """

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallReply(_ModelReply):
    """The model asks for tools; several calls are parallel calls.

    Attributes:
        calls: The calls, in the model's order.
        text: What it says before them; empty for nothing.
        input_tokens: Reported for the prompt.
        output_tokens: Reported for the answer.
        delay_s: Seconds before the answer begins.
        chunk_delay_s: Seconds before each chunk of a stream.
    """

    calls: tuple[ToolCall, ...]
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """The API refuses with an HTTP error, which a client may retry: then it gets the next reply.

    Attributes:
        status: The HTTP status, 400 or higher.
        message: The error's text.
        code: The API's own code, such as `context_length_exceeded`.
        retry_after_s: Sent as the `retry-after` header; None for no header.
        delay_s: Seconds before the answer begins.
    """

    status: int
    message: str
    code: str | None = None
    retry_after_s: float | None = None
    delay_s: float = 0.0


Reply: TypeAlias = TextReply | ToolCallReply | ErrorReply
