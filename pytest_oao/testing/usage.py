"""The token usage that model APIs report, read from the bytes of their responses.

It must share no code with the package under test: tests compare the two.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["TokenUsage", "usage_of_body"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one or more model calls.

    Attributes:
        input_tokens: Tokens of the prompts, those read from or written to a cache included.
        output_tokens: Tokens of the answers, reasoning included.
        total_tokens: The provider's total, or the sum of both where it reports none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


def usage_of_body(body: str) -> TokenUsage:
    """Return the usage in one response body, JSON or server-sent events; all zeros when it has none.

    In a stream a later count replaces an earlier one: every provider that repeats the usage repeats it as a
    running total, and Anthropic's `message_start` carries a placeholder for the output tokens.

    Args:
        body: The decoded body of one response.

    Source:
        OpenAI API reference, "The chat completion object", "The response object";
        Anthropic API reference, "Streaming messages" (`message_delta.usage` is cumulative) and
        "Prompt caching" (`input_tokens` leaves out what was read from or written to the cache).
    """
    counts: dict[str, int] = {}
    for document in _documents(body):
        # `message` holds it in Anthropic's message_start, `response` in OpenAI's response.completed.
        for holder in (document, document.get("message"), document.get("response")):
            usage = cast("Mapping[str, object]", holder).get("usage") if isinstance(holder, dict) else None
            if isinstance(usage, dict):
                counted = cast("Mapping[str, object]", usage).items()
                counts.update((name, value) for name, value in counted if isinstance(value, int))
    if "prompt_tokens" in counts or "completion_tokens" in counts:
        sent, received = counts.get("prompt_tokens", 0), counts.get("completion_tokens", 0)
    else:
        cached = counts.get("cache_creation_input_tokens", 0) + counts.get("cache_read_input_tokens", 0)
        sent, received = counts.get("input_tokens", 0) + cached, counts.get("output_tokens", 0)
    return TokenUsage(
        input_tokens=sent, output_tokens=received, total_tokens=counts.get("total_tokens", sent + received)
    )


def _documents(body: str) -> Iterator[dict[str, object]]:
    """Yield the JSON objects of a body: the body itself, or the data of each of its events."""
    whole = _json_object(body)
    if whole is not None:
        yield whole
        return
    # str.splitlines would also cut at U+2028, which may stand unescaped inside a JSON string.
    for line in re.split(r"\r\n|\n|\r", body):
        field, _, value = line.partition(":")
        event = _json_object(value) if field == "data" else None
        if event is not None:
            yield event


def _json_object(text: str) -> dict[str, object] | None:
    try:
        parsed: object = json.loads(text)
    except ValueError:
        return None
    return cast("dict[str, object]", parsed) if isinstance(parsed, dict) else None
