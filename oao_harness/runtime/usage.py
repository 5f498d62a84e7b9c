"""Token counts: read from the shapes that providers and frameworks use today, estimated where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from oao_hookspecs import Json, ModelCall, Usage

__all__ = [
    "count_characters",
    "declared_output_tokens",
    "estimate_input_tokens",
    "estimate_tokens",
    "read_usage",
    "tokens_of_characters",
    "usage_or_estimate",
    "worst_case_tokens",
]

# Source: the providers' rule of thumb for English text, about four characters a token.
_CHARS_PER_TOKEN: Final = 4

_INPUT_KEYS: Final = ("input_tokens", "prompt_tokens", "prompt_token_count", "promptTokenCount", "inputTokens")
_OUTPUT_KEYS: Final = (
    "output_tokens",
    "completion_tokens",
    "candidates_token_count",
    "candidatesTokenCount",
    "outputTokens",
)
_TOTAL_KEYS: Final = ("total_tokens", "total_token_count", "totalTokenCount", "totalTokens")
_COUNTS: Final = frozenset((*_INPUT_KEYS, *_OUTPUT_KEYS, *_TOTAL_KEYS))
_BOUND_KEYS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens", "max_tokens_to_sample")
_HOLDERS: Final = ("usage_metadata", "usage", "token_usage", "usageMetadata", "response_metadata", "llm_output")


def read_usage(value: object, _depth: int = 0) -> Usage | None:
    """Return the tokens that a model's answer reports, or None where it reports none.

    Looks at the value itself and at `usage_metadata`, `usage`, `token_usage`, `response_metadata` of it, as
    attributes or keys, in OpenAI's, Anthropic's, Google's, Bedrock's and LangChain's spelling.

    Args:
        value: A response object, a message, or a mapping.
    """
    counts = _read_counts(value)
    if counts is not None or _depth > 2:
        return counts
    for holder in _HOLDERS:
        inner = _get(value, holder)
        if inner is not None and not isinstance(inner, str | int | float):
            found = read_usage(inner, _depth + 1)
            if found is not None:
                return found
    return None


def _read_counts(value: object) -> Usage | None:
    plain: Any = value
    if type(plain) is dict and _COUNTS.isdisjoint(plain):  # pyright: ignore[reportUnknownArgumentType]
        # A message without any, of which a conversation has many.
        return None
    sent, received, total = (_first_count(value, keys) for keys in (_INPUT_KEYS, _OUTPUT_KEYS, _TOTAL_KEYS))
    if sent is None and received is None:
        # A lone total cannot be split; counting it as input keeps the sum right.
        return None if total is None else Usage(input_tokens=total)
    sent, received = sent or 0, received or 0
    if total is not None and total > sent + received:
        # Google counts thinking and tool-use tokens in the total only.
        received = total - sent
    return Usage(input_tokens=sent, output_tokens=received)


def _first_count(value: object, keys: tuple[str, ...]) -> int | None:
    for key in keys:
        count = _get(value, key)
        if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
            return count
    return None


def _get(value: object, key: str) -> object:
    # The exact type first: asking for an abstract class takes ten times as long.
    if type(value) is dict or isinstance(value, Mapping):
        return cast("Mapping[str, object]", value).get(key)
    return getattr(value, key, None)


def estimate_tokens(values: Iterable[Json]) -> int:
    """Return about how many tokens the texts inside of JSON values are; at least 1 for any text."""
    return tokens_of_characters(sum(count_characters(value) for value in values))


def tokens_of_characters(characters: int) -> int:
    """Return about how many tokens a text of so many characters has."""
    return -(-characters // _CHARS_PER_TOKEN)


def estimate_input_tokens(call: ModelCall) -> int:
    """Return about how many tokens a request will cost before the model answers."""
    return estimate_tokens((*call.messages, *call.tools))


def declared_output_tokens(call: ModelCall) -> int | None:
    """Return how many tokens a request lets the model answer at most, or None where it names no bound."""
    if not call.params:
        return None
    bounds = [_first_count(call.params, (key,)) for key in _BOUND_KEYS]
    bound = next((found for found in bounds if found is not None), None)
    answers = _first_count(call.params, ("n",)) or 1
    return None if bound is None else bound * answers


def usage_or_estimate(call: ModelCall, reported: Usage | None, said: Sequence[Json]) -> Usage:
    """Return the reported tokens; what was not reported is estimated and flagged, never counted as nothing.

    Args:
        call: The request.
        reported: What the provider said, if anything.
        said: The texts and tool calls of the answer.
    """
    if reported is None or reported.total_tokens == 0:
        return Usage(input_tokens=estimate_input_tokens(call), output_tokens=estimate_tokens(said), estimated=True)
    if reported.output_tokens == 0 and (estimate := estimate_tokens(said)) and not reported.estimated:
        return Usage(input_tokens=reported.input_tokens, output_tokens=estimate, estimated=True)
    return reported


def worst_case_tokens(call: ModelCall, assumed_output_tokens: int | None, sent: int | None = None) -> tuple[int, int]:
    """Return about how many tokens a call sends, and how many its answer may have at most as far as anybody says.

    Args:
        call: The request.
        assumed_output_tokens: Taken where the request names no bound; None takes nothing.
        sent: What it sends, where somebody has counted it already.
    """
    received = declared_output_tokens(call)
    return estimate_input_tokens(call) if sent is None else sent, (
        assumed_output_tokens or 0
    ) if received is None else received


def count_characters(value: Json) -> int:
    """Return how many characters the texts inside of a JSON value have; what is no text counts a little."""
    # Twice for every message of every request: no generators, and `dict` before the abstract class.
    if isinstance(value, str):
        return len(value)
    total = 0
    if isinstance(value, (dict, Mapping)):
        for key, item in value.items():
            total += len(key) + (len(item) if isinstance(item, str) else count_characters(item))
        return total
    if isinstance(value, (list, tuple)):
        for item in value:
            total += count_characters(item)
        return total
    return 0 if value is None else 2
