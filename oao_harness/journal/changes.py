"""What one recording changes of another, call by call, as values that a person reviews. Pure."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from sys import maxsize
from typing import Final, Literal, TypeAlias, TypeVar, cast

from oao_harness.journal.differences import Lens, compare, opcodes
from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.paths import Rules
from oao_harness.journal.recording import Recording
from oao_harness.journal.records import error_to_json
from oao_harness.journal.sharing import Shared, canonical
from oao_harness.journal.tokens import DEFAULT_KINDS, cut
from oao_hookspecs import Json

__all__ = ["Change", "Changes", "Kind", "changes", "changes_as_json"]

Kind: TypeAlias = Literal["equal", "changed", "added", "removed"]
_IDS: Final = ("id", "call_id", "tool_call_id")
_FRAMES: Final = ("at", "clock")
_LISTS: Final = ("messages", "tools")
"""What of a request `Shared` has made one object of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One call in both recordings, or in one of them."""

    kind: Kind
    old: RecordedEvent | None
    new: RecordedEvent | None
    lines: tuple[str, ...] = ()
    """What is different, see `differences.Difference`; empty where the call is equal."""
    headline: str = ""
    """The most telling of it, in a few words."""
    follows: bool = False
    """True where it differs only in what an earlier change of the same review has shown already: a conversation that
    is sent again holds every change before it."""
    quiet: tuple[str, ...] = ()
    """What is different and no change of behaviour: `times`, `usage`, `ids`, `attempts`."""

    @property
    def event(self) -> RecordedEvent:
        """The call, as it is now where it still is."""
        return cast("RecordedEvent", self.new if self.new is not None else self.old)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What one recording changes of another."""

    steps: tuple[Change, ...]
    """Every call of both, in order."""
    header: tuple[str, ...] = ()
    """How the headers differ, one line each: no change of behaviour."""

    @property
    def behaviour(self) -> tuple[Change, ...]:
        """The calls that are not equal."""
        return tuple(step for step in self.steps if step.kind != "equal")

    @property
    def quiet(self) -> tuple[str, ...]:
        """The names of what is different without being a change of behaviour."""
        return tuple(dict.fromkeys(name for step in self.steps for name in step.quiet))

    @property
    def headline(self) -> str:
        """One line: `3 steps changed, 1 added; first: step 4 tool refund: amount 49.99 -> 52`."""
        found = self.behaviour
        if not found:
            return f"nothing changed but {_listed([*self.quiet, *(['the header'] if self.header else [])])}"
        counts = [(kind, sum(one.kind == kind for one in found)) for kind in ("changed", "added", "removed")]
        told: list[str] = []
        for kind, count in counts:
            if count:
                noun = "" if told else " step" if count == 1 else " steps"
                told.append(f"{count}{noun} {kind}")
        first = next((one for one in found if not one.follows), found[0])
        return f"{', '.join(told)}; first: {_named(first.event)}: {first.headline}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "nothing"


def _named(event: RecordedEvent) -> str:
    return f"step {event.n} {event.kind} {event.name}"


def changes(old: Recording | None, new: Recording) -> Changes:
    """Compare two recordings.

    Args:
        old: What is recorded; None where nothing is.
        new: What it would become.
    """
    comparison, shared = _Comparison(), Shared()
    before: Sequence[RecordedEvent] = () if old is None else _sharing(old, shared, "old")
    steps = tuple(comparison.step(one, other) for one, other in _aligned(before, _sharing(new, shared, "new")))
    header = () if old is None else tuple(_header_lines(old.header, new.header))
    return Changes(steps=steps, header=header)


def _sharing(recording: Recording, shared: Shared, side: str) -> list[RecordedEvent]:
    """Return the calls of a recording with one object for what equal messages of both recordings are."""
    return [
        replace(event, request=shared.request(event.kind, f"{side} {event.run}", event.request))
        for event in recording.events
    ]


# Shorter ones may be part of a word: they are renamed only where they are the whole text.
_LONG_ID: Final = 16
_Pair: TypeAlias = tuple[RecordedEvent | None, RecordedEvent | None]
H = TypeVar("H", bound=Hashable)


def _aligned(old: Sequence[RecordedEvent], new: Sequence[RecordedEvent]) -> Iterator[_Pair]:
    """Pair the calls: equal requests first; what is left between them by kind, name and run."""
    for same, a, b, c, d in _blocks([e.key for e in old], [e.key for e in new]):
        if same:
            yield from zip(old[a:b], new[c:d], strict=True)
            continue
        left, right = old[a:b], new[c:d]
        names = [[(e.kind, e.name, e.run) for e in part] for part in (left, right)]
        for alike, i, j, k, m in _blocks(*names):
            if alike:
                yield from zip(left[i:j], right[k:m], strict=True)
            else:
                yield from ((event, None) for event in left[i:j])
                yield from ((None, event) for event in right[k:m])


