"""How strong a recording is: whether a replay would notice that an agent asks for something else. Pure.

Every recorded request is altered in many small ways, and compared with the recorded one as a replay would. What would
be served all the same is missed, and an ignored path or a kind of volatile token is to blame.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, cast

from oao_harness.journal.matcher import would_match
from oao_harness.journal.paths import Path, path_text
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.renaming import Renaming
from oao_harness.journal.shape import Shaper
from oao_harness.journal.tokens import DEFAULT_KINDS
from oao_hookspecs import Json

__all__ = ["Missed", "Strength", "mutants", "strength"]

_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_NUMBER: Final = re.compile(r"\d+")
_NOT_TEXT: Final = frozenset({"role", "id", "call_id"})
_NEW_WORD: Final = "elsewhere"
_NEW_TOOL: Final[Json] = {"name": "oao_extra_tool", "description": "A tool more.", "parameters": {"type": "object"}}

_Mutant = tuple[str, dict[str, Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """An altered request that would be answered as if it were the recorded one."""

    step: int
    """Number of the recorded event."""
    description: str
    """How it was altered: `changed word in messages[0].content`."""
    blame: str
    """What hides it: `ignore messages[].content`, `volatile port`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """How many altered requests a replay would notice."""

    caught: int
    total: int
    missed: tuple[Missed, ...]


def strength(
    recording: Recording,
    *,
    ignore: Iterable[str] = (),
    volatile: Iterable[str] = DEFAULT_KINDS,
    limit: int = 20,
    seed: int = 0,
) -> Strength:
    """Return how many altered copies of its requests a replay of a recording would notice.

    The order of calls has no part in it: whatever it may be, what is served for another call leaves its own unplayed.

    Args:
        recording: What was recorded.
        ignore: Paths that are not compared.
        volatile: Kinds of tokens that may be renamed.
        limit: How many altered copies of one request are tried.
        seed: Chooses them.

    Raises:
        ConfigError: A path cannot be read, or there is no such kind.
    """
    shaper = Shaper(ignore, volatile)
    known = Renaming()
    total = 0
    missed: list[Missed] = []
    for event in sorted(recording.events, key=lambda one: one.start):
        for description, altered in mutants(event.request, event.kind, limit, seed + event.n):
            total += 1
            if would_match(event, altered, shaper, known):
                blame = _blame(event, altered, shaper, known)
                missed.append(Missed(step=event.n, description=description, blame=blame))
        tokens = shaper.shape(event.kind, event.name, event.request).tokens
        known.bind(tokens, tokens, event.n)
        known.answer(shaper.tokens_in(event.value), event.n)
    return Strength(caught=total - len(missed), total=total, missed=tuple(missed))


def _blame(event: RecordedEvent, altered: Mapping[str, Json], shaper: Shaper, known: Renaming) -> str:
    """Return the one rule or kind without which it would be noticed; all rules where it takes several."""
    for rule in shaper.ignore:
        others = [one for one in shaper.ignore if one != rule]
        if not would_match(event, altered, Shaper(others, shaper.volatile), known):
            return f"ignore {rule}"
    for kind in sorted(shaper.volatile):
        if not would_match(event, altered, Shaper(shaper.ignore, shaper.volatile - {kind}), known):
            return f"volatile {kind}"
    return f"ignore {', '.join(shaper.ignore)}" if shaper.ignore else f"volatile {', '.join(sorted(shaper.volatile))}"


def mutants(request: Mapping[str, Json], kind: str, limit: int = 20, seed: int = 0) -> list[_Mutant]:
    """Return altered copies of a request, each with what was altered; the same ones for the same seed.

    Args:
        request: A recorded request.
        kind: `model` or `tool`.
        limit: The most that are returned; of every sort some before more of one.
        seed: Chooses among more.
    """
    sorts = list(_of_model(request) if kind == "model" else _of_tool(request))
    chance = random.Random(seed)  # noqa: S311 - a choice that must be the same tomorrow
    waiting = [list(sort) for sort in sorts]
    for sort in waiting:
        chance.shuffle(sort)
    chosen: list[_Mutant] = []
    while len(chosen) < limit and any(waiting):
        for sort in waiting:
            if sort and len(chosen) < limit:
                chosen.append(sort.pop())
    return chosen


