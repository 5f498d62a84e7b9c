"""LangGraph's own history: a killed run goes on in the user's thread, and time travel fires nothing twice."""

from __future__ import annotations

import json
import operator
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt

import oao_harness as oao
from oao_hookspecs import Deny, ToolCall, hookimpl

ROOT = Path(__file__).parent.parent.parent
CONFIG: Any = {"configurable": {"thread_id": "t"}}


def script(mode: str, *steps: tuple[Path, str]) -> list[dict[str, Any]]:
    """Do things in folders, each in a process of its own, and return what became of them."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.adapters.history_agents", mode, *(f"{folder}:{what}" for folder, what in steps)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    found = [json.loads((folder / f"{what}.json").read_text()) for folder, what in steps]
    assert [one["exitcode"] for one in found if one["exitcode"] not in {0, -signal.SIGKILL}] == [], done.stderr
    return found


@pytest.mark.parametrize(
    ("mode", "earlier"), [("none", False), ("own", False), ("sync", True), ("async", True), ("nested", True)]
)
def test_a_killed_run_goes_on_where_its_graph_began(tmp_path: Path, mode: str, earlier: bool) -> None:
    """With any checkpointer, with earlier turns in the thread or none: each effect once, and the same end."""
    whole = tmp_path / "whole"
    whole.mkdir()
    turns = ["before"] if earlier else []
    steps = [(tmp_path, what) for what in (*turns, "run", "resume")] + [(whole, what) for what in (*turns, "whole")]
    done = dict(zip(steps, script(mode, *steps), strict=True))
    killed, resumed, uninterrupted = done[tmp_path, "run"], done[tmp_path, "resume"], done[whole, "whole"]
    assert [one["exitcode"] for one in done.values() if one is not killed] == [0] * (len(done) - 1)
    assert killed["exitcode"] == -signal.SIGKILL
    report = resumed["said"]["report"]
    assert (report["status"], report["error"]) == ("SUCCESS", None)
    before = done[tmp_path, "before"]["effects"] if earlier else []
    effects = resumed["effects"][len(before) :]
    count = ["count"] if mode == "nested" else []
    assert [line.partition(" ")[0] for line in effects] == [*count, "first", "think", "second", "third"]
    assert report["tool_calls"] == 3 + len(count)
    assert report["final_output"] == uninterrupted["said"]["report"]["final_output"]
    assert resumed["said"]["state"] == uninterrupted["said"]["state"]
    assert (resumed["said"]["state"] is None) == (mode == "none")


# Inside of one open run

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()


class State(TypedDict):
    said: Annotated[list[str], operator.add]


@oao.tool(effect="once")
def act(what: str) -> str:
    RAN.append(what)
    return f"{what}!"


@oao.model(name="m")
def think(prompt: str) -> dict[str, Any]:
    RAN.append("think")
    return {"text": prompt.upper(), "usage": {"input_tokens": 3, "output_tokens": 4}}


def first(state: State) -> State:
    think("go")
    return {"said": [act("first")]}


def second(state: State) -> State:
    return {"said": [act("second"), act("second"), act(f"after {len(state['said'])}")]}


def make(*nodes: Any, **kwargs: Any) -> Any:
    graph: Any = StateGraph(State).add_sequence(nodes or (first, second))
    name = (nodes or (first,))[0]
    return graph.add_edge(START, name.__name__).compile(checkpointer=InMemorySaver(), **kwargs)


def at(graph: Any, node: str) -> Any:
    """Return the config of the oldest checkpoint that a node was next at."""
    return [one for one in graph.get_state_history(CONFIG) if one.next == (node,)][-1].config


ONCE = ["think", "first", "second", "second", "after 2"]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("node", ["first", "second"])
def test_going_back_fires_nothing_again(node: str, is_async: bool) -> None:
    """All nodes after the checkpoint run again, and are served; the journal says so, and nothing is spent."""
    graph = make()

    def agent(task: Any) -> Any:
        once = graph.invoke({"said": ["x"]}, CONFIG)
        for _ in range(3):
            again = graph.invoke(None, at(graph, node))
            assert again == once
        return again

    async def aagent(task: Any) -> Any:
        once = await graph.ainvoke({"said": ["x"]}, CONFIG)
        for _ in range(3):
            again = await graph.ainvoke(None, at(graph, node))
            assert again == once
        return again

    orchestrator = oao.Orchestrator()
    report = orchestrator.run(aagent if is_async else agent, "t")
    assert report.status == "SUCCESS", report.error
    assert RAN == ONCE
    outcomes = [one for one in orchestrator.store.read(report.execution_id) if one["type"] == "outcome"]
    again = 3 * (5 if node == "first" else 3)
    assert [bool(one.get("replayed")) for one in outcomes] == [False] * 5 + [True] * again
    assert report.total_tokens == 7


def test_what_is_new_is_made() -> None:
    """A second turn, an edited state and a changed request are other calls, although they ask for the same."""
    graph = make()

    def agent(task: Any) -> None:
        graph.invoke({"said": ["x"]}, CONFIG)
        assert ONCE == RAN
        # A request that changed, behind the same node of the same checkpoint.
        edited = graph.update_state(at(graph, "second"), {"said": ["y"]})
        graph.invoke(None, edited)
        assert RAN[5:] == ["second", "second", "after 3"]
        graph.invoke(None, edited)
        assert len(RAN) == 8, "the edited branch was gone back to: it is served too"
        graph.invoke({"said": ["x"]}, CONFIG)
        assert RAN[8:] == ["think", "first", "second", "second", "after 8"]

    report = oao.Orchestrator().run(agent, "t")
    assert report.status == "SUCCESS", report.error


def test_what_follows_a_changed_call_is_new() -> None:
    """Where a node asks for something else the next time, its successors see another state: all of it is made."""
    turn = iter(range(9))

    def moody(state: State) -> State:
        return {"said": [act(f"moody {next(turn) // 2}"), act("same")]}

    graph = make(moody, second)

    def agent(task: Any) -> None:
        graph.invoke({"said": []}, CONFIG)
        graph.invoke(None, at(graph, "moody"))
        assert RAN == ["moody 0", "same", "second", "second", "after 2"]
        graph.invoke(None, at(graph, "moody"))
        assert RAN[5:] == ["moody 1", "second", "second", "after 2"]
        graph.invoke(None, at(graph, "moody"))
        assert len(RAN) == 9

    report = oao.Orchestrator().run(agent, "t")
    assert report.status == "SUCCESS", report.error


def test_a_node_that_is_interrupted_does_not_repeat_what_it_did() -> None:
    """LangGraph runs the node from its start for each answer; what it did before the question is served."""

    def asks(state: State) -> State:
        act("before")
        answer = interrupt("really?")
        again = interrupt("really, really?")
        return {"said": [act(f"after {answer} {again}")]}

    graph = make(asks)

    def agent(task: Any) -> Any:
        graph.invoke({"said": []}, CONFIG)
        graph.invoke(Command(resume="yes"), CONFIG)
        return graph.invoke(Command(resume="sure"), CONFIG)

    report = oao.Orchestrator().run(agent, "t")
    assert report.status == "SUCCESS", report.error
    assert RAN == ["before", "after yes sure"]


def test_what_failed_is_tried_again() -> None:
    """`invoke(None)` after an error goes on: what succeeded is served, what failed is made."""
    fails = [True]

    @oao.tool
    def shaky() -> str:
        RAN.append("shaky")
        if fails.pop() if fails else False:
            raise ValueError("no")
        return "ok"

    def node(state: State) -> State:
        act("before")
        shaky()
        return {"said": [act("after")]}

    graph = make(node, second)

    def agent(task: Any) -> Any:
        with pytest.raises(ValueError, match="no"):
            graph.invoke({"said": []}, CONFIG)
        graph.invoke(None, CONFIG)
        graph.invoke(None, at(graph, "node"))

    report = oao.Orchestrator().run(agent, "t")
    assert report.status == "SUCCESS", report.error
    assert RAN == ["before", "shaky", "shaky", "after", "second", "second", "after 1"]


def test_a_retry_of_a_node_is_made() -> None:
    """A `RetryPolicy` runs a node again because its result was no good: its calls are made again, as without oao."""
    left = [2]

    def picky(state: State) -> State:
        act("try")
        left[0] -= 1
        if left[0] > 0:
            raise ConnectionError("again")
        return {"said": []}

    graph: Any = StateGraph(State).add_node(
        "picky", picky, retry_policy=RetryPolicy(initial_interval=0.001, jitter=False, max_attempts=3)
    )
    graph = graph.add_edge(START, "picky").compile(checkpointer=InMemorySaver())

    def agent(task: Any) -> Any:
        graph.invoke({"said": []}, CONFIG)
        assert RAN == ["try", "try"]
        graph.invoke(None, at(graph, "picky"))

    report = oao.Orchestrator().run(agent, "t")
    assert report.status == "SUCCESS", report.error
    assert RAN == ["try", "try"], "going back serves the first of them"


def test_fan_out_and_nested_graphs_are_served() -> None:
    """Tasks of one node are told apart by their place; a graph inside of a node belongs to the node."""
    inner: Any = StateGraph(State).add_sequence([first, second]).add_edge(START, "first").compile()

    def spread(state: State) -> Command[Any]:
        return Command(goto=[Send("worker", {"said": ["w"]}) for _ in range(3)])

    def worker(state: State) -> State:
        return {"said": [act("work")]}

    def calls(state: State) -> State:
        for _ in range(2):
            inner.invoke({"said": ["in"]})
        return {"said": []}

    graph: Any = StateGraph(State).add_node(spread, destinations=("worker",)).add_node(worker).add_node(calls)
    graph = graph.add_node("sub", inner).add_edge(START, "spread").add_edge("worker", "calls").add_edge("calls", "sub")
    graph = graph.compile(checkpointer=InMemorySaver())

    def agent(task: Any) -> Any:
        once = graph.invoke({"said": []}, CONFIG)
        made = len(RAN)
        assert made == 3 + 3 * 5
        for node in ("spread", "calls", "sub"):
            assert graph.invoke(None, at(graph, node)) == once
        assert len(RAN) == made

    report = oao.Orchestrator().run(agent, "t")
    assert report.status == "SUCCESS", report.error


def test_what_is_served_is_judged() -> None:
    """A policy that has changed its mind refuses a call that is served, too."""

    class Grows:
        def __init__(self) -> None:
            self.seen: list[str] = []

        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall) -> Deny | None:
            self.seen.append(call.name)
            return Deny(rule="enough", reason="enough") if len(self.seen) > 5 else None

    graph = make()

    def agent(task: Any) -> Any:
        graph.invoke({"said": ["x"]}, CONFIG)
        graph.invoke(None, at(graph, "first"))

    report = oao.Orchestrator(Grows()).run(agent, "t")
    assert report.status == "FAILED"
    assert report.violation is not None
    assert report.violation["rule"] == "enough"
    assert RAN == ONCE


def test_a_run_that_somebody_else_opened_serves_too() -> None:
    """The run of a session, such as a test, is the one that was gone back in; another run makes its own calls."""
    graph = make()
    orchestrator = oao.Orchestrator()
    run = orchestrator.open_run("session")
    graph.invoke({"said": ["x"]}, CONFIG)
    graph.invoke(None, at(graph, "first"))
    assert RAN == ONCE
    from oao_harness.runtime.execute import Ending

    orchestrator.close_run(run, Ending(result=None, done=True))
    oao.Orchestrator().run(lambda task: graph.invoke(None, at(graph, "first")), "t")
    assert RAN == ONCE * 2
