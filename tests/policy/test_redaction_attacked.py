"""Redaction as somebody hostile gets around it; and what became of a call whose result cannot be redacted."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from oao_harness import Orchestrator, tool
from oao_harness.policy.file import FilePolicy
from oao_hookspecs import Json, hookimpl

NUMBER = "123-45-6789"


class Record:
    """Not plain data; its `repr` says nothing."""

    number = NUMBER


def policy(redact: str) -> FilePolicy:
    return FilePolicy.from_text(f'[[tool]]\nname = "read"\nredact = [{redact}]')


def by_pattern() -> FilePolicy:
    return policy(r"{ pattern = '\d{3}-\d{2}-\d{4}' }")


@pytest.mark.parametrize(
    ("made", "left"),
    [
        (lambda: NUMBER.encode(), b"[redacted]"),
        (lambda: b"\xff" + NUMBER.encode(), b"\xff[redacted]"),
        (lambda: {1: NUMBER, NUMBER: "x"}, {1: "[redacted]", "[redacted]": "x"}),
        (lambda: ["fine", 3], ["fine", 3]),
    ],
)
def test_values_that_are_no_json_are_redacted_too(made: Callable[[], object], left: object) -> None:
    """Bytes and tables whose keys are not texts are looked into."""

    @tool
    def read() -> object:
        return made()

    seen: list[object] = []
    report = Orchestrator(by_pattern()).run(lambda task: seen.append(read()), "t", agent_name="a")
    assert (report.status, seen) == ("SUCCESS", [left]), report.error


def test_the_value_of_a_key_is_hidden_beside_keys_that_are_no_texts() -> None:
    """A number among the keys changes how the journal keeps the table, not what is hidden of it."""

    @tool
    def read() -> dict[object, str]:
        return {1: "x", "ssn": "secret"}

    report = Orchestrator(policy('{ field = "ssn" }')).run(lambda task: read()["ssn"], "t", agent_name="a")
    assert report.final_output == "[redacted]", report.error


def test_a_secret_that_is_cut_by_the_chunks_of_a_stream_is_redacted() -> None:
    """Sync and async: a pattern is looked for in the whole text."""

    @tool
    def read() -> Iterator[str]:
        yield from NUMBER

    @tool(name="read")
    async def read_async() -> AsyncIterator[str]:
        for character in NUMBER:
            yield character

    async def agent(task: str) -> str:
        return "".join([chunk async for chunk in read_async()])

    orchestrator = Orchestrator(by_pattern())
    assert orchestrator.run(lambda task: "".join(read()), "t", agent_name="a").final_output == "[redacted]"
    assert orchestrator.run(agent, "t").final_output == "[redacted]"


@pytest.mark.parametrize("result", [Record(), dt.date(123, 4, 5)], ids=["opaque", "half a date"])
def test_what_cannot_be_redacted_is_withheld_and_its_call_has_ended(result: object) -> None:
    """The agent sees nothing of it, and the journal knows that the tool was called."""

    @tool(effect="once")
    def read() -> object:
        return result

    seen: list[object] = []

    def agent(task: str) -> None:
        try:
            seen.append(read())
        except Exception as error:
            seen.append(error)

    orchestrator = Orchestrator(policy(r"{ pattern = '\d\d-' }"))
    report = orchestrator.run(agent, "t")
    assert report.violation is not None
    assert (report.violation["rule"], seen) == ("policy-error", [])
    kinds = [record["type"] for record in orchestrator.store.read(report.execution_id)]
    assert kinds.count("call") == kinds.count("outcome") == 1


def test_a_tool_that_no_redaction_is_about_returns_what_it_likes() -> None:
    """Its result is handed on as it is, plain data or not."""
    made = Record()

    @tool
    def connect() -> Record:
        return made

    seen: list[object] = []
    report = Orchestrator(by_pattern()).run(lambda task: seen.append(connect()), "t", agent_name="a")
    assert (report.status, seen) == ("SUCCESS", [made]), report.error


def test_a_call_that_is_cancelled_while_it_is_redacted_has_ended() -> None:
    """Its effect has happened: on resuming it must not be in doubt."""
    waits = threading.Event()

    class Slow:
        name = "slow"

        @hookimpl
        async def oao_redact_result(self, value: Json) -> Json:
            waits.set()
            await asyncio.sleep(30)
            return value

    @tool(effect="once")
    async def read() -> str:
        return "x"

    async def agent(task: str) -> str:
        call: asyncio.Task[Any] = asyncio.create_task(read())  # type: ignore[arg-type]
        while not waits.is_set():
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait({call})
        return "went on"

    orchestrator = Orchestrator(Slow())
    report = orchestrator.run(agent, "t")
    kinds = [record["type"] for record in orchestrator.store.read(report.execution_id)]
    assert kinds.count("call") == kinds.count("outcome") == 1
    assert report.final_output == "went on", report.error
