"""Keys of requests that repeat a growing conversation, and one object for each message: in linear time.

A client sends the whole history with every call. Taken one by one, a run of 1,000 calls is hashed and compared 500
times over; here each call continues where the one before it ended.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping
from typing import Final, TypeAlias, cast

from oao_harness.journal.records import key_of
from oao_hookspecs import Json

__all__ = ["Keys", "Shared", "canonical"]

_Hash: TypeAlias = "hashlib.blake2b"
_encode: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


def canonical(value: Json) -> str:
    """Return the one text of a value: keys sorted, no blanks."""
    return _encode(value)


class Shared:
    """Makes equal messages one object, so that what follows compares them by identity."""

    def __init__(self) -> None:
        self._by_text: dict[str, Json] = {}
        self._last: dict[str, tuple[list[Json], list[Json]]] = {}
        """By lane: the messages as they came, up to the first that holds a number, and what stands for them."""

    def request(self, kind: str, run: str, request: Mapping[str, Json]) -> Mapping[str, Json]:
        """Return a request with its messages and tools shared; it is equal to the one given."""
        if kind != "model":
            return request
        found = {key: request[key] for key in ("messages", "tools") if isinstance(request.get(key), list)}
        shared = {key: self._list(f"{key} {run}", cast("list[Json]", items)) for key, items in found.items()}
        return {**request, **shared}

    def one(self, value: Json) -> Json:
        """Return the object that stands for a value."""
        return self._by_text.setdefault(canonical(value), value)

    def _list(self, lane: str, values: list[Json]) -> list[Json]:
        came, stood = self._last.get(lane, ([], []))
        # Equal by `==` only where no number is inside: 1 == 1.0 == True, and JSON tells them apart.
        known = len(came) if values[: len(came)] == came else 0
        shared = [*stood[:known], *map(self.one, values[known:])]
        plain = known
        while plain < len(values) and not _holds_number(values[plain]):
            plain += 1
        self._last[lane] = (values[:plain], shared[:plain])
        return shared


def _holds_number(value: Json) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_number, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_number, value))
    return isinstance(value, int | float)


class Keys:
    """Computes `key_of` of many requests whose messages are shared objects."""

    def __init__(self) -> None:
        self._chains: dict[tuple[str, str], tuple[list[Json], _Hash]] = {}
        self._texts: dict[int, tuple[Json, bytes]] = {}
        self._lists: dict[tuple[int, ...], tuple[Json, str]] = {}

    def of(self, kind: str, name: str, request: Mapping[str, Json], run: str = "") -> str:
        """Return the key of a request; equal to `key_of`.

        Args:
            kind: Of the call.
            name: Of the call.
            request: What it asks for.
            run: Name of the run; the calls of one continue a conversation.
        """
        messages = request.get("messages")
        if kind != "model" or not isinstance(messages, list) or not messages:
            return key_of(kind, name, request)
        ordered = sorted(request)
        at = ordered.index("messages")
        before = "".join(f"{canonical(key)}:{canonical(request[key])}," for key in ordered[:at])
        after = "".join(f",{canonical(key)}:{self._json(request[key])}" for key in ordered[at + 1 :])
        head = f'[{canonical(kind)},{canonical(name)},{{{before}"messages":['
        nothing: tuple[list[Json], _Hash | None] = ([], None)
        said, state = self._chains.get((run, head), nothing)
        if state is None or len(said) > len(messages) or not all(map(operator.is_, said, messages)):
            said, state = [], hashlib.blake2b(head.encode("utf-8", "surrogatepass"), digest_size=8)
        for index in range(len(said), len(messages)):
            state.update(b"," + self._text(messages[index]) if index else self._text(messages[index]))
        self._chains[run, head] = (messages, state)
        done = state.copy()
        done.update(f"]{after}}}]".encode("utf-8", "surrogatepass"))
        return done.hexdigest()

    def _json(self, value: Json) -> str:
        """Return the text of a value; that of a list of shared objects, such as the tools, is made once."""
        if not isinstance(value, list):
            return canonical(value)
        items = tuple(map(id, value))
        known = self._lists.get(items)
        if known is None:
            known = (value, canonical(value))
            self._lists[items] = known
        return known[1]

    def _text(self, value: Json) -> bytes:
        known = self._texts.get(id(value))
        if known is None:
            # Kept with the value: an id is good only as long as its object lives.
            known = (value, canonical(value).encode("utf-8", "surrogatepass"))
            self._texts[id(value)] = known
        return known[1]
