"""What governance costs: a run, a call, a LangGraph agent, each beside its peers in one process.

Interleaved rounds after a warm-up, the median of each, CPU time; ratios are firm, microseconds are this machine's.

    python benchmarks/hot_path.py            a table
    python benchmarks/hot_path.py --json     for the record
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import pluggy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool
from langgraph.graph import START, StateGraph
from rich.console import Console
from rich.table import Table

import oao_harness as oao

ROUNDS = 7
NO_LIMITS = oao.StrictPolicy(max_steps=None, max_tool_calls=None, max_tokens=None, timeout_seconds=None)


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


class Dummy:
    def invoke(self, task: str) -> dict[str, str]:
        return {"output": task}


class State(TypedDict):
    task: str


class Scripted(BaseChatModel):
    """Asks for one tool call until it has two results."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        done = sum(message.type == "tool" for message in messages)
        calls = [] if done else [{"name": "add", "args": {"a": n, "b": 1}, "id": f"c{n}"} for n in range(2)]
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        message = AIMessage("done" if done else "", tool_calls=calls, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


def one_node() -> Any:
    graph = StateGraph(State)
    graph.add_node("node", lambda state: {"task": state["task"]})
    graph.add_edge(START, "node")
    return graph.compile()


def plugged() -> Callable[[], object]:
    """A bare pluggy call with one implementation: what the hook core alone costs."""
    spec, impl = pluggy.HookspecMarker("bench"), pluggy.HookimplMarker("bench")

    class Spec:
        @spec
        def decide(self, call: object) -> None: ...

    class Impl:
        @impl
        def decide(self, call: object) -> None: ...

    manager = pluggy.PluginManager("bench")
    manager.add_hookspecs(Spec)
    manager.register(Impl())
    return lambda: manager.hook.decide(call=None)


def in_a_run(calls: int) -> Callable[[int], float]:
    """Return what times governed calls inside of one run."""
    governed, orchestrator, taken = oao.tool(add), oao.Orchestrator(policy=NO_LIMITS), [0.0]

    def agent(task: object) -> None:
        started = time.process_time()
        for n in range(calls):
            governed(n, 1)
        taken[0] = time.process_time() - started

    def measure(_count: int) -> float:
        orchestrator.run(agent, "x")
        return taken[0] / calls

    return measure


def loop(body: Callable[[], object]) -> Callable[[int], float]:
    def measure(count: int) -> float:
        started = time.process_time()
        for _ in range(count):
            body()
        return (time.process_time() - started) / count

    return measure


def contenders() -> Iterator[tuple[str, str, int, Callable[[int], float]]]:
    """Yield group, name, count per round, and what measures; the first of a group is what others are held against."""
    dummy, graph = Dummy(), one_node()
    free, strict = oao.Orchestrator(), oao.Orchestrator(policy=oao.StrictPolicy(timeout_seconds=None))
    timed = oao.Orchestrator(policy=oao.StrictPolicy())
    yield "one run, trivial agent", "oao, strict limits", 300, loop(lambda: strict.run(dummy, "x"))
    yield "one run, trivial agent", "oao, no policy", 300, loop(lambda: free.run(dummy, "x"))
    yield "one run, trivial agent", "oao, with a deadline (own thread)", 300, loop(lambda: timed.run(dummy, "x"))
    yield "one run, trivial agent", "LangGraph, one node, bare", 300, loop(lambda: graph.invoke({"task": "x"}))

    tool = StructuredTool.from_function(add)
    yield "one tool call", "oao @tool, 1,000 calls in a run", 1, in_a_run(1000)
    yield "one tool call", "oao @tool, 10 calls in a run", 1, in_a_run(10)
    yield "one tool call", "oao @tool, 10,000 calls in a run", 1, in_a_run(10_000)
    yield "one tool call", "bare pluggy call", 1000, loop(plugged())
    yield "one tool call", "LangChain StructuredTool.invoke, bare", 300, loop(lambda: tool.invoke({"a": 1, "b": 2}))

    from langchain.agents import create_agent  # noqa: PLC0415 - after the leaves are patched, as in real life

    agent = create_agent(Scripted(), [tool])
    task = {"messages": [("user", "add")]}
    yield "LangGraph agent, 2 model + 2 tool calls", "governed", 20, loop(lambda: _governed(free, agent, task))
    yield "LangGraph agent, 2 model + 2 tool calls", "bare", 20, loop(lambda: agent.invoke(task))


def _governed(orchestrator: oao.Orchestrator, agent: Any, task: Any) -> None:
    report = orchestrator.run(agent, task)
    assert report.status == "SUCCESS", report.error
    assert (report.model_calls, report.tool_calls) == (2, 2)


def main() -> None:
    """Measure, then print."""
    found = list(contenders())
    times: dict[tuple[str, str], list[float]] = {(group, name): [] for group, name, _, _ in found}
    for group, name, count, measure in found * (ROUNDS + 1):
        times[group, name].append(measure(count) * 1e6)
    medians = {key: statistics.median(values[1:]) for key, values in times.items()}
    firsts: dict[str, float] = {}
    rows = [(group, name, value, value / firsts.setdefault(group, value)) for (group, name), value in medians.items()]
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    if "--json" in sys.argv:
        fields = ("group", "name", "microseconds", "ratio")
        sys.stdout.write(
            json.dumps({"machine": machine, "rows": [dict(zip(fields, row, strict=True)) for row in rows]})
        )
        return
    table = Table("what", "contender", "us", "ratio", caption=machine, box=None)
    for group, name, value, ratio in rows:
        table.add_row(group if ratio == 1 else "", name, f"{value:,.1f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
