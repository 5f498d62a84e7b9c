"""What changed between two requests, in words a person would use: one line for the summary, then the details. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, TypeAlias, TypeVar, cast

from oao_harness.journal.paths import Path, Rules, is_dropped, path_text, rules_below, tool_name
from oao_hookspecs import Json

__all__ = ["Comparison", "Difference", "Lens", "brief", "compare", "opcodes"]

_CONTEXT_WORDS: Final = 5
_LONGEST_PIECE: Final = 72
_MOST_COMPARED: Final = 2000
_SHORT_TEXT: Final = 40
_WORD: Final = re.compile(r"\s+|\d[\d.,:]*\d|\w+(?:[-_']\w+)*|[^\w\s]")
_ROLES: Final = {
    "system": "system prompt",
    "developer": "system prompt",
    "human": "user message",
    "user": "user message",
    "ai": "assistant message",
    "assistant": "assistant message",
}

_Opcode: TypeAlias = tuple[str, int, int, int, int]
H = TypeVar("H", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place where two requests differ."""

    sign: str
    """`~`, `+` or `-`: changed, only in the live request, only in the recorded one."""
    path: str
    """As `ignore` takes it; for a text of several lines with the number of the line behind it."""
    text: str
    """The change, never long: `49.99 -> 499.9`, or the words around it with `[-gone-]` and `{+new+}`."""

    @property
    def line(self) -> str:
        """The difference as it is shown."""
        return f"{self.sign} {self.path}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All differences of two requests."""

    headline: str
    """The most telling one in a few words: `system prompt changed`, `amount 49.99 -> 499.9`."""
    differences: tuple[Difference, ...]
    equal: int
    """Number of other values, which are equal."""


def _same(value: str) -> str:
    return value


def _digest(value: Json, rules: Rules) -> Hashable:
    return json.dumps(value, sort_keys=True), rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """What to overlook."""

    rules: Rules = ()
    """Paths that are not compared."""
    translate: Callable[[str], str] = _same
    """Returns a live text with the recorded ids in place of the live ones that stand for them."""
    is_equal: Callable[[str, str], bool] = str.__eq__
    """Whether a recorded and a live text differ in nothing but ids that may differ."""
    digest: Callable[[Json, Rules], Hashable] = _digest
    """Of an element of a live list."""
    recorded_digest: Callable[[Json, Rules], Hashable] = _digest
    """Of an element of a recorded list; equal to that of an equal live one."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A difference with its values; `moved` is the new place of an element that is otherwise equal."""

    sign: str
    path: Path
    old: Json = None
    new: Json = None
    moved: int | None = None


def compare(kind: str, recorded: Mapping[str, Json], live: Mapping[str, Json], lens: Lens | None = None) -> Comparison:
    """Return how a live request differs from a recorded one.

    Args:
        kind: `model` or `tool`.
        recorded: The recorded request.
        live: The live one.
        lens: What to overlook; nothing by default.
    """
    found = _Finder(lens or Lens())
    changes = list(found.changes(recorded, live, (), found.lens.rules))
    differences = tuple(one for change in changes for one in _shown(change))
    headline = _headline(kind, changes, recorded, live) if changes else "nothing that is compared changed"
    return Comparison(headline=headline, differences=differences, equal=found.equal)


class _Finder:
    """Walks two values side by side and counts what is equal."""

    def __init__(self, lens: Lens) -> None:
        self.lens = lens
        self.equal = 0

    def changes(self, old: Json, new: Json, path: Path, rules: Rules) -> Iterator[_Change]:
        if is_dropped(rules):
            return
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from self._mapping_changes(old, new, path, rules)
        elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
            by_name = path == ("tools",) and (_by_name(old), _by_name(new))
            if by_name and all(by_name) and set(by_name[0]) | set(by_name[1]):
                named = list(self._mapping_changes(by_name[0], by_name[1], path, rules, in_list=True))
                # None: the order changed, which only the places tell.
                if named:
                    yield from named
                    return
            yield from self._list_changes(old, new, path, rules)
        elif isinstance(old, str) and isinstance(new, str):
            if self.lens.is_equal(old, new):
                self.equal += 1
            else:
                yield _Change("~", path, old, self.lens.translate(new))
        elif json.dumps(old) != json.dumps(new):
            yield _Change("~", path, old, new)
        else:
            self.equal += 1

    def _mapping_changes(
        self, old: Mapping[str, Json], new: Mapping[str, Json], path: Path, rules: Rules, *, in_list: bool = False
    ) -> Iterator[_Change]:
        # Keys may be ids too: what stands for a recorded one is compared with it.
        renamed = {self.lens.translate(key): key for key in new if key not in old}
        for key in [*old, *(key for key in new if key not in old and self.lens.translate(key) not in old)]:
            below = rules_below(rules, 0, old.get(key, new.get(key))) if in_list else rules_below(rules, key)
            if is_dropped(below):
                continue
            if key in old and (key in new or key in renamed):
                yield from self.changes(old[key], new[key] if key in new else new[renamed[key]], (*path, key), below)
            elif key in old:
                yield _Change("-", (*path, key), old[key])
            else:
                yield _Change("+", (*path, key), None, new[key])

    def _list_changes(self, old: Sequence[Json], new: Sequence[Json], path: Path, rules: Rules) -> Iterator[_Change]:
        before = [self.lens.recorded_digest(item, rules_below(rules, 0, item)) for item in old]
        after = [self.lens.digest(item, rules_below(rules, 0, item)) for item in new]
        gone: list[int] = []
        come: list[int] = []
        pairs: list[tuple[int, int]] = []
        for operation, a, b, c, d in opcodes(before, after):
            if operation == "equal":
                self.equal += sum(_leaves(item) for item in old[a:b])
                continue
            both = min(b - a, d - c)
            pairs += zip(range(a, a + both), range(c, c + both), strict=True)
            gone += range(a + both, b)
            come += range(c + both, d)
        moved: dict[int, int] = {}
        for place in gone:
            if (to := next((one for one in come if after[one] == before[place]), None)) is not None:
                moved[place] = to
                come.remove(to)
        found: list[tuple[int, int, Iterable[_Change]]] = []
        for a, c in pairs:
            found.append((c, 1, self.changes(old[a], new[c], (*path, c), rules_below(rules, c, new[c]))))
        for place in gone:
            if place in moved:
                found.append((place, 2, [_Change("~", (*path, place), old[place], None, moved[place])]))
            elif not is_dropped(rules_below(rules, place, old[place])):
                found.append((place, 0, [_Change("-", (*path, place), old[place])]))
        for place in come:
            if not is_dropped(rules_below(rules, place, new[place])):
                found.append((place, 0, [_Change("+", (*path, place), None, new[place])]))
        for _, _, changes in sorted(found, key=lambda one: one[:2]):
            yield from changes


