"""What one recording changes of another, call by call, as values that a person reviews. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal, TypeAlias, cast

from oao_harness.journal.differences import compare
from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.recording import Recording
from oao_harness.journal.records import error_to_json
from oao_harness.journal.sharing import canonical
from oao_harness.journal.tokens import DEFAULT_KINDS, cut
from oao_hookspecs import Json

__all__ = ["Change", "Changes", "Kind", "changes", "changes_as_json"]

Kind: TypeAlias = Literal["equal", "changed", "added", "removed"]
_IDS: Final = ("id", "call_id", "tool_call_id")
_FRAMES: Final = ("at", "clock")


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
    comparison = _Comparison()
    before: Sequence[RecordedEvent] = () if old is None else old.events
    steps = tuple(comparison.step(one, other) for one, other in _aligned(before, new.events))
    header = () if old is None else tuple(_header_lines(old.header, new.header))
    return Changes(steps=steps, header=header)


# Shorter ones may be part of a word: they are renamed only where they are the whole text.
_LONG_ID: Final = 16
_Pair: TypeAlias = tuple[RecordedEvent | None, RecordedEvent | None]


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


def _blocks(one: Sequence[object], other: Sequence[object]) -> Iterator[tuple[bool, int, int, int, int]]:
    matcher = SequenceMatcher(None, cast("Sequence[str]", one), cast("Sequence[str]", other), autojunk=False)
    for operation, a, b, c, d in matcher.get_opcodes():
        yield operation == "equal", a, b, c, d


class _Comparison:
    """Compares calls in order, and remembers what it has shown and which ids were only renamed."""

    def __init__(self) -> None:
        self._renamed: dict[str, str] = {}
        self._taken: set[str] = set()
        self._shown: set[tuple[str, str]] = set()

    def step(self, old: RecordedEvent | None, new: RecordedEvent | None) -> Change:
        if old is None:
            return Change(kind="added", old=None, new=new, headline="added")
        if new is None:
            return Change(kind="removed", old=old, new=None, headline="removed")
        quiet = self._quiet(old, new)
        # Not by their keys alone: they are blind for ids.
        same = old.key == new.key and canonical(dict(old.request)) == canonical(dict(new.request))
        same = same and old.error == new.error and old.decision == new.decision
        if same and _rest(old) == _rest(new) and canonical(old.value) == canonical(new.value):
            # By far the most: nothing of them needs a closer look.
            return Change(kind="equal", old=old, new=new, quiet=quiet)
        before = len(self._renamed)
        self._find_ids(dict(old.request), dict(new.request))
        asked, request = dict(cast("Mapping[str, Json]", self._plain(dict(old.request)))), dict(new.request)
        follows = False
        if old.kind == "model":
            request, follows = self._without_shown(asked, request)
        comparison = compare(old.kind, asked, request)
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
        return ["ids"] if self._renamed and any(one in canonical(dict(old.request)) for one in self._renamed) else []

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
        texts = [[*map(canonical, part)] for part in (one, other)]
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
                self._find_ids(one, other)

    def _rename(self, old: str, new: str) -> None:
        # One to one: two ids that become one are a change.
        if old != new and old not in self._renamed and new not in self._taken and min(len(old), len(new)) > 3:
            self._renamed[old] = new
            self._taken.add(new)

    def _plain(self, value: Json) -> Json:
        """Return a recorded value with its ids as they are now."""
        if not self._renamed:
            return value
        text = canonical(value)
        return _with_ids(value, self._renamed) if any(one in text for one in self._renamed) else value


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
