"""The client of the MCP SDK in a run: its tool calls pass the gate once, and a replay needs no server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.session import ClientSession

from oao_harness import Orchestrator, tool
from oao_harness.journal.recording import Recording
from oao_hookspecs import Allow, Deny, Modify, ToolCall, hookimpl
from tests.mcp.servers import PLAIN, shop


class Seen:
    """Sees each call, and answers what it is told to."""

    name = "seen"

    def __init__(self, answer: Callable[[ToolCall], Any] = lambda _: None) -> None:
        self.calls: list[ToolCall] = []
        self._answer = answer

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Any:
        self.calls.append(call)
        return self._answer(call)


def calling(done: list[Any], name: str, arguments: dict[str, Any]) -> Callable[[str], Any]:
    async def agent(_task: str) -> str:
        async with Client(shop(done)) as client:
            return (await client.call_tool(name, arguments)).content[0].text

    return agent


async def test_a_call_is_a_tool_call() -> None:
    """Name, arguments, the server that was asked; result and count."""
    done, seen = [], Seen()
    report = await Orchestrator(seen).run_async(calling(done, "search", {"q": "shoes"}), "x")

    assert (report.final_output, report.tool_usage) == ("found shoes", {"search": 1})
    assert [(call.name, call.arguments, call.scope) for call in seen.calls] == [("search", {"q": "shoes"}, "mcp:shop")]
    assert report.ungoverned == []


async def test_a_denied_call_never_reaches_the_server() -> None:
    """And the run is halted."""
    done: list[Any] = []
    deny = Seen(lambda _: Deny(rule="no", reason="never"))
    report = await Orchestrator(deny).run_async(calling(done, "search", {"q": "a"}), "x")

    assert (report.status, report.error, done) == ("FAILED", "no: never", [])


async def test_modified_arguments_are_what_is_sent() -> None:
    """Not those of the agent."""
    done: list[Any] = []
    change = Seen(lambda call: Modify(call=replace(call, arguments={"q": "b"})) if call.arguments["q"] == "a" else None)
    report = await Orchestrator(change).run_async(calling(done, "search", {"q": "a"}), "x")

    assert (report.status, done) == ("SUCCESS", [("search", "b", 3)])


async def test_a_replay_asks_no_server(tmp_path: Path) -> None:
    """Neither for its tools nor for the handshake; no process is started."""
    program = tmp_path / "server.py"
    program.write_text(PLAIN.read_text(encoding="utf-8"), encoding="utf-8")

    async def agent(task: str) -> list[Any]:
        async with (
            stdio_client(StdioServerParameters(command=sys.executable, args=[str(program)])) as streams,
            ClientSession(*streams) as session,
        ):
            tools = await session.list_tools()
            first = await session.call_tool("echo", {"x": task})
            errors = []
            try:
                await session.call_tool("wrong", {})
            except Exception as error:
                errors.append(str(error))
            return [len(tools.tools), first.content[0].text, *errors]

    orchestrator = Orchestrator(Seen(), store="memory:")
    live = await orchestrator.run_async(agent, "hi")
    recording = Recording.from_records(orchestrator.store.read(live.execution_id))
    program.write_text("raise SystemExit(3)", encoding="utf-8")
    seen = Seen()
    played = Orchestrator(seen).replay(agent, "hi", recording)

    assert live.status == "SUCCESS", live.error
    assert played.status == "SUCCESS", played.error
    assert played.final_output == live.final_output
    assert played.final_output[1:] == ['{"name": "echo", "arguments": {"x": "hi"}}', "wrong arguments"]
    assert [call.name for call in seen.calls] == ["echo", "wrong"]


async def test_the_newer_handshake_is_played_too(tmp_path: Path) -> None:
    """`Client` asks with `server/discover` first; a server that is gone is not waited for."""
    program = tmp_path / "server.py"
    program.write_text(PLAIN.read_text(encoding="utf-8"), encoding="utf-8")

    async def agent(_task: str) -> str:
        transport = stdio_client(StdioServerParameters(command=sys.executable, args=[str(program)]))
        async with Client(transport) as client:
            return (await client.call_tool("echo", {})).content[0].text

    orchestrator = Orchestrator(store="memory:")
    live = await orchestrator.run_async(agent, "x")
    recording = Recording.from_records(orchestrator.store.read(live.execution_id))
    program.unlink()
    played = Orchestrator().replay(agent, "x", recording)

    assert live.status == "SUCCESS", live.error
    assert (played.status, played.final_output) == ("SUCCESS", live.final_output)


async def test_a_replay_of_another_request_diverges() -> None:
    """It is served nothing that was not recorded, and does not go to the server instead."""
    done: list[Any] = []

    def reading(uri: str) -> Callable[[str], Any]:
        async def agent(_task: str) -> str:
            async with Client(shop(done)) as client:
                return (await client.read_resource(uri)).contents[0].text

        return agent

    orchestrator = Orchestrator(store="memory:")
    live = await orchestrator.run_async(reading("shop://rules"), "x")
    recording = Recording.from_records(orchestrator.store.read(live.execution_id))

    same = Orchestrator().replay(reading("shop://rules"), "x", recording)
    other = Orchestrator().replay(reading("shop://other"), "x", recording)

    assert (same.final_output, same.tool_calls) == ("be kind", 0)
    assert other.status == "FAILED"
    assert "resources/read was not recorded" in str(other.error)


@pytest.mark.parametrize("name", ["search", "shop_search", "mcp__shop__search", "shop.search"])
async def test_a_frameworks_tool_around_it_is_the_same_call(name: str) -> None:
    """Counted once, whatever the framework puts before the tool's name."""
    done, seen = [], Seen()

    async def agent(_task: str) -> str:
        async with Client(shop(done)) as client:

            @tool(name=name)
            async def wrapped(q: str, limit: int | None = None) -> str:
                given = {"q": q} if limit is None else {"q": q, "limit": limit}
                return (await client.call_tool("search", given)).content[0].text

            return await wrapped(q="shoes", limit=None)

    report = await Orchestrator(seen).run_async(agent, "x")

    assert (report.final_output, report.tool_usage, len(done)) == ("found shoes", {name: 1}, 1)