def opcodes(before: Sequence[H], after: Sequence[H], *, most: int = _MOST_COMPARED) -> list[_Opcode]:
    """Return how one sequence becomes the other, as difflib says it; cheaply where most of it is equal.

    Args:
        before: What it was.
        after: What it is.
        most: Where more than so many elements are left between what is equal at both ends, all of them are replaced.
    """
    head = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    backwards = zip(reversed(before[head:]), reversed(after[head:]), strict=False)
    tail = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], backwards))
    a, b, c, d = head, len(before) - tail, head, len(after) - tail
    middle: list[_Opcode] = []
    if max(b - a, d - c) > most or a == b or c == d:
        operation = "replace" if a < b and c < d else "delete" if a < b else "insert"
        middle = [(operation, a, b, c, d)] if a < b or c < d else []
    else:
        matcher = difflib.SequenceMatcher(None, before[a:b], after[c:d], autojunk=False)
        middle = [(one, a + i, a + j, c + k, c + m) for one, i, j, k, m in matcher.get_opcodes()]
    start: list[_Opcode] = [("equal", 0, a, 0, c)] if head else []
    end: list[_Opcode] = [("equal", b, len(before), d, len(after))] if tail else []
    return start + middle + end


def _leaves(value: Json) -> int:
    if isinstance(value, Mapping):
        return sum(map(_leaves, value.values()))
    return sum(map(_leaves, value)) if isinstance(value, list | tuple) else 1


def _by_name(tools: Sequence[Json]) -> dict[str, Json]:
    """Return offered tools by their names; empty where one has none, or two share one."""
    named = {name: tool for tool in tools if (name := tool_name(tool)) is not None}
    return named if len(named) == len(tools) else {}


# The first line


def _headline(kind: str, changes: Sequence[_Change], recorded: Mapping[str, Json], live: Mapping[str, Json]) -> str:
    first = changes[0]
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    if kind == "model" and first.path[0] == "messages":
        return _message_headline(first, recorded, live)
    if kind == "model" and first.path[0] == "tools":
        named = len(first.path) > 1 and isinstance(first.path[1], str)
        return f"offered tools changed: {_short(first, first.path[1:] if named else first.path)}{more}"
    return _short(first, first.path) + more


def _message_headline(change: _Change, recorded: Mapping[str, Json], live: Mapping[str, Json]) -> str:
    old, new = (cast("Sequence[Json]", request.get("messages") or ()) for request in (recorded, live))
    if len(change.path) == 1:
        return f"{len(old)} -> {len(new)} messages"
    place = cast("int", change.path[1])
    whole = len(change.path) == 2
    if change.moved is not None and whole:
        return f"{_message_name(old, place)} moved from place {place + 1} to {change.moved + 1}"
    if change.sign == "~" or not whole:
        if _role_of(new[place]) == "tool" and change.path[2:] == ("call_id",):
            return f"{_message_name(new, place)} is given to another call"
        return f"{_message_name(new, place)} changed"
    name = _message_name(new if change.sign == "+" else old, place)
    count = "" if len(old) == len(new) else f" ({len(old)} -> {len(new)} messages)"
    return f"{name} {'added' if change.sign == '+' else 'missing'}{count}"


def _role_of(message: Json) -> str:
    return str(message.get("role", "")) if isinstance(message, Mapping) else ""


