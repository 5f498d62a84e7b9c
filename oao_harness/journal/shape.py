"""The shape of a request: what must be equal for it to be the recorded one, without ids that are new in every run.

A shape is a digest over kind, name and the canonical request, with ignored paths dropped and volatile tokens cut out;
the tokens themselves are compared by `renaming`.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from json.encoder import encode_basestring
from typing import Any, Final, cast

from oao_harness.journal.paths import Rules, is_dropped, read_paths, rules_below
from oao_harness.journal.tokens import DEFAULT_KINDS, Token, cut, kinds_of
from oao_hookspecs import Json

__all__ = ["Shape", "Shaper", "default_shaper"]

_MOST_REMEMBERED: Final = 1 << 12
_LONGEST_REMEMBERED: Final = 1 << 16
_KEY_LENGTH: Final = 16


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
        self._parts: dict[tuple[bytes, Rules], tuple[bytes, tuple[Token, ...]]] = {}

    @property
    def is_default(self) -> bool:
        """True where the keys that a recording holds were made in the same way."""
        return not self.rules and self.volatile == DEFAULT_KINDS

    def shape(self, kind: str, name: str, request: Mapping[str, Json]) -> Shape:
        """Return the shape of a request.

        Args:
            kind: `model` or `tool`.
            name: Of the model or tool.
            request: What is asked for, as JSON.
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
                parts = [self.part(item, below) for item, below in _kept(value, rules)]
                hasher.update(b"%b[%d" % (head, len(parts)))
            else:
                parts = [self.part(value, rules)]
                hasher.update(b"%b:" % head)
            hasher.update(b"".join([digest for digest, _ in parts]))
            for _, found in parts:
                tokens += found
        return Shape(hasher.hexdigest(), tuple(tokens))

    def tokens_in(self, value: Json) -> tuple[Token, ...]:
        """Return the volatile tokens of any value."""
        return self.part(value, ())[1]

    def part(self, value: Json, rules: Rules) -> tuple[bytes, tuple[Token, ...]]:
        """Return the digest and the tokens of a part of a request."""
        try:
            # Only compared with others of this process; the quickest way to say what a value is.
            known = marshal.dumps(cast("Any", value), 2), rules
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