def _of_model(request: Mapping[str, Json]) -> Iterator[Iterator[_Mutant]]:
    whole = dict(request)
    messages = list(cast("Sequence[Mapping[str, Json]]", request.get("messages") or ()))
    leaves = list(_leaves(messages, ("messages",)))
    arguments = [one for one in leaves if "args" in one[0]]
    texts = [one for one in leaves if "args" not in one[0] and one[0][-1] not in _NOT_TEXT]
    yield _changed(whole, texts, "word")
    yield (
        (f"dropped messages[{i}]", {**whole, "messages": [*messages[:i], *messages[i + 1 :]]})
        for i in range(len(messages))
    )
    yield _swapped(whole, messages)
    yield _with_swapped_ids(whole, messages)
    yield _changed(whole, texts, "number")
    tools = list(cast("Sequence[Json]", request.get("tools") or ()))
    yield iter([("extra tool", {**whole, "tools": [*tools, _NEW_TOOL]})])
    yield _parameters(whole)
    yield _changed(whole, arguments, "argument")


def _of_tool(request: Mapping[str, Json]) -> Iterator[Iterator[_Mutant]]:
    whole = dict(request)
    leaves = list(_leaves(whole, ()))
    yield _changed(whole, leaves, "word")
    yield _changed(whole, leaves, "number")
    yield ((f"dropped {name}", {key: whole[key] for key in whole if key != name}) for name in whole)
    yield iter([("extra argument", {**whole, "oao_extra": _NEW_WORD})])


def _swapped(whole: dict[str, Json], messages: list[Mapping[str, Json]]) -> Iterator[_Mutant]:
    for i in range(len(messages) - 1):
        if messages[i] != messages[i + 1]:
            altered = [*messages[:i], messages[i + 1], messages[i], *messages[i + 2 :]]
            yield f"swapped messages[{i}] and messages[{i + 1}]", {**whole, "messages": altered}


def _with_swapped_ids(whole: dict[str, Json], messages: list[Mapping[str, Json]]) -> Iterator[_Mutant]:
    results = [i for i, one in enumerate(messages) if one.get("call_id") is not None]
    for i, j in pairwise(results):
        if messages[i]["call_id"] == messages[j]["call_id"]:
            continue
        altered = list(messages)
        altered[i] = {**messages[i], "call_id": messages[j]["call_id"]}
        altered[j] = {**messages[j], "call_id": messages[i]["call_id"]}
        yield f"swapped the ids of messages[{i}] and messages[{j}]", {**whole, "messages": altered}


def _parameters(whole: dict[str, Json]) -> Iterator[_Mutant]:
    for name, value in whole.items():
        if name not in {"messages", "tools"}:
            for path, leaf in _leaves(value, (name,)):
                yield f"changed parameter {path_text(path)}", _with(whole, path, _other(leaf))
    yield "extra parameter", {**whole, "oao_extra": _NEW_WORD}


def _changed(whole: dict[str, Json], leaves: Sequence[tuple[Path, Json]], what: str) -> Iterator[_Mutant]:
    """Yield copies with another word, number or argument; a number in a text is one too."""
    for path, leaf in leaves:
        where = f"in {path_text(path)}"
        if what == "argument":
            yield f"changed argument {where}", _with(whole, path, _other(leaf))
        elif isinstance(leaf, str):
            pattern = _WORD if what == "word" else _NUMBER
            for found in pattern.finditer(leaf):
                new = _NEW_WORD if what == "word" else str(int(found[0]) + 1).zfill(len(found[0]))
                yield f"changed {what} {where}", _with(whole, path, leaf[: found.start()] + new + leaf[found.end() :])
        elif what == "number" and leaf is not None:
            yield f"changed {'flag' if isinstance(leaf, bool) else 'number'} {where}", _with(whole, path, _other(leaf))


def _other(leaf: Json) -> Json:
    if isinstance(leaf, bool):
        return not leaf
    if isinstance(leaf, int | float):
        return leaf + 1
    return f"{leaf} {_NEW_WORD}" if isinstance(leaf, str) else _NEW_WORD


def _leaves(value: Json, path: Path) -> Iterator[tuple[Path, Json]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _leaves(item, (*path, place))
    else:
        yield path, value


def _with(whole: dict[str, Json], path: Path, leaf: Json) -> dict[str, Json]:
    return cast("dict[str, Json]", _replaced(whole, path, leaf))


def _replaced(value: Json, path: Path, leaf: Json) -> Json:
    if not path:
        return leaf
    if isinstance(value, Mapping):
        return {key: _replaced(item, path[1:], leaf) if key == path[0] else item for key, item in value.items()}
    items = cast("Sequence[Json]", value)
    return [_replaced(item, path[1:], leaf) if place == path[0] else item for place, item in enumerate(items)]
