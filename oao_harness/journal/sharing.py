"""One object for each message of requests that repeat a growing conversation: in linear time.

A client sends the whole history with every call. Taken one by one, a run of 1,000 calls is compared 500
times over; here each call continues where the one before it ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, cast

from oao_hookspecs import Json

__all__ = ["Shared", "canonical"]

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
