"""One governed tool call, in runs that make 10 to 10,000 of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.contending import CPU_US, WALL_US, Contender, Goal, Row
from benchmarks.timing import Measure, figures, slice_s, timed

GOAL_US = 15.0
FLAT = 1.15
"""The most that a call may cost more among 10,000 than among 1,000."""
HERE = "benchmarks.rows.call"
COUNTS = (10, 100, 1_000, 10_000)
EXISTING = (10, 100, 1_000, 5_000)
"""It is quadratic: 10,000 calls take a minute and say nothing new."""


def ours(count: int) -> str:
    return f"oao, N = {count:,}"


def row() -> Row:
    governed = [Contender(name=ours(count), make=f"{HERE}:governed", options={"count": count}) for count in COUNTS]
    existing = [
        Contender(
            name=f"existing implementation, N = {count:,}",
            make=f"{HERE}:existing",
            options={"count": count},
            process="open-agent-orchestrator",
            packages=("open-agent-orchestrator",),
        )
        for count in EXISTING
    ]
    return Row(
        id="call",
        title="one governed tool call, strict policy",
        how="A tool that adds two numbers, called N times in one run with other arguments each time; strict limits, "
        "memory journal; the time inside of the agent, divided by N. Processor time.",
        figures=(CPU_US, WALL_US),
        contenders=(
            *governed,
            Contender(name="bare pluggy, one hook", make=f"{HERE}:bare_pluggy", packages=("pluggy",)),
            *existing,
            Contender(
                name="LangChain StructuredTool.invoke, ungoverned",
                make=f"{HERE}:structured_tool",
                process="langchain",
                packages=("langchain-core",),
            ),
        ),
        goals=(
            *(Goal(says=f"15 us, N = {count:,}", contender=ours(count), at_most=GOAL_US) for count in COUNTS),
            Goal(
                says="flat in N: 10,000 beside 1,000",
                contender=ours(COUNTS[-1]),
                at_most=FLAT,
                than=(ours(1_000),),
            ),
        ),
        note="A governed call builds its value, asks the policies, writes two records (the call with its decision, the "
        "outcome) into a hash chain, and counts what was used; a bare hook does nothing. The existing implementation "
        "answers a call with the same arguments from its log and does not count it, so arguments differ.",
    )


def _inside(count: int, run: Callable[[Callable[[Callable[[int, int], Any]], None]], None]) -> Measure:
    """Return what measures the calls that an agent makes, without the run around them."""
    taken = [0.0, 0.0]

    def calls(tool: Callable[[int, int], Any]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        for n in range(count):
            tool(n, 1)
        taken[0] += time.process_time() - cpu
        taken[1] += time.perf_counter() - wall

    def measure() -> dict[str, float]:
        taken[:] = 0.0, 0.0
        runs = 0
        while not runs or taken[1] < slice_s():
            run(calls)
            runs += 1
        return figures(taken[0], taken[1], runs * count)

    return measure


def governed(*, count: int) -> Measure:
    import oao_harness as oao

    @oao.tool
    def add(a: int, b: int) -> int:
        return a + b

    most = 10**9
    policy = oao.StrictPolicy(max_steps=most, max_tool_calls=most, max_tokens=most, timeout_seconds=None)
    orchestrator = oao.Orchestrator(policy=policy)

    def run(calls: Callable[[Any], None]) -> None:
        report = orchestrator.run(lambda _task: calls(add), "x")
        assert (report.status, report.tool_calls) == ("SUCCESS", count), report.error

    return _inside(count, run)


def bare_pluggy() -> Measure:
    import pluggy

    spec, impl = pluggy.HookspecMarker("bench"), pluggy.HookimplMarker("bench")

    class Spec:
        @spec(firstresult=True)
        def decide(self, call: object) -> None: ...

    class Impl:
        @impl
        def decide(self, call: object) -> None: ...

    manager = pluggy.PluginManager("bench")
    manager.add_hookspecs(Spec)
    manager.register(Impl())
    return timed(lambda: manager.hook.decide(call=None))


def existing(*, count: int) -> Measure:
    from benchmarks.existing import Agent, checked, orchestrator, tool

    class WithTool(Agent):
        def __init__(self, calls: Callable[[Any], None]) -> None:
            self.tools, self._calls = [tool(lambda a, b: a + b)], calls

        def invoke(self, task: str, config: Any = None) -> dict[str, str]:
            self._calls(self.tools[0].func)
            return {"output": task}

    def run(calls: Callable[[Any], None]) -> None:
        report = orchestrator().run(WithTool(calls), "x")
        checked(report)
        assert report.tool_calls == count

    return _inside(count, run)


def structured_tool() -> Measure:
    from langchain_core.tools import StructuredTool

    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    tool = StructuredTool.from_function(add)
    return timed(lambda: tool.invoke({"a": 1, "b": 2}))
