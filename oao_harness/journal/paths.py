"""Paths into a request, as they are written in `ignore` and shown in a divergence. Pure.

```text
metadata.trace              a value
messages[].cache_control    in every message
messages[0].content         in the first one
tools.search.description    in the offered tool of that name
metadata["a.b"]             a key that is no plain word
```
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, cast

from oao_harness.errors import ConfigError
from oao_hookspecs import Json

__all__ = ["Path", "Rules", "Step", "is_dropped", "path_text", "read_paths", "rules_below", "tool_name"]

Step: TypeAlias = str | int | None
"""A key, a place in a list, or None: every place."""

Path: TypeAlias = tuple[Step, ...]
Rules: TypeAlias = tuple[Path, ...]
"""What is left of the ignored paths at some place of a request; an empty one means: this place."""

_PLAIN: Final = re.compile(r"[\w$@-]+")
_STEP: Final = re.compile(r"\.?(?P<name>[\w$@-]+)|\[(?P<index>\d*)\]|\[(?P<key>\"(?:[^\"\\]|\\.)*\")\]")


def read_paths(texts: Iterable[str]) -> Rules:
    """Return paths as their steps.

    Raises:
        ConfigError: One cannot be read.
    """
    return tuple(_read(text) for text in texts)


def _read(text: str) -> Path:
    steps: list[Step] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        # A name follows a dot, except for the first one, and a dot follows something.
        if found is None or (found["name"] is not None and (text[at] == ".") != bool(steps)):
            break
        if found["name"] is not None:
            steps.append(found["name"])
        elif found["key"] is not None:
            try:
                steps.append(cast("str", json.loads(found["key"])))
            except ValueError:
                break
        else:
            steps.append(int(found["index"]) if found["index"] else None)
        at = found.end()
    if at < len(text) or not steps or not isinstance(steps[0], str):
        where = f" at {text[at:]!r}" if 0 < at < len(text) else ""
        raise ConfigError(
            f"ignored path {text!r} cannot be read{where}; write it as a divergence shows it: metadata.trace, "
            'messages[].cache_control, messages[0].content, metadata["a.b"]'
        )
    return tuple(steps)


def path_text(path: Path) -> str:
    """Return a path as text."""
    text = ""
    for step in path:
        if isinstance(step, str):
            plain = _PLAIN.fullmatch(step) is not None
            text += (f".{step}" if text else step) if plain else f"[{json.dumps(step, ensure_ascii=False)}]"
        else:
            text += f"[{'' if step is None else step}]"
    return text or "value"


def rules_below(rules: Rules, step: str | int, item: Json = None) -> Rules:
    """Return what is left of the rules one step further down.

    Args:
        rules: What is left here.
        step: The key or the place.
        item: What is at that place of a list: an offered tool is found by its name too.
    """
    if not rules:
        return ()
    found: list[Path] = []
    name = tool_name(item) if isinstance(step, int) else None
    for rule in rules:
        first = rule[0]
        if first == step if isinstance(step, str) else first is None or first == step or (name and first == name):
            found.append(rule[1:])
    return tuple(found)


def is_dropped(rules: Rules) -> bool:
    """Return True where one of the rules means this place."""
    return () in rules


def tool_name(item: Json) -> str | None:
    """Return the name of an offered tool, or None where this is none."""
    if not isinstance(item, Mapping):
        return None
    function = item.get("function", item)
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else None