def _blocks(one: Sequence[H], other: Sequence[H]) -> Iterator[tuple[bool, int, int, int, int]]:
    for operation, a, b, c, d in opcodes(one, other, most=maxsize):
        yield operation == "equal", a, b, c, d


@dataclass(slots=True)
class _Known:
    """What is known of an object that many requests hold."""

    value: Json
    """Keeps it: its address is no other object's as long as it lives."""
    text: str
    names: dict[str, str]
    """The ids in it that were renamed, of those that were looked for."""
    looked: int
    """How many were."""
    plain: Json
    """With these ids as they are now."""


class _Comparison:
    """Compares calls in order, and remembers what it has shown and which ids were only renamed.

    A conversation is sent again with every call: what is looked at once is kept, or a run of 1,000 calls is looked at
    500 times.
    """

    def __init__(self) -> None:
        self._renamed: dict[str, str] = {}
        self._taken: set[str] = set()
        self._shown: set[tuple[str, str]] = set()
        self._known: dict[int, _Known] = {}
        self._walked: set[tuple[int, int]] = set()
        """Pairs of elements whose ids are known, by their addresses: both recordings outlive the comparison."""
        self._lens = Lens(digest=self._digest, recorded_digest=self._digest)

    def step(self, old: RecordedEvent | None, new: RecordedEvent | None) -> Change:
        if old is None:
            return Change(kind="added", old=None, new=new, headline="added")
        if new is None:
            return Change(kind="removed", old=old, new=None, headline="removed")
        quiet = self._quiet(old, new)
        # Not by their keys alone: they are blind for ids.
        same = old.key == new.key and _identity(old) == _identity(new)
        same = same and old.error == new.error and old.decision == new.decision
        if same and _rest(old) == _rest(new) and canonical(old.value) == canonical(new.value):
            # By far the most: nothing of them needs a closer look.
            return Change(kind="equal", old=old, new=new, quiet=quiet)
        before = len(self._renamed)
        self._find_ids(dict(old.request), dict(new.request))
        asked, request = self._plain_request(old), dict(new.request)
        follows = False
        if old.kind == "model":
            request, follows = self._without_shown(asked, request)
        comparison = compare(old.kind, asked, request, self._lens)
        lines = [one.line for one in comparison.differences]
        first = comparison.headline if lines else ""
        for name, was, is_ in self._answers(old, new):
            comparison = compare("tool", {name: was}, {name: is_})
            first = first or (comparison.headline if comparison.differences else "")
            lines += [one.line for one in comparison.differences]
        if len(self._renamed) > before:
            quiet = (*quiet, "ids")
        if lines:
            return Change(kind="changed", old=old, new=new, lines=tuple(lines), headline=first, quiet=quiet)
        if follows:
            told = "differs only in what is shown above"
            return Change(kind="changed", old=old, new=new, lines=(told,), headline=told, follows=True, quiet=quiet)
        return Change(kind="equal", old=old, new=new, quiet=tuple(dict.fromkeys([*quiet, *self._renamed_in(old)])))

    def _renamed_in(self, old: RecordedEvent) -> list[str]:
        plain = self._plain_request(old)
        return ["ids"] if any(plain[key] is not value for key, value in old.request.items()) else []

    def _quiet(self, old: RecordedEvent, new: RecordedEvent) -> tuple[str, ...]:
        found = ["times"] if (old.at, old.took_s) != (new.at, new.took_s) else []
        found += ["usage"] if old.usage != new.usage else []
        found += ["attempts"] if old.attempts != new.attempts else []
        if old.call_id != new.call_id and old.call_id and new.call_id:
            self._rename(old.call_id, new.call_id)
            found.append("ids")
        return tuple(found)

    def _answers(self, old: RecordedEvent, new: RecordedEvent) -> Iterator[tuple[str, Json, Json]]:
        self._find_ids(old.value, new.value)
        was, is_ = self._plain(old.value), new.value
        if old.kind == "model" and isinstance(was, Mapping) and isinstance(is_, Mapping):
            # What follows is sent with the answer: it needs not to be shown again.
            self._shown.add((canonical(was.get("message")), canonical(is_.get("message"))))
        yield "result", was, is_
        yield "error", self._plain(_error(old)), _error(new)
        yield "decision", old.decision, new.decision
        yield from ((name, one, other) for (name, one), (_, other) in zip(_rest(old), _rest(new), strict=True))

    def _without_shown(self, old: Mapping[str, Json], new: Mapping[str, Json]) -> tuple[dict[str, Json], bool]:
        """Return the new request with messages as they were where their change was shown, and whether any was."""
        one, other = old.get("messages"), new.get("messages")
        if not isinstance(one, list) or not isinstance(other, list):
            return dict(new), False
        texts = [[self._look(message).text for message in part] for part in (one, other)]
        messages: list[Json] = []
        follows = False
        for same, a, b, c, d in _blocks(*texts):
            if same:
                messages += one[a:b]
                continue
            for i in range(max(b - a, d - c)):
                was = texts[0][a + i] if a + i < b else ""
                is_ = texts[1][c + i] if c + i < d else ""
                shown = (was, is_) in self._shown
                follows = follows or shown
                self._shown.add((was, is_))
                if was if shown else is_:
                    messages.append(one[a + i] if shown else other[c + i])
        return {**new, "messages": messages}, follows

    def _find_ids(self, old: Json, new: Json) -> None:
        """Note ids that a provider makes up anew for each answer, where the answers have them in the same place."""
        if old is new:
            return
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            for key in old.keys() & new.keys():
                one, other = old[key], new[key]
                if key in _IDS and isinstance(one, str) and isinstance(other, str):
                    self._rename(one, other)
                else:
                    self._find_ids(one, other)
        elif isinstance(old, str) and isinstance(new, str):
            if old != new:
                # What a replay may rename is no change of behaviour here either.
                (shape, was), (now_shape, is_) = cut(old, DEFAULT_KINDS), cut(new, DEFAULT_KINDS)
                for (_, one), (_, other) in zip(was, is_, strict=False) if shape == now_shape else ():
                    self._rename(one, other)
        elif isinstance(old, list) and isinstance(new, list):
            for one, other in zip(old, new, strict=False):
                if (id(one), id(other)) not in self._walked:
                    self._walked.add((id(one), id(other)))
                    self._find_ids(one, other)

    def _rename(self, old: str, new: str) -> None:
        # One to one: two ids that become one are a change.
        if old != new and old not in self._renamed and new not in self._taken and min(len(old), len(new)) > 3:
            self._renamed[old] = new
            self._taken.add(new)

    def _plain(self, value: Json) -> Json:
        """Return a recorded value with its ids as they are now; the same object where it has none."""
        if not self._renamed:
            return value
        text = canonical(value)
        names = {one: name for one, name in self._renamed.items() if one in text}
        return _with_ids(value, names) if names else value

    def _plain_request(self, event: RecordedEvent) -> dict[str, Json]:
        lists = _lists(event)
        return {
            key: self._plain_list(lists[key]) if key in lists else self._plain(value)
            for key, value in event.request.items()
        }

    def _plain_list(self, values: list[Json]) -> list[Json]:
        plain = [self._plain_element(value) for value in values]
        return values if all(map(operator.is_, plain, values)) else plain

    def _plain_element(self, value: Json) -> Json:
        known = self._look(value)
        if known.looked < len(self._renamed):
            names = {old: new for old, new in islice(self._renamed.items(), known.looked, None) if old in known.text}
            known.looked = len(self._renamed)
            if names:
                known.names |= names
                known.plain = _with_ids(value, known.names)
        return known.plain

    def _look(self, value: Json) -> _Known:
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = _Known(value, canonical(value), {}, 0, value)
        return known

    def _digest(self, value: Json, rules: Rules) -> Hashable:
        return self._look(value).text, rules


