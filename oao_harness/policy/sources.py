"""Values from where: does an argument occur in the task, in a tool's result, in a list?

Keeps the text of each source in a run, at most 500,000 characters of it; what does not fit is not found there, so
that a rule holds or denies rather than forgets.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from oao_hookspecs import Json

__all__ = ["Index", "leaves_of", "values_at"]

_MOST_CHARACTERS: Final = 500_000
# A word, with what joins its parts: an address, a file name, a date, `1,000.50`, `10:30`.
_TOKEN: Final = re.compile(r"(?:(?<![^\s(\[{\"'=:,;])-(?=\d))?\w+(?:(?:[-.@/+&#%~$]|(?<=\d)[:,](?=\d))+\w+)*")
_THOUSANDS: Final = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NUMBER: Final = re.compile(r"-?\d{1,40}(?:\.\d{1,40})?")


class Index:
    """What one source said in one run. Not locked; the caller does that."""

    __slots__ = ("_characters", "_numbers", "_places", "_seen", "_spans", "_texts")

    def __init__(self) -> None:
        self._characters = 0
        self._seen: set[str] = set()
        self._texts: list[str] = []
        self._spans: list[tuple[list[int], list[int]]] = []
        """For each text the starts and the ends of its words."""
        self._places: dict[str, list[tuple[int, int]]] = {}
        """Where each word is: number of the text, and offset."""
        self._numbers: set[Decimal] = set()

    def add(self, value: Json) -> None:
        """Take in all texts and numbers of a value, at any depth; also the keys of its tables."""
        for leaf in leaves_of(value, keys=True):
            self._add(leaf)

    def _add(self, leaf: str | int | float) -> None:
        text = _normal(leaf)
        if text in self._seen or self._characters + len(text) > _MOST_CHARACTERS:
            return
        self._seen.add(text)
        self._characters += len(text)
        starts: list[int] = []
        ends: list[int] = []
        for found in _TOKEN.finditer(text):
            word = found[0]
            starts.append(found.start())
            ends.append(found.end())
            self._places.setdefault(word, []).append((len(self._texts), found.start()))
            number = _as_number(word)
            if number is not None:
                self._numbers.add(number)
        self._texts.append(text)
        self._spans.append((starts, ends))

    def equals(self, value: str | int | float) -> bool:
        """Return True where a whole text or number that was taken in is the value, case and white space aside."""
        if isinstance(value, int | float):
            return self.holds(value)
        return _normal(value) in self._seen

    def holds(self, value: str | int | float) -> bool:
        """Return True where a value occurs as whole words, upper and lower case and white space aside.

        A number occurs where it is written in whatever way: `1000`, `1,000`, `1000.00`.
        """
        if isinstance(value, int | float):
            number = _as_number(_normal(value))
            return number is not None and number in self._numbers
        text = _normal(value)
        if text in self._seen:
            return True
        words = [(found.start(), found[0]) for found in _TOKEN.finditer(text)]
        if not words:
            return False
        # The rarest word has the fewest places to look at.
        offset, word = min(words, key=lambda one: len(self._places.get(one[1], ())))
        return any(self._is_at(which, place - offset, text) for which, place in self._places.get(word, ()))

    def _is_at(self, which: int, start: int, text: str) -> bool:
        if start < 0 or not self._texts[which].startswith(text, start):
            return False
        return not self._is_inside(which, start) and not self._is_inside(which, start + len(text))

    def _is_inside(self, which: int, offset: int) -> bool:
        """Return True where an offset cuts a word in two."""
        starts, ends = self._spans[which]
        nearest = bisect_right(starts, offset) - 1
        return nearest >= 0 and starts[nearest] < offset < ends[nearest]


def leaves_of(value: Json, *, keys: bool = False) -> Iterator[str | int | float]:
    """Yield the texts and numbers of a value, at any depth. Not empty texts, booleans and null: they name nothing."""
    pending: list[Json] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, bool) or item is None:
            continue
        if isinstance(item, str):
            if item.strip():
                yield item
        elif isinstance(item, int | float):
            yield item
        elif isinstance(item, Mapping):
            pending.extend(item.values())
            if keys:
                pending.extend(item.keys())
        else:
            pending.extend(item)


def values_at(arguments: Mapping[str, Json], path: str) -> Iterator[str | int | float]:
    """Yield the texts and numbers at a dotted path; lists are entered element by element.

    Args:
        arguments: Of a call.
        path: For example `recipient` or `payment.iban`.
    """
    if path in arguments:
        yield from leaves_of(arguments[path], keys=True)
    if "." not in path:
        return
    found: list[Json] = [arguments]
    for key in path.split("."):
        items = list(_items_in(found))
        for item in items:
            if not isinstance(item, Mapping):
                # A text where a table should be may hold the value in a way that nobody here can read.
                yield from leaves_of(item)
        found = [item[key] for item in items if isinstance(item, Mapping) and key in item]
    for item in found:
        yield from leaves_of(item, keys=True)


def _items_in(values: Sequence[Json]) -> Iterator[Json]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _items_in(value)
        else:
            yield value


def _normal(value: str | int | float) -> str:
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError:  # an integer of more digits than Python writes
            return ""
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())


def _as_number(word: str) -> Decimal | None:
    plain = word.replace(",", "") if _THOUSANDS.fullmatch(word) else word
    try:
        if _NUMBER.fullmatch(plain) or "e" in plain:
            number = Decimal(plain)
            return number if number.is_finite() else None
    except InvalidOperation:
        pass
    return None
