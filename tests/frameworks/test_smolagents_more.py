"""What is particular about smolagents: code that a model writes, managed agents, and tools called in other ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("smolagents.agents", reason="smolagents is not installed: it has an environment of its own in CI")

from smolagents import CodeAgent, OpenAIModel, Tool, ToolCallingAgent
from smolagents import tool as as_tool

from oao_harness import ExecutionReport, MemoryStore, Orchestrator
from oao_harness.runtime.execute import Ending
from oao_hookspecs import Ask, Decision, Deny, Principal, hookimpl
from oao_hookspecs import ToolCall as Call
from pytest_oao.testing import OpenAIServer, ToolCall, ToolCallReply
from pytest_oao.testing.adapter import recording_of

_RAN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    _RAN.clear()


@as_tool
def work(x: str) -> str:
    """Work.

    Args:
        x: Anything.
    """
    _RAN.append(x)
    return f"did {x}"


class Mine(Tool):
    """A tool that a user derives, and whose call he overrides."""

    name = "work"
    description = "Work."
    inputs = {"x": {"type": "string", "description": "Anything."}}  # noqa: RUF012 - as the framework has it
    output_type = "string"

    def forward(self, x: str) -> str:
        _RAN.append(x)
        return f"did {x}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


@as_tool
def clean(x: str) -> str:
    """Work.

    Args:
        x: Anything.
    """
    return f"did {x}"


class Clean(Tool):
    """A tool that says all that it needs."""

    name = "work"
    description = "Work."
    inputs = {"x": {"type": "string", "description": "Anything."}}  # noqa: RUF012 - as the framework has it
    output_type = "string"

    def forward(self, x: str) -> str:
        return f"did {x}"


def asks(*calls: tuple[str, dict[str, Any]]) -> ToolCallReply:
    """The model asks for tools."""
    return ToolCallReply(calls=tuple(ToolCall(name=name, arguments=arguments) for name, arguments in calls))


def final(answer: str) -> ToolCallReply:
    return asks(("final_answer", {"answer": answer}))


def code(*lines: str) -> str:
    """The model writes code."""
    return "Thought: so.\n<code>\n" + "\n".join(lines) + "\n</code>"


def model(url: str) -> OpenAIModel:
    return OpenAIModel("scripted", api_base=url, api_key="k", client_kwargs={"max_retries": 0}, retry=False)


def caller(url: str, *tools: Any, **more: Any) -> ToolCallingAgent:
    return ToolCallingAgent(tools=list(tools), model=model(url), max_steps=4, verbosity_level=0, **more)


def coder(url: str, *tools: Any, **more: Any) -> CodeAgent:
    return CodeAgent(tools=list(tools), model=model(url), max_steps=4, verbosity_level=0, **more)


class Rules:
    """A policy that denies or holds tools by name and remembers what it saw."""

    name = "rules"

    def __init__(self, *deny: str, hold: str = "") -> None:
        self._deny, self._hold = deny, hold
        self.seen: list[tuple[str, Any]] = []

    @hookimpl
    def oao_decide_tool_call(self, call: Call) -> Decision | None:
        if not call.proposed:
            self.seen.append((call.name, dict(call.arguments)))
        if call.name == self._hold:
            return Ask(rule="r", reason="a person")
        return Deny(rule="r", reason="no") if call.name in self._deny else None


def run(agent: object, *policies: object, store: MemoryStore | None = None) -> ExecutionReport:
    return Orchestrator([*policies], store or MemoryStore()).run(agent, "go")


@pytest.mark.parametrize("stream", [False, True])
def test_code_and_the_tools_in_it_are_governed(stream: bool) -> None:
    """An execution is a tool call with the code as its argument, and each tool that it calls is one as well."""
    store, rules = MemoryStore(), Rules()
    replies = [code("y = work(x='1')", "print(y, work('2'))"), code("final_answer(y + '!')")]
    with OpenAIServer(replies=replies) as server:
        url = server.url
        live = run(coder(url, work, stream_outputs=stream), rules, store=store)
    assert (live.status, live.final_output, _RAN) == ("SUCCESS", "did 1!", ["1", "2"]), live.error
    assert [name for name, _ in rules.seen] == ["python_interpreter", "work", "work", "python_interpreter"]
    assert "y = work(x='1')" in rules.seen[0][1]["code"]
    assert rules.seen[1:3] == [("work", {"x": "1"}), ("work", {"x": "2"})]

    played = Orchestrator().replay(coder(url, work, stream_outputs=stream), "go", recording_of(store, live))
    assert (played.status, played.final_output, _RAN) == ("SUCCESS", "did 1!", ["1", "2"]), played.error


def test_a_recording_of_a_stream_is_played_whole_and_back() -> None:
    """The answers of the models are the same either way."""
    for stream in (False, True):
        store = MemoryStore()
        with OpenAIServer(replies=[asks(("work", {"x": "1"})), final("fine")]) as server:
            url = server.url
            live = run(caller(url, work, stream_outputs=stream), store=store)
        played = Orchestrator().replay(caller(url, work, stream_outputs=not stream), "go", recording_of(store, live))
        assert (played.status, played.final_output) == ("SUCCESS", "fine"), played.error


@pytest.mark.parametrize("denied", ["python_interpreter", "work"])
def test_a_denial_ends_code_and_run(denied: str, tmp_path: Path) -> None:
    """Also where the code catches every exception; and not after all steps were tried."""
    file = tmp_path / "ran"
    lines = ["try:", "    work(x='1')", "except:", "    pass", f"open({str(file)!r}, 'w').write('x')"]
    with OpenAIServer(respond=lambda _body: code(*lines)) as server:
        report = run(coder(server.url, work, additional_authorized_imports=["*"]), Rules(denied))
        assert len(server.requests) == 1
    assert (report.status, _RAN, file.exists()) == ("FAILED", [], False)
    assert (report.violation or {}).get("rule") == "r", report.error


def test_code_goes_on_after_an_approval() -> None:
    """What ran is not run again, and the code after it finds the variables of the code before it."""
    rules = Rules(hold="work")
    orchestrator = Orchestrator([rules], MemoryStore())
    replies = [code("kept = [6, 1]"), code("z = work(x=str(sum(kept)))", "final_answer(z)")]
    with OpenAIServer(replies=replies) as server:
        first = orchestrator.run(coder(server.url, work), "go")
        assert (first.status, _RAN) == ("SUSPENDED", []), first.error
        for question in orchestrator.approvals():
            orchestrator.approve(question.id, by=Principal(id="p"))
        last = orchestrator.resume(first.execution_id, coder(server.url, work), allow_changes=True)
        assert len(server.requests) == 2
    assert (last.status, last.final_output, _RAN) == ("SUCCESS", "did 7", ["7"]), last.error


@pytest.mark.parametrize("make", [lambda: work, Mine])
def test_a_tool_is_governed_however_it_is_called(make: Callable[[], Any]) -> None:
    """By an agent, by a program that calls it, and by one that calls its `forward`; once each."""
    one = make()
    rules = Rules()

    def program(_task: str) -> str:
        return one(x="1") + one("2") + one({"x": "3"}) + one.forward("4") + one.forward(x="5")

    report = run(program, rules)
    assert (report.status, _RAN) == ("SUCCESS", ["1", "2", "3", "4", "5"]), report.error
    assert rules.seen == [("work", {"x": x}) for x in _RAN]
    for way in (lambda _task: one(x="1"), lambda _task: one.forward("1")):
        assert run(way, Rules("work")).status == "FAILED"
    with OpenAIServer(replies=[asks(("work", {"x": "6"})), final("fine")]) as server:
        assert run(caller(server.url, one)).tool_usage == {"work": 1}
    assert _RAN == ["1", "2", "3", "4", "5", "6"]
    assert one(x="7") == "did 7"


def test_managed_agents_are_tools_with_tools() -> None:
    """From an agent that asks by name, and from code."""
    inner = [asks(("work", {"x": "1"})), final("inner is done")]
    ways = (
        (caller, [asks(("helper", {"task": "do it"})), *inner, final("outer")]),
        (coder, [code("r = helper('do it')"), *inner, code("final_answer('outer')")]),
    )
    for make, replies in ways:
        for deny in ((), ("work",)):
            rules = Rules(*deny)
            with OpenAIServer(replies=replies) as server:
                helper = caller(server.url, work, name="helper", description="Helps.")
                report = run(make(server.url, managed_agents=[helper]), rules)
                requests = len(server.requests)
            names = [name for name, _ in rules.seen if name != "python_interpreter"]
            assert names == ["helper", "work"]
            assert (report.status, requests) == (("FAILED", 2) if deny else ("SUCCESS", 4)), report.error
    assert _RAN == ["1", "1"]


def test_tools_side_by_side_end_with_the_denial() -> None:
    """They run in threads; where one is denied when it is called, no model is asked again."""

    @as_tool
    def outer(x: str) -> str:
        """Call another one.

        Args:
            x: Anything.
        """
        return work(x)

    with OpenAIServer(respond=lambda _body: asks(("outer", {"x": "1"}), ("outer", {"x": "2"}))) as server:
        report = run(caller(server.url, outer), Rules("work"))
        assert len(server.requests) == 1
    assert (report.status, _RAN) == ("FAILED", [])
    assert (report.violation or {}).get("rule") == "r", report.error


def test_calls_that_are_written_as_text_are_replayed() -> None:
    """The framework makes up ids for them, which the model is told; they are the same in a replay."""
    store = MemoryStore()
    texts = ['{"name": "work", "arguments": {"x": "1"}}', '{"name": "final_answer", "arguments": {"answer": "fine"}}']
    with OpenAIServer(replies=texts) as server:
        url = server.url
        live = run(caller(url, work), store=store)
    assert (live.status, live.final_output, live.tool_calls) == ("SUCCESS", "fine", 1), live.error
    played = Orchestrator().replay(caller(url, work), "go", recording_of(store, live))
    assert (played.status, played.final_output, _RAN) == ("SUCCESS", "fine", ["1"]), played.error


def test_tools_can_still_be_saved() -> None:
    """The framework reads their source, to send it elsewhere."""

    def program(_task: str) -> str:
        return str(clean.to_dict()["code"]) + str(Clean().to_dict()["code"])

    report = run(program)
    assert report.status == "SUCCESS", report.error
    assert str(report.final_output).count("did {x}") == 2


def test_another_model_is_asked_where_a_run_says_so() -> None:
    """On the wire, and the user's own object stays as it is."""
    orchestrator = Orchestrator()
    with OpenAIServer(replies=["fine"]) as server:
        inner = caller(server.url)
        run = orchestrator.open_run("session")
        run.model_override = "other"
        inner.model.generate([{"role": "user", "content": [{"type": "text", "text": "go"}]}])
        assert orchestrator.close_run(run, Ending(result=None, done=True)).status == "SUCCESS"
        assert [request["model"] for request in server.requests] == ["other"]
    assert inner.model.model_id == "scripted"