def _identity(event: RecordedEvent) -> tuple[str, dict[str, list[int]]]:
    """Return what is equal for equal requests of both recordings, whose messages `Shared` made one object."""
    lists = _lists(event)
    rest = {key: value for key, value in event.request.items() if key not in lists}
    return canonical(rest), {key: [*map(id, values)] for key, values in lists.items()}


def _lists(event: RecordedEvent) -> dict[str, list[Json]]:
    if event.kind != "model":
        return {}
    found = {key: event.request.get(key) for key in _LISTS}
    return {key: values for key, values in found.items() if isinstance(values, list)}


def _with_ids(value: Json, names: Mapping[str, str]) -> Json:
    if isinstance(value, str):
        if value in names:
            return names[value]
        for one in [one for one in names if len(one) >= _LONG_ID and one in value]:
            value = value.replace(one, names[one])
        return value
    if isinstance(value, Mapping):
        return {key: _with_ids(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_ids(item, names) for item in value]
    return value


def _rest(event: RecordedEvent) -> list[tuple[str, Json]]:
    return [("run", event.run), ("scope", event.scope), ("finished", event.finished)]


def _error(event: RecordedEvent) -> Json:
    return None if event.error is None else error_to_json(event.error)


def _header_lines(old: Mapping[str, Json], new: Mapping[str, Json]) -> Iterator[str]:
    before, after = ({key: item for key, item in one.items() if key not in _FRAMES} for one in (old, new))
    yield from (one.line for one in compare("header", before, after).differences)


def changes_as_json(found: Changes) -> dict[str, Json]:
    """Return changes for programs."""
    steps: list[Json] = [
        {
            "kind": step.kind,
            "call": f"{step.event.kind} {step.event.name}",
            "old": None if step.old is None else step.old.n,
            "new": None if step.new is None else step.new.n,
            "follows": step.follows,
            "lines": list(step.lines),
        }
        for step in found.behaviour
    ]
    return {
        "headline": found.headline,
        **{kind: sum(step.kind == kind for step in found.behaviour) for kind in ("changed", "added", "removed")},
        "steps": steps,
        "quiet": list(found.quiet),
        "header": list(found.header),
    }
