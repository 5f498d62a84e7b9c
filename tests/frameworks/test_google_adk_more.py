"""What is particular about Google's Agent Development Kit: teams, tools that steer the framework, code, live models."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip(
    "google.adk.models.base_llm", reason="google-adk is not installed: it has an environment of its own"
)

from google import genai
from google.adk.agents import LlmAgent, LoopAgent, ParallelAgent, SequentialAgent
from google.adk.apps import App
from google.adk.code_executors.unsafe_local_code_executor import UnsafeLocalCodeExecutor
from google.adk.models import Gemini
from google.adk.models.llm_request import LlmRequest
from google.adk.plugins.reflect_retry_tool_plugin import ReflectAndRetryToolPlugin
from google.adk.runners import InMemoryRunner
from google.adk.tools import ToolContext, exit_loop
from google.adk.tools.agent_tool import AgentTool
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.base_toolset import BaseToolset
from google.adk.tools.long_running_tool import LongRunningFunctionTool
from google.genai import types
from pydantic import BaseModel

from oao_harness import ExecutionReport, MemoryStore, Orchestrator
from oao_harness.runtime.execute import Ending
from oao_hookspecs import Decision, Deny, hookimpl
from oao_hookspecs import ToolCall as Call
from pytest_oao.testing import GeminiServer, ToolCall, ToolCallReply
from pytest_oao.testing.adapter import recording_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def asks(name: str, **arguments: object) -> ToolCallReply:
    """The model asks for one tool."""
    return ToolCallReply(calls=(ToolCall(name=name, arguments=arguments),))


def agent(url: str, name: str = "a", **more: Any) -> LlmAgent:
    model = Gemini(model="scripted", client_kwargs={"api_key": "k", "http_options": {"base_url": url}})
    return LlmAgent(name=name, model=model, **more)


class Denies:
    """A policy that denies tools by name and remembers what it saw."""

    name = "denies"

    def __init__(self, *names: str) -> None:
        self._names = names
        self.seen: list[tuple[str, Any]] = []

    @hookimpl
    def oao_decide_tool_call(self, call: Call) -> Decision | None:
        if not call.proposed:
            self.seen.append((call.name, dict(call.arguments)))
        return Deny(rule="r", reason="no") if call.name in self._names else None


def run(program: object, *policies: object, store: MemoryStore | None = None) -> ExecutionReport:
    """Run it, and fail rather than hang."""

    async def bounded() -> ExecutionReport:
        orchestrator = Orchestrator([*policies], store or MemoryStore())
        return await asyncio.wait_for(orchestrator.run_async(program, "go"), 20)

    return asyncio.run(bounded())


def tool(ran: list[str]) -> Any:
    def work(x: str) -> str:
        """Work."""
        ran.append(x)
        return f"did {x}"

    return work


def test_tools_steer_the_framework_in_a_replay_as_they_did() -> None:
    """Handing over, leaving a loop and a changed state are no results; yet a tool that is not run has to do them."""

    def remember(x: str, tool_context: ToolContext) -> str:
        """Remember."""
        tool_context.state["kept"] = x
        return "kept it"

    def team(url: str) -> Any:
        second = agent(url, "second", tools=[exit_loop], instruction="You know {kept}.")
        first = agent(url, "first", tools=[remember], sub_agents=[agent(url, "third")])
        return SequentialAgent(name="all", sub_agents=[first, LoopAgent(name="loop", sub_agents=[second])])

    replies = [
        asks("remember", x="seven"),
        asks("transfer_to_agent", agent_name="third"),
        "third is done",
        "again",
        asks("exit_loop"),
    ]
    store, sees = MemoryStore(), Denies()
    with GeminiServer(replies=replies) as server:
        url = server.url
        live = run(team(url), sees, store=store)
        assert "You know seven." in str(server.requests[-1])
    assert (live.status, live.model_calls, live.tool_calls) == ("SUCCESS", 5, 3), live.error
    assert [name for name, _ in sees.seen] == ["remember", "transfer_to_agent", "exit_loop"]
    played = Orchestrator().replay(team(url), "go", recording_of(store, live))
    assert (played.status, played.model_calls, played.final_output) == ("SUCCESS", 5, live.final_output), played.error


def test_agents_side_by_side() -> None:
    """What they say is the output, by name; a denial in one of them ends all."""
    ran: list[str] = []

    def respond(body: dict[str, object]) -> Any:
        is_first = "functionDeclarations" in str(body) and "functionResponse" not in str(body)
        return asks("work", x="1") if is_first else "said"

    def team(url: str) -> Any:
        return ParallelAgent(name="all", sub_agents=[agent(url, "x", tools=[tool(ran)]), agent(url, "y")])

    with GeminiServer(respond=respond) as server:
        report = run(team(server.url))
        assert (report.status, report.final_output, ran) == ("SUCCESS", {"x": "said", "y": "said"}, ["1"]), report.error
    with GeminiServer(respond=respond) as server:
        denied = run(team(server.url), Denies("work"))
        assert len(server.requests) <= 2
    assert (denied.status, ran) == ("FAILED", ["1"])
    assert (denied.violation or {}).get("rule") == "r", denied.error


def test_an_agent_that_is_a_tool() -> None:
    """The call of the inner agent is a tool call, and so are its own."""
    ran: list[str] = []
    replies = [asks("helper", request="do it"), asks("work", x="1"), "inner", "outer"]

    def outer(url: str) -> Any:
        return agent(url, tools=[AgentTool(agent(url, "helper", tools=[tool(ran)]))])

    sees = Denies()
    with GeminiServer(replies=replies) as server:
        report = run(outer(server.url), sees)
    assert (report.status, report.final_output, ran) == ("SUCCESS", "outer", ["1"]), report.error
    assert [name for name, _ in sees.seen] == ["helper", "work"]
    with GeminiServer(replies=replies) as server:
        assert run(outer(server.url), Denies("work")).status == "FAILED"
        assert len(server.requests) == 2
    assert ran == ["1"]


class Mine(BaseTool):
    """A tool that a user derives from the base class."""

    def __init__(self, ran: list[str]) -> None:
        super().__init__(name="work", description="Work.")
        self.ran = ran

    def _get_declaration(self) -> Any:
        schema = types.Schema(type=types.Type.OBJECT, properties={"x": types.Schema(type=types.Type.STRING)})
        return types.FunctionDeclaration(name="work", description="Work.", parameters=schema)

    async def run_async(self, *, args: dict[str, Any], tool_context: Any) -> Any:
        self.ran.append(args["x"])
        return {"done": args["x"]}


class Set(BaseToolset):
    """Tools that are asked for when the agent runs."""

    def __init__(self, ran: list[str]) -> None:
        super().__init__()
        self.ran = ran

    async def get_tools(self, readonly_context: Any = None) -> list[BaseTool]:
        return [Mine(self.ran)]

    async def close(self) -> None: ...


@pytest.mark.parametrize("make", [Mine, Set, lambda ran: LongRunningFunctionTool(tool(ran))])
def test_every_kind_of_tool_is_governed_and_replayed(make: Any) -> None:
    """Denied before its body begins; allowed, it runs once, and a replay does not run it."""
    ran: list[str] = []
    with GeminiServer(replies=[asks("work", x="1"), "never"]) as server:
        denied = run(agent(server.url, tools=[make(ran)]), Denies("work"))
        assert (denied.status, ran, len(server.requests)) == ("FAILED", [], 1)
    store, sees = MemoryStore(), Denies()
    with GeminiServer(replies=[asks("work", x="1"), "fine"]) as server:
        url = server.url
        live = run(agent(url, tools=[make(ran)]), sees, store=store)
    assert (live.status, ran, sees.seen) == ("SUCCESS", ["1"], [("work", {"x": "1"})]), live.error
    played = Orchestrator().replay(agent(url, tools=[make(ran)]), "go", recording_of(store, live))
    assert (played.status, ran, played.final_output) == ("SUCCESS", ["1"], "fine"), played.error


def test_code_of_the_model_is_a_tool_call() -> None:
    """Each execution is judged with the code as its argument, and served in a replay."""
    code = "```python\nopen({!r}, 'w').write('ran')\nprint('from code')\n```"

    def make(url: str) -> Any:
        return agent(url, code_executor=UnsafeLocalCodeExecutor())

    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ran"
        with GeminiServer(replies=[code.format(str(file)), "never"]) as server:
            denied = run(make(server.url), Denies("execute_code"))
            assert (denied.status, file.exists(), len(server.requests)) == ("FAILED", False, 1), denied.error
        store, sees = MemoryStore(), Denies()
        with GeminiServer(replies=[code.format(str(file)), "fine"]) as server:
            url = server.url
            live = run(make(url), sees, store=store)
            assert "from code" in str(server.requests[-1])
        assert (live.status, file.exists(), live.tool_calls) == ("SUCCESS", True, 1), live.error
        assert "print('from code')" in sees.seen[0][1]["code"]
        file.unlink()
        played = Orchestrator().replay(make(url), "go", recording_of(store, live))
        assert (played.status, file.exists(), played.final_output) == ("SUCCESS", False, "fine"), played.error


def test_what_handles_errors_of_tools_does_not_swallow_a_denial() -> None:
    """Neither a callback for errors nor the plugin that lets the model try again gets to see it."""
    told: list[object] = []

    def handle(tool: Any, args: Any, tool_context: Any, error: Exception) -> Any:
        told.append(error)
        return {"error": "never mind"}

    with GeminiServer(respond=lambda _body: asks("work", x="1")) as server:
        inner = agent(server.url, tools=[tool([])], on_tool_error_callback=handle)
        app = App(name="app", root_agent=inner, plugins=[ReflectAndRetryToolPlugin(max_retries=3)])
        denied = run(app, Denies("work"))
        assert len(server.requests) == 1
    assert (denied.status, told) == ("FAILED", [])


def test_an_app_and_a_runner_are_agents_too() -> None:
    """As users hand them over."""
    for make in (
        lambda url: App(name="app", root_agent=agent(url, tools=[tool([])])),
        lambda url: InMemoryRunner(agent=agent(url, tools=[tool([])])),
    ):
        with GeminiServer(replies=[asks("work", x="1"), "fine"]) as server:
            report = Orchestrator([], MemoryStore()).run(make(server.url), "go")
        assert (report.status, report.final_output, report.tool_calls) == ("SUCCESS", "fine", 1), report.error


def test_an_answer_with_a_schema_is_no_tool_call() -> None:
    """Also where the agent has tools, and the model answers by asking for one."""

    class Person(BaseModel):
        """A person."""

        age: int

    def make(url: str) -> Any:
        return agent(url, tools=[tool([])], output_schema=Person)

    store = MemoryStore()
    with GeminiServer(replies=[asks("set_model_response", age=7), "unused"]) as server:
        url = server.url
        live = run(make(url), Denies("set_model_response"), store=store)
    assert (live.status, live.tool_calls) == ("SUCCESS", 0), live.error
    assert "7" in str(live.final_output)
    played = Orchestrator().replay(make(url), "go", recording_of(store, live))
    assert (played.status, played.final_output) == ("SUCCESS", live.final_output), played.error


def test_a_live_connection_is_refused() -> None:
    """What is said in both directions at once cannot be judged; so it does not begin."""

    async def program(_task: str) -> None:
        async with Gemini(model="m", client_kwargs={"api_key": "k"}).connect(LlmRequest()):
            raise AssertionError("connected")

    report = run(program)
    assert report.status == "FAILED"
    assert "live connection" in str(report.error)


def test_the_plain_client_below_is_seen() -> None:
    """Who asks Gemini by google-genai itself, outside of a governed model call, is told so, or stopped."""
    with GeminiServer(replies=["one", "two", "three"]) as server:
        url = server.url

        def program(_task: str) -> str:
            client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=url))
            return str(client.models.generate_content(model="m", contents="hi").text)

        async def program_async(_task: str) -> str:
            client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=url))
            return str((await client.aio.models.generate_content(model="m", contents="hi")).text)

        for one in (program, program_async):
            report = run(one)
            assert any("generateContent" in what for what in report.ungoverned), (report.error, report.ungoverned)


def test_another_model_is_asked_where_a_run_says_so() -> None:
    """On the wire, and the user's own object stays as it is."""
    orchestrator = Orchestrator()
    with GeminiServer(replies=["fine"]) as server:
        inner = agent(server.url)
        run = orchestrator.open_run("session")
        run.model_override = "other"
        events = asyncio.run(InMemoryRunner(agent=inner).run_debug("go", quiet=True))
        assert orchestrator.close_run(run, Ending(result=None, done=True)).status == "SUCCESS"
        assert [event.model_version for event in events] == ["other"]
    assert inner.model.model == "scripted"
