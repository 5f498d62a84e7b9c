"""The rows of the bypass table: what is attempted, and which layer stops it. Read by the tests; the docs show it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pytest_oao.testing import OpenAIServer

LEAF = "leaf patch"
LATCH = "leaf patch, then the latch"
HTTP = "HTTP choke point"
AUDIT = "audit hook"
GUARD = "code guard (`oao_harness.guard`, opt-in)"
NONE = "nothing: it remains"
Layer = Literal[
    "leaf patch",
    "leaf patch, then the latch",
    "HTTP choke point",
    "audit hook",
    "code guard (`oao_harness.guard`, opt-in)",
    "nothing: it remains",
]


@dataclass
class Attempt:
    """One row: made inside of an allowed tool of a running agent, unless it says otherwise."""

    name: str
    layer: Layer
    rule: str
    in_sync: Callable[[OpenAIServer], Any] | None
    in_async: Callable[[OpenAIServer], Any] | None

    def do(self, server: OpenAIServer) -> None:
        assert self.in_sync is not None
        self.in_sync(server)

    async def ado(self, server: OpenAIServer) -> None:
        assert self.in_async is not None
        found = self.in_async(server)
        if inspect.isawaitable(found):
            await found


TABLE: list[Attempt] = []


def attempt(name: str, layer: Layer, rule: str) -> Callable[[Callable[[OpenAIServer], Any]], Attempt]:
    """Add a row; the function makes the attempt, in an async agent too where that has no way of its own."""

    def add(function: Callable[[OpenAIServer], Any]) -> Attempt:
        row = Attempt(name, layer, rule, function, function)
        TABLE.append(row)
        return row

    return add


def in_async(row: Attempt) -> Callable[[Callable[[OpenAIServer], Any]], Callable[[OpenAIServer], Any]]:
    """Give a row the way that an async agent would take."""

    def add(function: Callable[[OpenAIServer], Any]) -> Callable[[OpenAIServer], Any]:
        row.in_async = function
        return function

    return add


def rendered() -> str:
    """The table of the documentation."""
    lines = ["| attempt | stopped by | rule |", "|---|---|---|"]
    lines += [f"| {row.name} | {row.layer} | {f'`{row.rule}`' if row.rule else '-'} |" for row in TABLE]
    return "\n".join(lines)
