"""JSON as a person reviews it: what fits on a line is on one, and a text of several lines is a list of lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import Any, Final, cast

from oao_harness.errors import RecordingError
from oao_hookspecs import Json

__all__ = ["fold", "may_fold", "pretty", "unfold"]

_LINE_WIDTH: Final = 110
# No shorter text is ever put aside; see `blobs`.
_SHORT: Final = 4096
_MARKS: Final = frozenset({"$lines", "$dict", "$blob"})
# Asked for first: whether something is a mapping is a question to an abstract class, and slow.
_PLAIN: Final = (str, int, float, type(None))
_SCALARS: Final = frozenset({int, float, bool, type(None)})
_NESTED: Final = frozenset({dict, list, tuple})
# Built once: `json.dumps` with an option builds an encoder in each call, which costs more than a short text.
_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


def pretty(value: Json, indent: str) -> str:
    """Return JSON text that a person reviews: what fits on a line is on one line."""
    kind = type(value)
    if kind is str:
        return encode_basestring(cast("str", value))
    if kind is int:
        return int.__repr__(cast("int", value))
    if kind is float and math.isfinite(cast("float", value)):
        return float.__repr__(cast("float", value))
    if not value or not isinstance(value, dict | list):
        return _encode(value)
    # From the leaves up, so that each of them is written once: an item over several lines is longer than a line.
    deeper = indent + " "
    if isinstance(value, dict):
        parts = [
            f"{encode_basestring(key)}: {encode_basestring(item) if item.__class__ is str else pretty(item, deeper)}"
            for key, item in cast("dict[str, Any]", value).items()
        ]
        opening, closing = "{", "}"
    else:
        parts = [pretty(item, deeper) for item in value]
        opening, closing = "[", "]"
    if sum(map(len, parts)) <= _LINE_WIDTH - len(indent) - 2 * len(parts):
        return f"{opening}{', '.join(parts)}{closing}"
    between = f",\n{deeper}"
    return f"{opening}\n{deeper}{between.join(parts)}\n{indent}{closing}"


def may_fold(text: str) -> bool:
    """Return False where `fold` returns an equal value.

    Args:
        text: The value as JSON.
    """
    return len(text) > _SHORT or "\\n" in text or '"$' in text


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
    # The first is asked much faster than the second.
    if isinstance(value, dict | Mapping):
        if not _MARKS.isdisjoint(value):
            return {"$dict": [[key, fold(item, aside)] for key, item in value.items()]}
        return {key: item if item.__class__ in _SCALARS else fold(item, aside) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fold(item, aside) for item in value]
    return value


def unfold(value: Json, read: Callable[[Mapping[str, Json]], str] | None = None) -> Json:
    """Return the value that `fold` was given; the same object where nothing in it was folded.

    Args:
        value: What `fold` returned.
        read: Returns the text that a `{"$blob": ...}` stands for.

    Raises:
        RecordingError: It refers to a blob, and nobody can read it.
    """
    kind = type(value)
    if kind is dict:
        node = cast("dict[str, Json]", value)
        if len(node) == 1:
            if "$lines" in node:
                return "\n".join(cast("list[str]", node["$lines"]))
            if "$dict" in node:
                return {str(key): unfold(item, read) for key, item in cast("list[list[Json]]", node["$dict"])}
        if "$blob" in node:
            if read is None:
                raise RecordingError(f"it refers to the blob {node['$blob']!r}; read it as a file")
            return read(node)
        below = [(key, item) for key, item in node.items() if item.__class__ in _NESTED]
        changed = {key: found for key, item in below if (found := unfold(item, read)) is not item}
        return {**node, **changed} if changed else node
    if kind is list:
        items = cast("list[Json]", value)
        for item in items:
            if item.__class__ in _NESTED:
                return [unfold(one, read) for one in items]
    return value
