"""JSON as a person reviews it: what fits on a line is on one, and a text of several lines is a list of lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, cast

from oao_hookspecs import Json

__all__ = ["fold", "pretty", "unfold"]

_LINE_WIDTH: Final = 110


def pretty(value: Json, indent: str) -> str:
    """Return JSON text that a person reviews: what fits on a line is on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + len(indent) <= _LINE_WIDTH or not isinstance(value, Mapping | list) or not value:
        return line
    deeper = indent + " "
    if isinstance(value, Mapping):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {pretty(item, deeper)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        parts = [pretty(item, deeper) for item in value]
        opening, closing = "[", "]"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(parts) + f"\n{indent}{closing}"


def fold(value: Json) -> Json:
    """Return a value with its texts of several lines as `{"$lines": [...]}`."""
    if isinstance(value, str):
        return {"$lines": cast("Json", value.split("\n"))} if "\n" in value else value
    if isinstance(value, Mapping):
        if "$lines" in value or "$dict" in value:
            return {"$dict": [[key, fold(item)] for key, item in value.items()]}
        return {key: fold(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fold(item) for item in value]
    return value


def unfold(value: Json) -> Json:
    """Return the value that `fold` was given."""
    if isinstance(value, Mapping):
        if "$lines" in value:
            return "\n".join(cast("list[str]", value["$lines"]))
        if "$dict" in value:
            return {str(key): unfold(item) for key, item in cast("list[list[Json]]", value["$dict"])}
        return {key: unfold(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unfold(item) for item in value]
    return value
