"""JSON as a person reviews it: what fits on a line is on one, and a text of several lines is a list of lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final, cast

from oao_harness.errors import RecordingError
from oao_hookspecs import Json

__all__ = ["fold", "pretty", "unfold"]

_LINE_WIDTH: Final = 110
# No shorter text is ever put aside; see `blobs`.
_SHORT: Final = 4096
_MARKS: Final = frozenset({"$lines", "$dict", "$blob"})
# Asked for first: whether something is a mapping is a question to an abstract class, and slow.
_PLAIN: Final = (str, int, float, type(None))
_NESTED: Final = frozenset({dict, list, tuple})
# Built once: `json.dumps` with an option builds an encoder in each call, which costs more than a short text.
_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


def pretty(value: Json, indent: str) -> str:
    """Return JSON text that a person reviews: what fits on a line is on one line."""
    if not value or isinstance(value, _PLAIN) or not isinstance(value, dict | list):
        return _encode(value)
    items = value.values() if isinstance(value, dict) else value
    if not any(map(_NESTED.__contains__, map(type, items))):
        # Most of them: one call into C, instead of one for each item.
        line = _encode(value)
        if len(line) + len(indent) <= _LINE_WIDTH:
            return line
    deeper = indent + " "
    # From the leaves up, so that each of them is written once: an item over several lines is longer than a line.
    if isinstance(value, dict):
        parts = [f"{_encode(key)}: {pretty(item, deeper)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        parts = [pretty(item, deeper) for item in items]
        opening, closing = "[", "]"
    if sum(map(len, parts)) <= _LINE_WIDTH - len(indent) - 2 * len(parts):
        return f"{opening}{', '.join(parts)}{closing}"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(parts) + f"\n{indent}{closing}"


def fold(value: Json, aside: Callable[[str], Json] | None = None) -> Json:
    """Return a value with its texts of several lines as `{"$lines": [...]}`.

    Args:
        value: The value.
        aside: Returns what stands for a text, `{"$blob": ...}` or None where the text stays where it is.
    """
    if isinstance(value, str):
        if aside is not None and len(value) > _SHORT and (kept := aside(value)) is not None:
            return kept
        return {"$lines": cast("Json", value.split("\n"))} if "\n" in value else value
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        if not _MARKS.isdisjoint(value):
            return {"$dict": [[key, fold(item, aside)] for key, item in value.items()]}
        return {key: fold(item, aside) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fold(item, aside) for item in value]
    return value


def unfold(value: Json, read: Callable[[Mapping[str, Json]], str] | None = None) -> Json:
    """Return the value that `fold` was given.

    Args:
        value: What `fold` returned.
        read: Returns the text that a `{"$blob": ...}` stands for.

    Raises:
        RecordingError: It refers to a blob, and nobody can read it.
    """
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        if len(value) == 1:
            if "$lines" in value:
                return "\n".join(cast("list[str]", value["$lines"]))
            if "$dict" in value:
                return {str(key): unfold(item, read) for key, item in cast("list[list[Json]]", value["$dict"])}
        if "$blob" in value:
            if read is None:
                raise RecordingError(f"it refers to the blob {value['$blob']!r}; read it as a file")
            return read(value)
        return {
            key: item if item.__class__ is str else unfold(item, read)  # most are, and a call costs more than a look
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [item if item.__class__ is str else unfold(item, read) for item in value]
    return value
