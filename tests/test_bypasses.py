"""Every known way around the gate, in sync and async agents: what is denied does not run, and the run has failed.

The attempts are in `tests/bypasses/attempts.py`; each is made inside of a tool that is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import StructuredTool

from oao_harness import ExecutionReport, Orchestrator, StrictPolicy, ToolPolicy
from oao_hookspecs import Deny, ModelCall, RunView, hookimpl
from pytest_oao.testing import OpenAIServer
from tests.adapters.scripted import Scripted, asks, says
from tests.bypasses.attempts import EXECUTED, asked_by_the_model, danger
from tests.bypasses.table import LATCH, NONE, TABLE, Attempt, rendered

DOCUMENT = Path(__file__).parents[1] / "docs" / "explanation" / "bypasses.md"
STOPPED = [row for row in TABLE if row.layer != NONE]
REMAINING = [row for row in TABLE if row.layer == NONE]
WORLDS = ["sync", "async"]


class NoEvil:
    """Denies a model by its name."""

    name = "no-evil"

    @hookimpl
    def oao_decide_model_call(self, call: ModelCall, run: RunView) -> Deny | None:
        return Deny(rule="no-evil", reason=f"model {call.name} is denied") if call.name == "evil" else None


NO_LIMITS = {"max_tokens": None, "max_steps": None, "max_tool_calls": None, "timeout_seconds": None}
POLICIES = [NoEvil(), ToolPolicy(deny=["danger"]), StrictPolicy(**NO_LIMITS, require_governed=True)]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    EXECUTED.clear()

    def respond(body: dict[str, object]) -> str:
        if body["model"] == "evil":
            EXECUTED.append("evil request")
        return "answer"

    with OpenAIServer(respond=respond) as started:
        yield started


def make_agent(row: Attempt, server: OpenAIServer, went_on: list[str]) -> Any:
    """An agent that calls a tool in which the attempt is made, and then another one."""

    def helper(x: str) -> str:
        """Help."""
        row.do(server)
        return x

    async def ahelper(x: str) -> str:
        """Help."""
        await row.ado(server)
        return x

    def after(x: str) -> str:
        """Come after."""
        went_on.append(x)
        return x

    first = "danger" if row is asked_by_the_model else "helper"
    script = [asks((first, {"x": "1"})), asks(("after", {"x": "2"})), says("done")]
    tools = [StructuredTool.from_function(helper, ahelper, name="helper"), StructuredTool.from_function(after), danger]
    return create_agent(Scripted(script=script), tools)


def run(row: Attempt, world: str, server: OpenAIServer, policies: Any) -> tuple[ExecutionReport, list[str]]:
    went_on: list[str] = []
    agent, orchestrator = make_agent(row, server, went_on), Orchestrator(policies)
    if world == "sync":
        return orchestrator.run(agent, "go"), went_on
    return asyncio.run(orchestrator.run_async(agent, "go")), went_on


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("row", STOPPED, ids=lambda row: row.name)
def test_it_is_stopped(row: Attempt, world: str, server: OpenAIServer) -> None:
    """The denied thing has not run, the run has failed with the rule of the table, and no tool came after."""
    report, went_on = run(row, world, server, POLICIES)

    assert EXECUTED == []
    assert report.status == "FAILED"
    assert report.violation is not None
    assert (report.violation["rule"], went_on) == (row.rule, [])


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_it_is_a_real_attempt(row: Attempt, world: str, server: OpenAIServer) -> None:
    """Without a policy the same attempt succeeds; else the test above would prove nothing."""
    report, went_on = run(row, world, server, None)

    assert report.error is None
    assert len(EXECUTED) == 1
    assert went_on == ["2"]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("row", REMAINING, ids=lambda row: row.name)
def test_what_remains_is_documented(row: Attempt, world: str, server: OpenAIServer) -> None:
    """Code that reaches into oao's own objects goes around it: the denied tool runs, and the report says success.

    No layer inside of one process can prevent that; where this test fails, the documentation has to change.
    """
    report, went_on = run(row, world, server, POLICIES)

    assert EXECUTED == ["danger"]
    assert (report.status, report.ungoverned, went_on) == ("SUCCESS", [], ["2"])


def test_the_table_has_all_rows() -> None:
    """32 attempts, each named once; only one is not stopped."""
    assert len({row.name for row in TABLE}) == len(TABLE) == 32
    assert [row.name for row in REMAINING] == ["reflection: clear the governor's own state"]
    assert sum(row.layer == LATCH for row in TABLE) == 2


def test_the_document_shows_this_table() -> None:
    """The rows of `docs/explanation/bypasses.md` are these; to mend it, put in what `rendered()` returns."""
    text = DOCUMENT.read_text(encoding="utf-8")

    assert rendered() in text
    assert text.count("\n| ") == rendered().count("\n| ") + 1
    assert "enforcement for sloppy and mildly hostile code, not a sandbox" in text
