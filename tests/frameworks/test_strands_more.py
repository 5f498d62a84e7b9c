"""What is particular about Strands Agents: the other kinds of tools, teams, and what swallows a denial there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("strands.agent.agent", reason="strands-agents is not installed: it has an environment of its own")

from mcp import StdioServerParameters, stdio_client
from pydantic import BaseModel
from strands import Agent, ToolContext, tool
from strands.bidi.models.model import BidiModel
from strands.hooks import AfterModelCallEvent, AfterToolCallEvent, BeforeModelCallEvent
from strands.models.openai import OpenAIModel
from strands.multiagent import GraphBuilder, Swarm
from strands.tools.mcp import MCPClient
from strands.tools.tools import PythonAgentTool
from strands.types.tools import AgentTool

from oao_harness import ExecutionReport, MemoryStore, Orchestrator
from oao_harness import tool as governed
from oao_harness.runtime.execute import Ending
from oao_hookspecs import Decision, Deny, ModelCall, hookimpl
from oao_hookspecs import ToolCall as Call
from pytest_oao.testing import OpenAIServer, ToolCall, ToolCallReply
from pytest_oao.testing.adapter import recording_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
_LIMIT_S = 20.0


def asks(name: str, **arguments: object) -> ToolCallReply:
    """The model asks for one tool."""
    return ToolCallReply(calls=(ToolCall(name=name, arguments=arguments),))


def agent(url: str, *tools: Any, **more: Any) -> Agent:
    model = OpenAIModel(client_args={"base_url": url, "api_key": "k", "max_retries": 0}, model_id="scripted")
    return Agent(model=model, tools=list(tools), callback_handler=None, **more)


class Denies:
    """A policy that denies tools by name and remembers what it saw."""

    name = "denies"

    def __init__(self, *names: str) -> None:
        self._names = names
        self.seen: list[tuple[str, Any]] = []
        self.models: list[ModelCall] = []

    @hookimpl
    def oao_decide_tool_call(self, call: Call) -> Decision | None:
        if not call.proposed:
            self.seen.append((call.name, dict(call.arguments)))
        return Deny(rule="r", reason="no") if call.name in self._names else None

    @hookimpl
    def oao_decide_model_call(self, call: ModelCall) -> Decision | None:
        self.models.append(call)
        return None


def run(agent: object, *policies: object, store: MemoryStore | None = None) -> ExecutionReport:
    """Run it, and fail rather than hang."""

    async def bounded() -> ExecutionReport:
        orchestrator = Orchestrator([*policies], store or MemoryStore())
        return await asyncio.wait_for(orchestrator.run_async(agent, "go"), _LIMIT_S)

    return asyncio.run(bounded())


class Custom(AgentTool):
    """A tool that a user derives from the base class."""

    def __init__(self, ran: list[str]) -> None:
        super().__init__()
        self.ran = ran

    @property
    def tool_name(self) -> str:
        return "work"

    @property
    def tool_spec(self) -> Any:
        schema = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
        return {"name": "work", "description": "Work.", "inputSchema": {"json": schema}}

    @property
    def tool_type(self) -> str:
        return "mine"

    async def stream(self, tool_use: Any, invocation_state: Any, **_kwargs: Any) -> Any:
        self.ran.append(tool_use["input"]["x"])
        yield "on the way"
        yield {"toolUseId": tool_use["toolUseId"], "status": "success", "content": [{"text": "custom done"}]}


def module_tool(ran: list[str]) -> AgentTool:
    """A tool as the framework makes it of a module with a `TOOL_SPEC`."""

    def work(tool_use: Any, **_state: Any) -> Any:
        ran.append(tool_use["input"]["x"])
        return {"toolUseId": tool_use["toolUseId"], "status": "success", "content": [{"text": "module done"}]}

    return PythonAgentTool("work", Custom(ran).tool_spec, work)


def generator_tool(ran: list[str]) -> Any:
    """A tool that streams on its way."""

    @tool
    async def work(x: str) -> Any:
        """Work."""
        ran.append(x)
        yield "half"
        yield "generator done"

    return work


def method_tool(ran: list[str]) -> Any:
    """A method, which the framework binds; it gets its context injected."""

    class Box:
        @tool(context=True)
        def work(self, x: str, tool_context: ToolContext) -> str:
            """Work."""
            assert tool_context.tool_use["name"] == "work"
            ran.append(x)
            return "method done"

    return Box().work


_KINDS: Sequence[Callable[[list[str]], Any]] = (Custom, module_tool, generator_tool, method_tool)


@pytest.mark.parametrize("make", _KINDS)
def test_every_kind_of_tool_is_governed_and_replayed(make: Callable[[list[str]], Any]) -> None:
    """Denied before its body begins; allowed, it runs once, and a replay does not run it."""
    ran: list[str] = []
    with OpenAIServer(replies=[asks("work", x="1"), "never"]) as server:
        denied = run(agent(server.url, make(ran)), Denies("work"))
        assert len(server.requests) == 1
    assert (denied.status, ran) == ("FAILED", [])

    store, sees = MemoryStore(), Denies()
    with OpenAIServer(replies=[asks("work", x="1"), "fine"]) as server:
        live = run(agent(server.url, make(ran)), sees, store=store)
        told = str(server.requests[-1])
    assert (live.status, ran, sees.seen) == ("SUCCESS", ["1"], [("work", {"x": "1"})]), live.error
    assert "done" in told, told
    assert "tracking" not in str(sees.models[-1].messages)

    played = Orchestrator().replay(agent(server.url, make(ran)), "go", recording_of(store, live))
    assert (played.status, ran, played.final_output) == ("SUCCESS", ["1"], "fine"), played.error


def test_tools_of_an_mcp_server_are_governed(tmp_path: Path) -> None:
    """The server is asked where the policy allows it, and is not where it denies."""
    file = tmp_path / "server.py"
    file.write_text(
        "from mcp.server.mcpserver import MCPServer\nserver = MCPServer('s')\n"
        "@server.tool()\ndef work(x: str) -> str:\n    open(__file__ + '.ran', 'a').write(x)\n    return 'mcp done'\n"
        "server.run('stdio')\n"
    )
    ran = Path(f"{file}.ran")
    client = MCPClient(lambda: stdio_client(StdioServerParameters(command=sys.executable, args=[str(file)])))
    with client:
        tools = client.list_tools_sync()
        with OpenAIServer(replies=[asks("work", x="1"), "never"]) as server:
            denied = run(agent(server.url, *tools), Denies("work"))
        assert (denied.status, ran.exists()) == ("FAILED", False), denied.error
        with OpenAIServer(replies=[asks("work", x="1"), "fine"]) as server:
            allowed = run(agent(server.url, *tools))
            told = str(server.requests[-1])
    assert (allowed.status, allowed.tool_calls, ran.read_text()) == ("SUCCESS", 1, "1"), allowed.error
    assert "mcp done" in told


def test_a_program_that_calls_a_tool_itself_is_governed() -> None:
    """By `agent.tool.work(...)`, and by calling the decorated function."""
    ran: list[str] = []

    @tool
    def work(x: str) -> str:
        """Work."""
        ran.append(x)
        return x

    with OpenAIServer(replies=["never"]) as server:
        inner = agent(server.url, work)

        def program(_task: str) -> str:
            inner.tool.work(x="1", record_direct_tool_call=False)
            return str(work("2"))

        sees = Denies()
        report = Orchestrator([sees], MemoryStore()).run(program, "go")
        assert (report.status, ran) == ("SUCCESS", ["1", "2"]), report.error
        assert sees.seen == [("work", {"x": "1"}), ("work", {"x": "2"})]
        assert Orchestrator([Denies("work")], MemoryStore()).run(program, "go").status == "FAILED"
    assert ran == ["1", "2"]


def test_an_agent_that_is_a_tool_is_governed_inside_as_well() -> None:
    """The call of the inner agent is a tool call, and so are its own."""
    ran: list[str] = []
    replies = [asks("helper", input="do it"), asks("work", x="1"), "inner", "outer"]
    with OpenAIServer(replies=replies) as server:
        helper = agent(server.url, module_tool(ran), name="helper", description="Helps.")
        sees = Denies()
        report = run(agent(server.url, helper), sees)
        assert (report.status, report.final_output, ran) == ("SUCCESS", "outer", ["1"]), report.error
        assert [name for name, _ in sees.seen] == ["helper", "work"]
    with OpenAIServer(replies=replies) as server:
        helper = agent(server.url, module_tool(ran), name="helper", description="Helps.")
        assert run(agent(server.url, helper), Denies("work")).status == "FAILED"
        assert len(server.requests) == 2
    assert ran == ["1"]


def test_structured_output_is_an_answer_and_no_tool_call() -> None:
    """It is read from the recorded answer in a replay, by both ways to ask for it."""

    class Person(BaseModel):
        """A person."""

        age: int

    def old(inner: Agent) -> Callable[[str], Any]:
        async def program(task: str) -> int:
            return (await inner.structured_output_async(Person, task)).age

        return program

    def new(inner: Agent) -> Callable[[str], Any]:
        async def program(task: str) -> int:
            return (await inner.invoke_async(task, structured_output_model=Person)).structured_output.age

        return program

    for make, reply in ((old, '{"age": 7}'), (new, asks("Person", age=7))):
        store = MemoryStore()
        with OpenAIServer(replies=[reply]) as server:
            live = run(make(agent(server.url)), Denies("Person"), store=store)
        assert (live.status, live.final_output, live.model_calls, live.tool_calls) == ("SUCCESS", 7, 1, 0), live.error
        played = asyncio.run(
            Orchestrator().replay_async(make(agent(server.url)), "go", recording_of(store, live))
            if hasattr(Orchestrator, "replay_async")
            else asyncio.to_thread(Orchestrator().replay, make(agent(server.url)), "go", recording_of(store, live))
        )
        assert (played.status, played.final_output) == ("SUCCESS", 7), played.error


@pytest.mark.parametrize("is_parallel", [False, True])
def test_a_graph_ends_where_a_node_is_denied(is_parallel: bool) -> None:
    """No node asks a model after the denial; and without one the output is by node."""
    ran: list[str] = []

    def respond(body: dict[str, object]) -> Any:
        tools = str(body.get("tools"))
        return asks("work", x="1") if "work" in tools and "tool_call_id" not in str(body["messages"]) else "said"

    def graph(url: str) -> Any:
        builder = GraphBuilder()
        for name in ("a", "b", "c"):
            builder.add_node(agent(url, *([module_tool(ran)] if name == "a" else []), name=name), name)
        builder.set_entry_point("a")
        builder.add_edge("a", "c")
        if is_parallel:
            builder.set_entry_point("b")
        else:
            builder.add_edge("c", "b")
        return builder.build()

    with OpenAIServer(respond=respond) as server:
        denied = run(graph(server.url), Denies("work"))
        assert len(server.requests) <= (2 if is_parallel else 1)
    assert (denied.status, ran) == ("FAILED", []), denied.error
    assert (denied.violation or {}).get("rule") == "r"
    with OpenAIServer(respond=respond) as server:
        report = run(graph(server.url))
    assert report.status == "SUCCESS", report.error
    assert report.final_output == {"a": "said", "b": "said", "c": "said"}


def test_a_swarm_hands_over_by_a_tool_call() -> None:
    """The hand-over is governed as a tool; where it is denied, the other agent asks nothing."""
    replies = [asks("handoff_to_agent", agent_name="b", message="yours"), "handed over", "b is done"]

    def swarm(url: str) -> Any:
        return Swarm([agent(url, name="a"), agent(url, name="b")])

    with OpenAIServer(replies=replies) as server:
        sees = Denies()
        report = run(swarm(server.url), sees)
    assert report.status == "SUCCESS", report.error
    assert [name for name, _ in sees.seen] == ["handoff_to_agent"]
    assert report.final_output["b"] == "b is done"  # type: ignore[index]
    with OpenAIServer(replies=replies) as server:
        denied = run(swarm(server.url), Denies("handoff_to_agent"))
        assert len(server.requests) == 1
    assert denied.status == "FAILED"


def test_a_hook_that_is_denied_does_not_loop() -> None:
    """What a hook raises, the event loop tries again, hundreds of times; after a halt nothing passes."""

    @governed
    def report_it(what: str) -> None:
        """Tell somebody."""

    for event in (AfterModelCallEvent, BeforeModelCallEvent, AfterToolCallEvent):
        ran: list[str] = []
        with OpenAIServer(respond=lambda _body: asks("work", x="1")) as server:
            inner = agent(server.url, module_tool(ran))
            inner.hooks.add_callback(event, lambda _event: report_it("it"))
            denied = run(inner, Denies("report_it"))
            assert len(server.requests) <= 1
        assert (denied.status, len(ran) <= 1) == ("FAILED", True), denied.error
        assert (denied.violation or {}).get("rule") == "r"


def test_retries_by_hooks_end_with_the_denial() -> None:
    """A hook that wants every call tried again gets nothing more."""

    def again(event: Any) -> None:
        event.retry = True

    with OpenAIServer(respond=lambda _body: asks("work", x="1")) as server:
        inner = agent(server.url, module_tool([]))
        inner.hooks.add_callback(AfterToolCallEvent, again)
        denied = run(inner, Denies("work"))
        assert len(server.requests) == 1
    assert denied.status == "FAILED"


def test_tools_in_the_background_are_governed() -> None:
    """A tool that the agent does not wait for is judged where it runs; its denial ends the run, and soon."""
    ran: list[str] = []

    def respond(body: dict[str, object]) -> Any:
        return "waiting" if "tool_call_id" in str(body["messages"]) else asks("work", x="1")

    with OpenAIServer(respond=respond) as server:
        for program in (
            agent(server.url, module_tool(ran), background_tasks={"always": ["work"]}),
            lambda task: agent(server.url, module_tool(ran), background_tasks={"always": ["work"]})(task),
        ):
            denied = run(program, Denies("work"))
            assert (denied.status, ran) == ("FAILED", []), denied.error
    with OpenAIServer(respond=respond) as server:
        report = run(agent(server.url, module_tool(ran), background_tasks={"always": ["work"]}))
    assert (report.status, report.tool_calls, ran) == ("SUCCESS", 1, ["1"]), report.error


def test_a_live_connection_is_refused() -> None:
    """What is said in both directions at once cannot be judged; so it does not begin."""
    began: list[str] = []

    class Live(BidiModel):
        async def start(self, *_args: Any, **_kwargs: Any) -> None:
            began.append("start")

        async def stop(self) -> None: ...
        async def receive(self) -> Any:
            yield None

        async def send(self, content: Any) -> None: ...
        def update_config(self, **model_config: Any) -> None: ...
        def get_config(self) -> Any:
            return {"model_id": "live"}

    async def program(_task: str) -> None:
        await Live().start()

    report = run(program)
    assert (report.status, began) == ("FAILED", [])
    assert "live connection" in str(report.error)
    asyncio.run(program("outside"))
    assert began == ["start"]


def test_another_model_is_asked_where_a_run_says_so() -> None:
    """On the wire, and the user's own object stays as it is."""
    orchestrator = Orchestrator()
    with OpenAIServer(replies=["fine"]) as server:
        inner = agent(server.url)
        run = orchestrator.open_run("session")
        run.model_override = "other"
        inner("go")
        assert orchestrator.close_run(run, Ending(result=None, done=True)).status == "SUCCESS"
        assert [request["model"] for request in server.requests] == ["other"]
    assert inner.model.get_config()["model_id"] == "scripted"
