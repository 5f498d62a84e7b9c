"""How what a leaf returns becomes JSON for the journal, and how it comes back when it is served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, cast

from oao_harness.journal.codec import decode, encode
from oao_hookspecs import Json, ProposedCall, Usage

__all__ = ["Answer", "Shape", "ValueShape"]


class Answer(NamedTuple):
    """What a call returned, in the form the journal keeps; a named tuple, because one is made for every call."""

    value: Json
    usage: Usage | None = None
    proposed: Sequence[ProposedCall] = ()


class Shape(Protocol):
    """How a leaf's results become JSON and come back."""

    def dump(self, value: Any) -> Answer:
        """Return what the leaf returned, or the list of its chunks where it streamed."""
        ...

    def load(self, value: Json) -> Any:
        """Return what the leaf would have returned."""
        ...

    def load_chunks(self, value: Json) -> Iterable[Any]:
        """Return the chunks that the leaf would have streamed."""
        ...


class ValueShape:
    """Plain values: what a tool returns."""

    def dump(self, value: Any) -> Answer:
        """Encode the value."""
        return Answer(value=encode(value))

    def load(self, value: Json) -> Any:
        """Decode the value."""
        return decode(value)

    def load_chunks(self, value: Json) -> Iterable[Any]:
        """Decode the list of chunks."""
        return cast("list[Any]", decode(value))
