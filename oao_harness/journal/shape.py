"""The shape of a request: what must be equal for it to be the recorded one, without ids that are new in every run.

A shape is a digest over kind, name and the canonical request, with ignored paths dropped and volatile tokens cut out;
the tokens themselves are compared by `renaming`.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from json.encoder import encode_basestring
from typing import Any, Final, TypeAlias, cast

from oao_harness.journal.paths import Rules, is_dropped, read_paths, rules_below
from oao_harness.journal.tokens import DEFAULT_KINDS, Token, cut, kinds_of
from oao_hookspecs import Json

__all__ = ["Shape", "Shaper", "default_shaper"]

# Of the versions of this format, the one in which equal bytes mean equal values: later ones refer to objects.
_MARSHAL: Final = 2
_MOST_REMEMBERED: Final = 1 << 12
_LONGEST_REMEMBERED: Final = 1 << 16
_KEY_LENGTH: Final = 16
_SHORTEST_HISTORY: Final = 4
_MOST_HISTORIES: Final = 1 << 6


@dataclass(frozen=True, slots=True)
class Shape:
    """What a request is compared by."""

    digest: str
    """32 hex digits: equal for requests that differ in nothing but their tokens."""
    tokens: tuple[Token, ...]
    """In the order of the canonical request."""

    @property
    def key(self) -> str:
        """The 16 hex digits that a recording is indexed by."""
        return self.digest[:_KEY_LENGTH]


_Part: TypeAlias = tuple[bytes, tuple[Token, ...]]
"""Digest and tokens of a part of a request."""


@dataclass(slots=True)
class _History:
    """What a list began with the last time, and what is known of that."""

    digests: bytes = b""
    tokens: list[Token] = field(default_factory=list[Token])
    copies: list[Json] = field(default_factory=list[Json])
    """Of its own, where whoever sent the items may change them before they are sent again."""
    exact: dict[int, bytes] = field(default_factory=dict[int, bytes])
    """By place, what items must be beyond being equal."""

    def begins(self, values: Sequence[Json]) -> bool:
        """Return True where a list begins with what is known. Compared in C: a tenth of what looking each up costs."""
        return list(values[: len(self.copies)]) == self.copies and all(
            values[place] is self.copies[place] or marshal.dumps(cast("Any", values[place]), _MARSHAL) == known
            for place, known in self.exact.items()
        )

    def goes_on(self, item: Json, part: _Part, *, is_plain: bool, is_final: bool) -> bool:
        """Add the next item; return False where it cannot be compared that way."""
        try:
            content = marshal.dumps(cast("Any", item), _MARSHAL)
        except ValueError:
            return False
        if not is_plain:
            self.exact[len(self.copies)] = content
        self.copies.append(item if is_final else marshal.loads(content))  # noqa: S302 - made in a line above
        self.digests += part[0]
        self.tokens += part[1]
        return True


_NO_HISTORY: Final = _History()


class Shaper:
    """Makes shapes; remembers the parts of requests that it has seen, because agents send their history again.

    Args:
        ignore: Paths that are not compared; see `paths`.
        volatile: Kinds of tokens that may be renamed; see `tokens`.

    Raises:
        ConfigError: A path cannot be read, or there is no such kind.
    """

    def __init__(self, ignore: Iterable[str] = (), volatile: Iterable[str] = DEFAULT_KINDS) -> None:
        self.ignore = tuple(ignore)
        self.rules = read_paths(self.ignore)
        self.volatile = kinds_of(volatile)
        self._parts: dict[tuple[bytes, Rules], _Part] = {}
        self._histories: dict[tuple[str | bytes, ...], _History] = {}

    @property
    def is_default(self) -> bool:
        """True where the keys that a recording holds were made in the same way."""
        return not self.rules and self.volatile == DEFAULT_KINDS

    def shape(
        self, kind: str, name: str, request: Mapping[str, Json], lane: str = "", *, is_final: bool = False
    ) -> Shape:
        """Return the shape of a request; it depends on nothing but the request.

        Args:
            kind: `model` or `tool`.
            name: Of the model or tool.
            request: What is asked for, as JSON.
            lane: What requests share that go on where the one before ended: those are looked at from there on.
            is_final: True where nobody changes the request any more, nor what others of its lane share with it.
        """
        hasher = blake2b(json.dumps([kind, name]).encode("utf-8", "surrogatepass"), digest_size=16)
        if any(cut(key, self.volatile)[1] for key in request):
            # Names that are tokens are put in order by what they name, which only the whole tells.
            digest, found = self.part(request, self.rules)
            hasher.update(digest)
            return Shape(hasher.hexdigest(), found)
        tokens: list[Token] = []
        for key in sorted(request):
            rules = rules_below(self.rules, key)
            if is_dropped(rules):
                continue
            value = request[key]
            head = json.dumps(key).encode("utf-8", "surrogatepass")
            if isinstance(value, list | tuple):
                count, digests, below = self._list(value, rules, (kind, name, key, lane), is_final=is_final)
                hasher.update(b"%b[%d" % (head, count))
            else:
                digests, found = self.part(value, rules)
                below = list(found)
                hasher.update(b"%b:" % head)
            hasher.update(digests)
            tokens += below
        return Shape(hasher.hexdigest(), tuple(tokens))

    def _list(
        self, values: list[Json] | tuple[Json, ...], rules: Rules, lane: tuple[str, ...], *, is_final: bool
    ) -> tuple[int, bytes, list[Token]]:
        """Return how many items are compared, their digests in a row, and their tokens."""
        if rules or len(values) < _SHORTEST_HISTORY:
            parts = [self.part(item, below) for item, below in _kept(values, rules)]
            return len(parts), b"".join([digest for digest, _ in parts]), [one for _, found in parts for one in found]
        # Two conversations in one lane differ in what was said first.
        place: tuple[str | bytes, ...] = (*lane, *(self.part(item, ())[0] for item in values[:2]))
        last = self._histories.get(place, _NO_HISTORY)
        if not last.begins(values):
            last = _NO_HISTORY
        history = _History(last.digests, list(last.tokens), list(last.copies), dict(last.exact))
        rest: list[_Part] = []
        for item in values[len(last.copies) :]:
            part = self.part(item, ())
            if rest or not history.goes_on(item, part, is_plain=self._is_plain(item), is_final=is_final):
                rest.append(part)
        if len(history.copies) > len(last.copies):
            if len(self._histories) >= _MOST_HISTORIES:
                self._histories.clear()
            self._histories[place] = history
        digests = b"".join([history.digests, *(digest for digest, _ in rest)])
        return len(values), digests, [*history.tokens, *(one for _, found in rest for one in found)]

    def _is_plain(self, value: Json) -> bool:
        """Return True where whatever is equal to a value has its shape too.

        So it is without numbers, 1 == 1.0 == True, and where names are no tokens, which come in the given order.
        """
        if isinstance(value, dict):
            return not any(cut(key, self.volatile)[1] for key in value) and all(map(self._is_plain, value.values()))
        if isinstance(value, list | tuple):
            return all(map(self._is_plain, value))
        return value is None or isinstance(value, str)

    def tokens_in(self, value: Json) -> tuple[Token, ...]:
        """Return the volatile tokens of any value."""
        return self.part(value, ())[1]

    def part(self, value: Json, rules: Rules) -> _Part:
        """Return the digest and the tokens of a part of a request."""
        try:
            # Only compared with others of this process; the quickest way to say what a value is.
            known = marshal.dumps(cast("Any", value), _MARSHAL), rules
        except ValueError:
            known = None
        if known is not None and (found := self._parts.get(known)) is not None:
            return found
        text, tokens = self._text(value, rules)
        part = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), tuple(tokens)
        if known is not None and len(known[0]) <= _LONGEST_REMEMBERED:
            if len(self._parts) >= _MOST_REMEMBERED:
                self._parts.clear()
            self._parts[known] = part
        return part

    def _text(self, value: Json, rules: Rules) -> tuple[str, list[Token]]:
        if isinstance(value, str):
            text, tokens = cut(value, self.volatile)
            return encode_basestring(text), list(tokens)
        if isinstance(value, Mapping):
            return self._mapping_text(value, rules)
        if isinstance(value, list | tuple):
            texts: list[str] = []
            tokens_below: list[Token] = []
            for item, below in _kept(value, rules):
                text, found = self._text(item, below)
                texts.append(text)
                tokens_below += found
            return f"[{','.join(texts)}]", tokens_below
        return json.dumps(value), []

    def _mapping_text(self, value: Mapping[str, Json], rules: Rules) -> tuple[str, list[Token]]:
        items: list[tuple[str, str, list[Token]]] = []
        for key in value:
            below = rules_below(rules, key)
            if is_dropped(below):
                continue
            name, tokens = self._text(key, ())
            text, found = self._text(value[key], below)
            items.append((name, text, tokens + found))
        # By shape, not by name: names may be tokens. Equal ones stay in the order in which they were given.
        items.sort(key=lambda item: item[:2])
        text = ",".join(f"{name}:{text}" for name, text, _ in items)
        return f"{{{text}}}", [one for item in items for one in item[2]]


def _kept(items: list[Json] | tuple[Json, ...], rules: Rules) -> Iterable[tuple[Json, Rules]]:
    if not rules:
        return [(item, ()) for item in items]
    below = [(item, rules_below(rules, index, item)) for index, item in enumerate(items)]
    return [pair for pair in below if not is_dropped(pair[1])]


@cache
def default_shaper() -> Shaper:
    """Return the shaper that the keys of recordings are made with."""
    return Shaper()
