"""The OpenAI Agents SDK, in every way that it can be asked."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("agents.run", reason="openai-agents is not installed: it has an environment of its own in CI")

from agents import (
    Agent,
    ApplyPatchTool,
    Computer,
    ComputerTool,
    CustomTool,
    GuardrailFunctionOutput,
    LocalShellTool,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    ShellCommandOutput,
    ShellResult,
    ShellTool,
    SQLiteSession,
    function_tool,
    handoff,
    input_guardrail,
    set_tracing_disabled,
)
from agents.editor import ApplyPatchResult
from agents.mcp import MCPServer
from agents.realtime.model import RealtimeModel
from agents.testing import ScriptedModel, assistant_message, function_call
from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as McpTool
from openai import AsyncOpenAI
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseComputerToolCall,
    ResponseCustomToolCall,
    ResponseFunctionShellToolCall,
)
from openai.types.responses.response_output_item import LocalShellCall

from oao_harness import ExecutionReport, MemoryStore, Orchestrator
from oao_harness.adapters import openai_agents, requiring
from oao_harness.errors import FrameworkError
from oao_hookspecs import Allow, Deny, Limits, Modify, hookimpl
from pytest_oao.testing.adapter import AdapterCase, AdapterConformance, recording_of

set_tracing_disabled(True)


class OpenAIAgents(AdapterCase):
    """Agents whose model speaks Chat Completions."""

    name = "openai-agents"
    model: type[Any] = OpenAIChatCompletionsModel

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        model = self.model("scripted", AsyncOpenAI(base_url=url, api_key="k"))
        return Agent(name="assistant", model=model, tools=[function_tool(tool) for tool in tools])

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        async def ask(task: str) -> str:
            running = Runner.run_streamed(agent, task)
            async for _ in running.stream_events():
                pass
            return str(running.final_output)

        return ask

    def text(self, output: object) -> str:
        return str(getattr(output, "final_output", output))


class Responses(OpenAIAgents):
    """Agents whose model speaks Responses."""

    model = OpenAIResponsesModel


class TestChatCompletions(AdapterConformance):
    """What every adapter promises."""

    case = OpenAIAgents()


class TestResponses(AdapterConformance):
    """As above, over the other protocol."""

    case = Responses()


# What is particular to it


class Denying:
    """A policy that denies one tool."""

    def __init__(self, name: str) -> None:
        self._name = name

    @hookimpl
    def oao_decide_tool_call(self, call: Any) -> Any:
        return Deny(rule="denied", reason="no") if call.name == self._name else Allow()


class Rewriting:
    """A policy that gives one tool other arguments."""

    def __init__(self, name: str, **arguments: object) -> None:
        self._name, self._arguments = name, arguments

    @hookimpl
    def oao_decide_tool_call(self, call: Any) -> Any:
        changed = {**call.arguments, **self._arguments}
        if call.name != self._name or changed == call.arguments:
            return Allow()
        return Modify(call=replace(call, arguments=changed))


def run(agent: Any, *policies: object) -> tuple[ExecutionReport, list[Any], MemoryStore]:
    """Run an agent, or an async function, and return the report, the calls as they were journaled, and the store."""
    store = MemoryStore()
    orchestrator = Orchestrator([*policies], store)
    is_async = inspect.iscoroutinefunction(agent)
    report = asyncio.run(orchestrator.run_async(agent, "go")) if is_async else orchestrator.run(agent, "go")
    return report, [record for record in store.read(report.execution_id) if record["type"] == "call"], store


def played(agent: Any, report: ExecutionReport, store: MemoryStore) -> ExecutionReport:
    """Replay a run."""
    return Orchestrator().replay(agent, "go", recording_of(store, report))


def names(calls: list[Any]) -> list[str]:
    return [call["name"] for call in calls if call["kind"] == "tool"]


def said(report: ExecutionReport) -> object:
    assert report.status == "SUCCESS", report.error
    return getattr(report.result, "final_output", report.result)


ran: list[str] = []


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    ran.append("add")
    return a + b


def saying(*steps: Any) -> ScriptedModel:
    """Return a model that says these, one after the other: texts, items, or lists of items."""
    items = [assistant_message(step) if isinstance(step, str) else step for step in steps]
    return ScriptedModel([item if isinstance(item, list) else [item] for item in items])


def calling(name: str, arguments: dict[str, Any], call_id: str = "c") -> Any:
    return function_call(name, arguments, call_id=call_id)


def made(model: Any, *tools: Any, **more: Any) -> Agent[Any]:
    return Agent(name="assistant", model=model, tools=list(tools), **more)


_ADD = calling("add", {"a": 1, "b": 2}, "add")


def _shell(request: Any) -> Any:
    ran.append(" ".join(request.data.action.commands))
    return ShellResult(output=[ShellCommandOutput(stdout="out")])


async def _local_shell(request: Any) -> str:
    ran.append(" ".join(request.data.action.command))
    return "out"


async def _custom(_context: Any, text: str) -> str:
    ran.append(text)
    return "out"


class Editor:
    """Edits nothing."""

    def create_file(self, operation: Any) -> ApplyPatchResult:
        ran.append(operation.path)
        return ApplyPatchResult(output="out")

    update_file = delete_file = create_file


class Screen(Computer):
    """A computer that only remembers."""

    environment = "browser"
    dimensions = (10, 10)

    def screenshot(self) -> str:
        return "cGl4ZWxz"

    def type(self, text: str) -> None:
        ran.append(text)

    def click(self, x: int, y: int, button: str) -> None: ...
    def double_click(self, x: int, y: int) -> None: ...
    def drag(self, path: Any) -> None: ...
    def keypress(self, keys: Any) -> None: ...
    def move(self, x: int, y: int) -> None: ...
    def scroll(self, x: int, y: int, scroll_x: int, scroll_y: int) -> None: ...
    def wait(self) -> None: ...


_NATIVE: dict[str, tuple[Callable[[], Any], Any, dict[str, Any]]] = {
    "shell": (
        lambda: ShellTool(executor=_shell),
        ResponseFunctionShellToolCall.model_validate(
            {"id": "i", "call_id": "c", "type": "shell_call", "status": "completed", "action": {"commands": ["ls"]}}
        ),
        {"commands": ["pwd"]},
    ),
    "local_shell": (
        lambda: LocalShellTool(executor=_local_shell),
        LocalShellCall.model_validate(
            {
                "id": "i",
                "call_id": "c",
                "type": "local_shell_call",
                "status": "completed",
                "action": {"command": ["ls"], "env": {}, "type": "exec"},
            }
        ),
        {"command": ["pwd"]},
    ),
    "apply_patch": (
        lambda: ApplyPatchTool(editor=Editor()),
        ResponseApplyPatchToolCall.model_validate(
            {
                "id": "i",
                "call_id": "c",
                "type": "apply_patch_call",
                "status": "completed",
                "operation": {"type": "create_file", "path": "ls", "diff": "+a"},
            }
        ),
        {"path": "pwd"},
    ),
    "computer_use_preview": (
        lambda: ComputerTool(computer=Screen()),
        ResponseComputerToolCall.model_validate(
            {
                "id": "i",
                "call_id": "c",
                "type": "computer_call",
                "status": "completed",
                "pending_safety_checks": [],
                "actions": [{"type": "type", "text": "ls"}],
            }
        ),
        {"actions": [{"type": "type", "text": "pwd"}]},
    ),
    "raw": (
        lambda: CustomTool(name="raw", description="Raw.", on_invoke_tool=_custom),
        ResponseCustomToolCall.model_validate(
            {"call_id": "c", "type": "custom_tool_call", "name": "raw", "input": "ls"}
        ),
        {"input": "pwd"},
    ),
}


@pytest.mark.parametrize("name", _NATIVE)
def test_native_tools(name: str) -> None:
    """A shell, a patch, a computer and a custom tool are tools: counted, denied, changed, replayed."""
    tool, call, changed = _NATIVE[name]
    ran.clear()
    report, calls, store = run(made(saying(call, "done"), tool()))
    assert (said(report), names(calls), ran) == ("done", [name], ["ls"])
    again = played(made(saying(), tool()), report, store)
    assert (said(again), ran) == ("done", ["ls"])
    denied, _, _ = run(made(saying(call, "done"), tool()), Denying(name))
    assert ((denied.violation or {}).get("rule"), ran) == ("denied", ["ls"]), denied.error
    other, _, _ = run(made(saying(call, "done"), tool()), Rewriting(name, **changed))
    assert (said(other), ran) == ("done", ["ls", "pwd"])


class Server(MCPServer):
    """A server of tools, in this process."""

    name = "server"

    async def connect(self) -> None: ...

    async def cleanup(self) -> None: ...

    async def list_tools(self, run_context: Any = None, agent: Any = None) -> list[Any]:
        return [McpTool(name="look", inputSchema={"type": "object", "properties": {"at": {"type": "string"}}})]

    async def call_tool(self, tool_name: str, arguments: Any, meta: Any = None) -> CallToolResult:
        ran.append(f"{tool_name} {arguments['at']}")
        return CallToolResult(content=[TextContent(type="text", text="seen")])

    async def list_prompts(self) -> Any: ...

    async def get_prompt(self, name: str, arguments: Any = None) -> Any: ...


def test_mcp() -> None:
    """A tool of an MCP server is one call, and is replayed without the server being asked to run it."""
    ran.clear()
    report, calls, store = run(made(saying(calling("look", {"at": "it"}), "done"), mcp_servers=[Server()]))
    assert (said(report), names(calls), ran) == ("done", ["look"], ["look it"])
    again = played(made(saying(), mcp_servers=[Server()]), report, store)
    assert (said(again), ran) == ("done", ["look it"])


def test_agent_as_tool() -> None:
    """An agent that is a tool is one, and its own calls are governed too; all is replayed."""

    def agent(outer: Any, inner: Any) -> Agent[Any]:
        return made(outer, made(inner, add).as_tool("ask", "Ask."))

    ran.clear()
    asked = calling("ask", {"input": "add"})
    report, calls, store = run(agent(saying(asked, "done"), saying(_ADD, "three")))
    assert (said(report), names(calls), ran) == ("done", ["ask", "add"], ["add"])
    assert said(played(agent(saying(), saying()), report, store)) == "done"
    outer = saying(asked, "done")
    denied, _, _ = run(agent(outer, saying(_ADD, "three")), Denying("add"))
    assert ((denied.violation or {}).get("rule"), ran, outer.remaining_steps) == ("denied", ["add"], 1)


def test_handoff() -> None:
    """Handing over is a tool call, which can be denied before anything of it runs, and is replayed without it."""

    def agent(first: Any, second: Any) -> Agent[Any]:
        other = Agent(name="other", model=second, tools=[add])
        return made(first, handoffs=[handoff(other, on_handoff=lambda _context: ran.append("handoff"))])

    over = calling("transfer_to_other", {})
    ran.clear()
    report, calls, store = run(agent(saying(over), saying(_ADD, "three")))
    assert (said(report), names(calls), ran) == (
        "three",
        ["transfer_to_other", "add"],
        ["handoff", "add"],
    )
    ran.clear()
    assert (said(played(agent(saying(), saying()), report, store)), ran) == ("three", [])
    denied, _, _ = run(agent(saying(over), saying(_ADD, "three")), Denying("transfer_to_other"))
    assert ((denied.violation or {}).get("rule"), ran) == ("denied", [])


@pytest.mark.parametrize("streamed", [False, True])
def test_denial_in_parallel(streamed: bool) -> None:
    """A denial while another tool runs ends the run soon."""

    @function_tool
    async def slow() -> None:
        """Wait."""
        await asyncio.sleep(60)

    @function_tool
    async def ask() -> str:
        """Ask another agent."""
        try:
            return str((await Runner.run(made(saying(_ADD, "three"), add), "go")).final_output)
        except Exception:
            return "swallowed"

    both = [calling("slow", {}, call_id="1"), calling("ask", {}, call_id="2")]

    async def agent(_task: str) -> str:
        if not streamed:
            return str((await Runner.run(made(saying(both, "done"), slow, ask), "go")).final_output)
        running = Runner.run_streamed(made(saying(both, "done"), slow, ask), "go")
        async for _ in running.stream_events():
            pass
        return str(running.final_output)

    ran.clear()
    report, _, _ = run(agent, Denying("add"))
    assert (report.status, (report.violation or {}).get("rule"), ran) == ("FAILED", "denied", []), report.error


def test_confirmation() -> None:
    """A call that the SDK itself held back passes the gate when it is made after all."""

    @function_tool(needs_approval=True)
    def drop(table: str) -> str:
        """Drop a table."""
        ran.append(table)
        return "dropped"

    async def agent(_task: str) -> str:
        one = made(saying(calling("drop", {"table": "t"}), "done"), drop)
        state = (await Runner.run(one, "go")).to_state()
        for held in state.get_interruptions():
            state.approve(held)
        return str((await Runner.run(one, state)).final_output)

    ran.clear()
    report, calls, _ = run(agent)
    assert (said(report), names(calls), ran) == ("done", ["drop"], ["t"])
    denied, _, _ = run(agent, Denying("drop"))
    assert (denied.status, ran) == ("FAILED", ["t"])


def test_guardrails_and_sessions() -> None:
    """An agent that guards another one is governed as well, and a session is replayed as it was."""

    def agent(outer: Any, guarding: Any) -> Any:
        guard = made(guarding)

        @input_guardrail
        async def polite(context: Any, _agent: Any, asked: Any) -> GuardrailFunctionOutput:
            answer = await Runner.run(guard, asked, context=context.context)
            return GuardrailFunctionOutput(output_info=answer.final_output, tripwire_triggered=False)

        async def ask(_task: str) -> str:
            session = SQLiteSession("s")
            one = made(outer, input_guardrails=[polite])
            await Runner.run(one, "first", session=session)
            return str((await Runner.run(one, "second", session=session)).final_output)

        return ask

    report, calls, store = run(agent(saying("a", "b"), saying("fine", "fine")))
    assert (said(report), len(calls)) == ("b", 4)
    assert said(played(agent(saying(), saying()), report, store)) == "b"


def test_realtime() -> None:
    """What is said over a realtime connection is not governed, and that is said; or it is refused."""

    class Connected(RealtimeModel):
        async def connect(self, options: Any) -> None:
            ran.append("connected")

        def add_listener(self, listener: Any) -> None: ...
        def remove_listener(self, listener: Any) -> None: ...
        async def send_event(self, event: Any) -> None: ...
        async def close(self) -> None: ...

    class Strict:
        @hookimpl
        def oao_limits(self) -> Limits:
            return Limits(require_governed=True)

    async def agent(_task: str) -> None:
        await Connected().connect({})

    ran.clear()
    assert "realtime" in run(agent)[0].ungoverned[0]
    assert (run(agent, Strict())[0].status, ran) == ("FAILED", ["connected"])


def test_outside() -> None:
    """Outside of runs nothing is changed, and a tool that was handed on is what it was."""
    ran.clear()
    tool = ShellTool(executor=_shell)
    assert replace(tool).executor is _shell
    call = _NATIVE["shell"][1]
    assert Runner.run_sync(made(saying(call, _ADD, "done"), tool, add), "go").final_output == "done"
    assert ran == ["ls", "add"]


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older version is refused."""
    monkeypatch.setattr(requiring, "version", lambda _name: "0.23.1")
    with pytest.raises(FrameworkError, match=r"0\.24"):
        openai_agents.install()
