"""agno, in every way that it can be asked."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

os.environ["AGNO_TELEMETRY"] = "false"
pytest.importorskip("agno.models.base", reason="agno is not installed: it has an environment of its own in CI")

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.exceptions import StopAgentRun
from agno.models.base import Model
from agno.models.openai import OpenAIChat
from agno.models.response import ModelResponse
from agno.team import Team
from agno.tools import tool
from agno.workflow import Parallel, Step, Workflow

from oao_harness import ExecutionReport, MemoryStore, Orchestrator
from oao_harness.adapters import agno, requiring
from oao_harness.errors import FrameworkError
from oao_hookspecs import Allow, Deny, hookimpl
from pytest_oao.testing.adapter import AdapterCase, AdapterConformance, recording_of


class Agno(AdapterCase):
    """Agents whose model speaks Chat Completions."""

    name = "agno"

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        model = OpenAIChat(id="scripted", base_url=url, api_key="k", max_retries=0)
        return Agent(model=model, tools=list(tools), telemetry=False)

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        async def ask(task: str) -> str:
            return "".join([str(event.content or "") async for event in agent.arun(task, stream=True)])

        return ask

    def text(self, output: object) -> str:
        return str(getattr(output, "content", output))


class TestAgno(AdapterConformance):
    """What every adapter promises."""

    case = Agno()


# What is particular to it


class Saying(Model):
    """A model that says these, one after the other: texts, or lists of a tool's name and its arguments."""

    def __init__(self, *turns: Any) -> None:
        super().__init__(id="saying")
        self.turns = list(turns)

    def invoke(self, *args: Any, **kwargs: Any) -> ModelResponse:
        turn = self.turns.pop(0)
        if isinstance(turn, str):
            return ModelResponse(role="assistant", content=turn)
        calls = [
            {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for index, (name, arguments) in enumerate(turn)
        ]
        return ModelResponse(role="assistant", tool_calls=calls)

    async def ainvoke(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return self.invoke()

    def invoke_stream(self, *args: Any, **kwargs: Any) -> Iterator[ModelResponse]:
        yield self.invoke()

    async def ainvoke_stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ModelResponse]:
        yield self.invoke()

    def _parse_provider_response(self, response: Any, **kwargs: Any) -> ModelResponse:
        return ModelResponse()

    def _parse_provider_response_delta(self, response: Any) -> ModelResponse:
        return ModelResponse()


class Denying:
    """A policy that denies one tool."""

    def __init__(self, name: str) -> None:
        self._name = name

    @hookimpl
    def oao_decide_tool_call(self, call: Any) -> Any:
        return Deny(rule="denied", reason="no") if call.name == self._name else Allow()


def run(agent: Any, *policies: object) -> tuple[ExecutionReport, list[Any], MemoryStore]:
    """Run an agent, or a function, and return the report, the calls as they were journaled, and the store."""
    store = MemoryStore()
    orchestrator = Orchestrator([*policies], store)
    is_async = inspect.iscoroutinefunction(agent)
    report = asyncio.run(orchestrator.run_async(agent, "go")) if is_async else orchestrator.run(agent, "go")
    return report, [record for record in store.read(report.execution_id) if record["type"] == "call"], store


def played(agent: Any, report: ExecutionReport, store: MemoryStore) -> ExecutionReport:
    """Replay a run."""
    return Orchestrator().replay(agent, "go", recording_of(store, report))


def names(calls: list[Any]) -> list[str]:
    return [f"{call['kind']} {call['name']}" for call in calls]


def said(report: ExecutionReport) -> object:
    assert report.status == "SUCCESS", report.error
    return getattr(report.result, "content", report.result)


ran: list[str] = []


def add(a: int, b: int) -> int:
    """Add two numbers."""
    ran.append("add")
    return a + b


_ADD = [("add", {"a": 1, "b": 2})]


def made(model: Model, *tools: Any, **more: Any) -> Agent:
    return Agent(model=model, tools=list(tools), telemetry=False, **more)


def team(leader: Model, member: Model) -> Team:
    inner = Agent(id="adder", name="adder", model=member, tools=[add], telemetry=False)
    return Team(members=[inner], model=leader, telemetry=False)


_ASK = [("delegate_task_to_member", {"member_id": "adder", "task": "add"})]


@pytest.mark.parametrize("stream", [False, True])
def test_team(stream: bool) -> None:
    """A team's members are governed, handing a task to one is a tool call, and all is replayed."""

    def asking(one: Team) -> Any:
        def agent(_task: str) -> str:
            if not stream:
                return str(one.run("go").content)
            return "".join(str(event.content) for event in one.run("go", stream=True) if hasattr(event, "content"))

        return agent

    ran.clear()
    report, calls, store = run(asking(team(Saying(_ASK, "done"), Saying(_ADD, "three"))))
    assert report.status == "SUCCESS", report.error
    expected = [
        "model saying",
        "tool delegate_task_to_member",
        "model saying",
        "tool add",
        "model saying",
        "model saying",
    ]
    assert names(calls) == expected
    again = played(asking(team(Saying(), Saying())), report, store)
    assert (again.status, again.result, ran) == ("SUCCESS", report.result, ["add"]), again.error


def test_team_denied() -> None:
    """What is denied to a member ends the team's run; nobody is told of it as of a failed task."""
    ran.clear()
    for is_async in (False, True):
        leader = Saying(_ASK, "done")

        async def agent(_task: str, leader: Any = leader) -> str:
            return str((await team(leader, Saying(_ADD, "three")).arun("go")).content)

        report, _, _ = run(agent if is_async else team(leader, Saying(_ADD, "three")), Denying("add"))
        assert (report.status, (report.violation or {}).get("rule"), ran) == ("FAILED", "denied", []), report.error
        assert leader.turns == ["done"]


def test_workflow() -> None:
    """A workflow's agents are governed, in one step after the other and in parallel."""

    def workflow(*models: Model) -> Workflow:
        one, two, three = (
            Agent(name=f"a{index}", model=model, tools=[add], telemetry=False) for index, model in enumerate(models)
        )
        steps: Any = [Step(name="first", agent=one), Parallel(Step(name="l", agent=two), Step(name="r", agent=three))]
        return Workflow(name="w", steps=steps, telemetry=False)

    report, calls, _ = run(workflow(Saying("one"), Saying("two"), Saying("three")))
    assert (report.status, names(calls)) == ("SUCCESS", ["model saying"] * 3), report.error
    ran.clear()
    denied, _, _ = run(workflow(Saying("one"), Saying(_ADD, "two"), Saying("three")), Denying("add"))
    assert (denied.status, (denied.violation or {}).get("rule"), ran) == ("FAILED", "denied", []), denied.error


def test_denial_in_parallel() -> None:
    """A denial inside of one of several tools that run at once ends the run."""

    async def quick() -> str:
        """Be quick."""
        ran.append("quick")
        return "quick"

    async def ask() -> str:
        """Ask another agent."""
        try:
            return str((await made(Saying(_ADD, "three"), add).arun("go")).content)
        except Exception:
            return "swallowed"

    ran.clear()
    model = Saying([("quick", {}), ("ask", {})], "done")

    async def agent(_task: str) -> str:
        return str((await made(model, quick, ask).arun("go")).content)

    report, _, _ = run(agent, Denying("add"))
    assert (report.status, (report.violation or {}).get("rule"), ran) == ("FAILED", "denied", ["quick"]), report.error
    assert model.turns == ["done"]


def test_hooks() -> None:
    """A hook that catches everything away, or calls twice, hides nothing."""

    def catching(function_name: str, function_call: Any, arguments: Any) -> Any:
        try:
            function_call(**arguments)
            return function_call(**arguments)
        except BaseException:
            return "swallowed"

    ran.clear()
    report, calls, _ = run(made(Saying(_ADD, "three"), add, tool_hooks=[catching]))
    assert (report.tool_calls, names(calls)[1:3], ran) == (2, ["tool add", "tool add"], ["add", "add"]), report.error
    denied, _, _ = run(made(Saying(_ADD, "three"), add, tool_hooks=[catching]), Denying("add"))
    assert (denied.status, len(ran)) == ("FAILED", 2)


def test_pieces() -> None:
    """A tool that yields its result is one call, and is replayed with its pieces; sync and async."""

    def count(n: int) -> Iterator[str]:
        """Count."""
        for index in range(n):
            ran.append(str(index))
            yield f"{index} "

    async def acount(n: int) -> AsyncIterator[str]:
        """Count."""
        for index in range(n):
            ran.append(str(index))
            yield f"{index} "

    for function in (count, acount):
        ran.clear()
        asked = [(function.__name__, {"n": 2})]

        async def agent(_task: str, one: Any = function, asked: Any = asked, model: Any = None) -> str:
            answer = await made(model or Saying(asked, "two"), one).arun("go")
            return str(answer.messages[-2].content)

        report, calls, store = run(agent)
        assert (report.result, names(calls)[1], ran) == ("0 1 ", f"tool {function.__name__}", ["0", "1"]), report.error
        again = played(agent, report, store)
        assert (again.result, ran) == ("0 1 ", ["0", "1"]), again.error


def test_control_flow() -> None:
    """What a tool raises to end the run, or to be asked once more, does so in a replay too."""

    def enough() -> str:
        """Be enough."""
        ran.append("enough")
        raise StopAgentRun("enough")

    ran.clear()
    report, _, store = run(made(Saying([("enough", {})], "never"), enough))
    again = played(made(Saying(), enough), report, store)
    assert (report.model_calls, said(again), ran) == (1, said(report), ["enough"]), again.error


def test_confirmation() -> None:
    """A call that agno itself held back passes the gate when it is made after all."""

    @tool(requires_confirmation=True)
    def drop(table: str) -> str:
        """Drop a table."""
        ran.append(table)
        return "dropped"

    def agent(_task: str) -> str:
        one = made(Saying([("drop", {"table": "t"})], "done"), drop, db=InMemoryDb())
        held = one.run("go", session_id="s")
        assert held.is_paused
        for requirement in held.active_requirements:
            requirement.confirm()
        return str(one.continue_run(run_id=held.run_id, requirements=held.requirements, session_id="s").content)

    ran.clear()
    report, calls, _ = run(agent)
    assert (report.result, ran, names(calls)[1]) == ("done", ["t"], "tool drop"), report.error
    denied, _, _ = run(agent, Denying("drop"))
    assert (denied.status, ran) == ("FAILED", ["t"])


def test_requests_are_stable() -> None:
    """What is journaled of a request says nothing of when, or in which process, it was made."""
    _, calls, _ = run(made(Saying(_ADD, "three"), add))
    written = json.dumps([call["req"] for call in calls if call["kind"] == "model"])
    assert not [word for word in ("created_at", "metrics", "api_key", "run_id") if word in written]


def test_outside() -> None:
    """Outside of runs nothing is changed."""
    assert made(Saying(_ADD, "three"), add).run("go").content == "three"


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older version is refused."""
    monkeypatch.setattr(requiring, "version", lambda _name: "2.9")
    with pytest.raises(FrameworkError, match=r"3\.1"):
        agno.install()
