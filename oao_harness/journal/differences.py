"""What changed between two requests, in words a person would use: one line for the summary, then the details. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from oao_hookspecs import Json

__all__ = ["details", "headline"]

_MOST_DETAILS: Final = 8
_CONTEXT_WORDS: Final = 4
_ROLES: Final = {
    "system": "system prompt",
    "developer": "system prompt",
    "human": "user message",
    "user": "user message",
}

_Path = tuple[str | int, ...]
_Change = tuple[str, _Path, Json, Json]
"""`~`, `+` or `-`; the path; the recorded value; the live value."""


def headline(kind: str, recorded: Mapping[str, Json], live: Mapping[str, Json]) -> str:
    """Return the most telling change in a few words: `system prompt changed`, `amount 49.99 -> 499.9`."""
    changes = list(_changes(recorded, live, ()))
    if not changes:
        return "nothing that is compared changed"
    first = changes[0]
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    if kind != "model":
        return _short(first) + more
    path = first[1]
    if path[0] == "messages":
        return _message_headline(first, recorded, live)
    if path[0] == "tools":
        named = len(path) > 1 and isinstance(path[1], str)
        return f"offered tools changed: {_short((first[0], path[1:] if named else path, *first[2:]))}{more}"
    return _short(first) + more


def _message_headline(change: _Change, recorded: Mapping[str, Json], live: Mapping[str, Json]) -> str:
    sign, path, _, _ = change
    old, new = (cast("Sequence[Json]", request.get("messages", ())) for request in (recorded, live))
    if len(path) == 1 or sign != "~":
        return f"{len(old)} -> {len(new)} messages"
    index = cast("int", path[1])
    role = _role(new[index])
    return f"{_ROLES.get(role, f'messages[{index}] ({role})')} changed"


def _role(message: Json) -> str:
    return str(message.get("role", "")) if isinstance(message, Mapping) else ""


def details(recorded: Mapping[str, Json], live: Mapping[str, Json]) -> list[str]:
    """Return at most eight lines, one for each difference: `~ amount: 49.99 -> 499.9`; text is compared by words."""
    changes = list(_changes(recorded, live, ()))
    lines = [_line(change) for change in changes[:_MOST_DETAILS]]
    if len(changes) > _MOST_DETAILS:
        lines.append(f"... and {len(changes) - _MOST_DETAILS} more")
    return lines


def _changes(old: Json, new: Json, path: _Path) -> Iterator[_Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in new:
                yield "-", (*path, key), old[key], None
            elif key not in old:
                yield "+", (*path, key), None, new[key]
            else:
                yield from _changes(old[key], new[key], (*path, key))
    elif _is_list(old) and _is_list(new):
        yield from _list_changes(cast("Sequence[Json]", old), cast("Sequence[Json]", new), path)
    elif type(old) is not type(new) or old != new:
        yield "~", path, old, new


def _list_changes(old: Sequence[Json], new: Sequence[Json], path: _Path) -> Iterator[_Change]:
    if path == ("tools",) and (before := _by_name(old)) and (after := _by_name(new)):
        by_name = list(_changes(before, after, path))
        # None: the order changed, which only the places tell.
        if by_name:
            yield from by_name
            return
    for index, (one, other) in enumerate(zip(old, new, strict=False)):
        yield from _changes(one, other, (*path, index))
    for index in range(len(new), len(old)):
        yield "-", (*path, index), old[index], None
    for index in range(len(old), len(new)):
        yield "+", (*path, index), None, new[index]


def _by_name(tools: Sequence[Json]) -> dict[str, Json]:
    """Return offered tools by their names; empty where one has none, or two share one."""
    named: dict[str, Json] = {}
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if isinstance(name, str):
            named[name] = tool
    return named if len(named) == len(tools) else {}


def _is_list(value: Json) -> bool:
    return isinstance(value, list | tuple)


def _short(change: _Change) -> str:
    sign, path, old, new = change
    where = _path_text(path)
    if sign == "+":
        return f"{where} added"
    if sign == "-":
        return f"{where} missing"
    before, after = _brief(old), _brief(new)
    return f"{where} changed" if len(before) + len(after) > 60 else f"{where} {before} -> {after}"


def _line(change: _Change) -> str:
    sign, path, old, new = change
    where = _path_text(path)
    if sign != "~":
        return f"{sign} {where}: {_brief(new if sign == '+' else old, 120)}"
    if isinstance(old, str) and isinstance(new, str) and (len(old) > 40 or len(new) > 40 or "\n" in old + new):
        return f"~ {where}{_text_change(old, new)}"
    return f"~ {where}: {_brief(old, 60)} -> {_brief(new, 60)}"


def _text_change(old: str, new: str) -> str:
    """Return the first changed line of a text, by words, with a few words around the change."""
    before, after = old.split("\n"), new.split("\n")
    number = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
    if number is None:
        return f": {len(before)} -> {len(after)} lines"
    words, others = (re.findall(r"\s+|\S+", text[number]) for text in (before, after))
    parts: list[str] = []
    for operation, a, b, c, d in difflib.SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        if operation == "equal":
            parts.append(_elided(words[a:b], first=a == 0, last=b == len(words)))
        else:
            parts.append(f"[-{''.join(words[a:b])}-]" if b > a else "")
            parts.append(f"{{+{''.join(others[c:d])}+}}" if d > c else "")
    line = f" line {number + 1}" if len(before) > 1 or len(after) > 1 else ""
    return f"{line}: {''.join(parts)}"


def _elided(words: list[str], *, first: bool, last: bool) -> str:
    keep = _CONTEXT_WORDS * 2
    if len(words) <= keep * 2:
        return "".join(words)
    head = "" if first else "".join(words[:keep])
    tail = "" if last else "".join(words[-keep:])
    return f"{head}...{tail}"


def _path_text(path: _Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "value"


def _brief(value: Json, width: int = 40) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= width else text[: width - 3] + "..."