def _message_name(messages: Sequence[Json], place: int) -> str:
    """Return what a person calls a message: `system prompt`, `result of tool lookup`."""
    message = messages[place]
    role = _role_of(message)
    if role == "tool" and isinstance(message, Mapping):
        name = message.get("name") or _called(messages[:place], message.get("call_id"))
        return f"result of tool {name}" if name else "tool result"
    return _ROLES.get(role, f"messages[{place}] ({role})" if role else f"messages[{place}]")


def _called(messages: Sequence[Json], call_id: Json) -> Json:
    """Return the name of the tool that a model gave a call id."""
    for message in reversed(messages):
        calls = message.get("calls") if isinstance(message, Mapping) else None
        for call in calls if isinstance(calls, list | tuple) else ():
            if isinstance(call, Mapping) and call_id is not None and call.get("id") == call_id:
                return call.get("name")
    return None


def _short(change: _Change, path: Path) -> str:
    where = path_text(path)
    if change.moved is not None:
        return f"{where} moved to [{change.moved}]"
    if change.sign != "~":
        return f"{where} {'added' if change.sign == '+' else 'missing'}"
    before, after = brief(change.old), brief(change.new)
    return f"{where} changed" if len(before) + len(after) > 60 else f"{where} {before} -> {after}"


# The lines below


def _shown(change: _Change) -> Iterator[Difference]:
    where = path_text(change.path)
    old, new = change.old, change.new
    if change.moved is not None:
        yield Difference(sign="~", path=where, text=f"moved to [{change.moved}]: {brief(old, _LONGEST_PIECE)}")
    elif change.sign != "~":
        value = new if change.sign == "+" else old
        yield Difference(sign=change.sign, path=where, text=_summary(value))
    elif (isinstance(old, str) and isinstance(new, str) and max(len(old), len(new)) > _SHORT_TEXT) or (
        isinstance(old, str) and isinstance(new, str) and "\n" in old + new
    ):
        yield from _text_differences(where, old, new)
    else:
        text = f"{brief(old, _LONGEST_PIECE)} -> {brief(new, _LONGEST_PIECE)}"
        yield Difference(sign="~", path=where, text=text)


def _text_differences(where: str, old: str, new: str) -> Iterator[Difference]:
    """Yield the changed lines of a text."""
    before, after = old.split("\n"), new.split("\n")
    if len(before) == len(after) == 1:
        yield Difference(sign="~", path=where, text=_words(old, new))
        return
    for operation, a, b, c, d in opcodes(before, after):
        if operation == "equal":
            continue
        both = min(b - a, d - c)
        for i in range(both):
            text = _words(before[a + i], after[c + i])
            yield Difference(sign="~", path=f"{where} line {c + i + 1}", text=text)
        for i in range(a + both, b):
            yield Difference(sign="-", path=f"{where} line {i + 1}", text=_cut(before[i], _LONGEST_PIECE))
        for i in range(c + both, d):
            yield Difference(sign="+", path=f"{where} line {i + 1}", text=_cut(after[i], _LONGEST_PIECE))


def _words(old: str, new: str) -> str:
    """Return a line with its changes marked, and a few words around them."""
    before, after = _WORD.findall(old), _WORD.findall(new)
    steps = opcodes(before, after)
    parts: list[str] = []
    for number, (operation, a, b, c, d) in enumerate(steps):
        if operation == "equal":
            parts.append(_elided(before[a:b], first=number == 0, last=number == len(steps) - 1))
        else:
            parts.append(f"[-{_cut(''.join(before[a:b]), _LONGEST_PIECE)}-]" if b > a else "")
            parts.append(f"{{+{_cut(''.join(after[c:d]), _LONGEST_PIECE)}+}}" if d > c else "")
    return _cut("".join(parts), 4 * _LONGEST_PIECE)


def _elided(words: list[str], *, first: bool, last: bool) -> str:
    keep = _CONTEXT_WORDS * 2
    if len(words) <= keep * 2 and len("".join(words)) <= 2 * _LONGEST_PIECE:
        return "".join(words)
    head = "" if first else "".join(words[:keep])[:_LONGEST_PIECE]
    tail = "" if last else "".join(words[-keep:])[-_LONGEST_PIECE:]
    return f"{head}...{tail}"


def _summary(value: Json) -> str:
    """Return what was added or is missing: a tool by its name, a message by its role, else the value."""
    if isinstance(value, Mapping) and "role" in value:
        calls = value.get("calls")
        listed: Sequence[Json] = calls if isinstance(calls, list | tuple) else ()
        names = [str(one.get("name")) for one in listed if isinstance(one, Mapping)]
        said = f"calls {', '.join(names)}" if names and not value.get("content") else brief(value.get("content"), 90)
        return f"{value['role']} {said}"
    return brief(value, 100)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width * 2 // 3]}...{text[-(width // 3) + 3 :]}"


def brief(value: Json, width: int = 40) -> str:
    """Return a value as JSON, cut in the middle where it is longer than so many characters."""
    return _cut(json.dumps(value, ensure_ascii=False), width)