@pytest.mark.parametrize(
    ("arguments", "times"),
    [({"q": "shoes", "limit": 99}, 1), ({"q": "other", "limit": 1}, 1), ({"q": "shoes", "limit": 1}, 2)],
)
async def test_what_else_a_wrapper_calls_is_judged(arguments: dict[str, Any], times: int) -> None:
    """Other arguments under the judged name, and the same call a second time."""
    done, seen = [], Seen(lambda call: Deny(rule="no", reason="nested") if call.scope else Allow())

    async def agent(_task: str) -> None:
        async with Client(shop(done)) as client:

            @tool(name="search")
            async def wrapped(q: str, limit: int) -> None:
                for _ in range(times):
                    await client.call_tool("search", arguments)

            await wrapped(q="shoes", limit=1)

    report = await Orchestrator(seen).run_async(agent, "x")

    assert (report.error, len(done)) == ("no: nested", times - 1)


async def test_a_name_that_only_ends_alike_is_another_tool() -> None:
    """`research` is no `search`."""
    done, seen = [], Seen()

    async def agent(_task: str) -> None:
        async with Client(shop(done)) as client:

            @tool(name="research")
            async def wrapped(q: str) -> None:
                await client.call_tool("search", {"q": q})

            await wrapped(q="shoes")

    report = await Orchestrator(seen).run_async(agent, "x")

    assert report.tool_usage == {"research": 1, "search": 1}


async def test_a_request_below_call_tool_is_judged_too() -> None:
    """`send_request` is the leaf; what is judged is what is sent, also where the request is changed meanwhile."""
    from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult

    done: list[Any] = []
    request = CallToolRequest(params=CallToolRequestParams(name="search", arguments={"q": "a"}))

    def change(call: ToolCall) -> None:
        request.params.arguments["q"] = "changed"

    async def agent(_task: str) -> None:
        async with Client(shop(done)) as client:
            await client.session.send_request(request, CallToolResult)

    report = await Orchestrator(Seen(change)).run_async(agent, "x")

    assert (report.tool_usage, done) == ({"search": 1}, [("search", "a", 3)])


async def test_outside_of_runs_nothing_changes() -> None:
    """The patch is inert."""
    done: list[Any] = []
    Orchestrator()
    assert await calling(done, "search", {"q": "a"})("x") == "found a"
