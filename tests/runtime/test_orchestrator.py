"""Runs: isolation, deadlines, kinds of agents, failures, nesting."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context

import pytest

from oao_harness import (
    AgentError,
    ConfigError,
    IllegalTransition,
    MemoryStore,
    Orchestrator,
    PolicyViolation,
    RunHalted,
    StrictPolicy,
    ToolPolicy,
    tool,
)
from oao_harness.runtime.lifecycle import Lifecycle, State


@tool
def echo(value: object) -> object:
    return value


@tool
async def aecho(value: object) -> object:
    await asyncio.sleep(0)
    return value


def test_one_orchestrator_runs_twice_without_mixing() -> None:
    """The second run is a run of its own, after a failed one too."""
    orchestrator = Orchestrator(policy=StrictPolicy(max_tool_calls=1))

    def agent(task: int) -> object:
        return [echo(task) for _ in range(task)]

    reports = [orchestrator.run(agent, n) for n in (1, 2, 1)]

    assert [report.status for report in reports] == ["SUCCESS", "FAILED", "SUCCESS"]
    assert [report.tool_calls for report in reports] == [1, 1, 1]
    assert len({report.execution_id for report in reports}) == 3


async def test_a_thousand_concurrent_runs_do_not_mix() -> None:
    """Each of a thousand runs of one orchestrator has its own output, count and journal."""
    orchestrator = Orchestrator(policy=StrictPolicy())

    async def agent(task: int) -> int:
        for _ in range(task % 4):
            await aecho(task)
        return task

    reports = await asyncio.gather(*(orchestrator.run_async(agent, n) for n in range(1000)))

    assert [report.final_output for report in reports] == list(range(1000))
    assert [report.tool_calls for report in reports] == [n % 4 for n in range(1000)]
    for n, report in enumerate(reports[:20]):
        calls = [record for record in orchestrator.store.read(report.execution_id) if record["type"] == "call"]
        assert [call["req"] for call in calls] == [{"value": n}] * (n % 4)


def test_concurrent_sync_runs_in_threads_do_not_mix() -> None:
    """Threads of the caller run one orchestrator at once."""
    orchestrator = Orchestrator(policy=StrictPolicy(timeout_seconds=None))

    def agent(task: int) -> object:
        return [echo(task) for _ in range(task % 5)]

    with ThreadPoolExecutor(16) as pool:
        reports = list(pool.map(lambda n: orchestrator.run(agent, n), range(200)))

    assert [report.tool_calls for report in reports] == [n % 5 for n in range(200)]


async def test_sync_agents_of_run_async_run_beside_each_other() -> None:
    """A sync agent never blocks the loop: fifty that wait for each other all end."""
    barrier = threading.Barrier(50, timeout=10)
    orchestrator = Orchestrator(policy=StrictPolicy(timeout_seconds=20))

    reports = await asyncio.gather(*(orchestrator.run_async(lambda task: barrier.wait(), n) for n in range(50)))

    assert {report.status for report in reports} == {"SUCCESS"}


def elapsed(report_of: object) -> tuple[object, float]:
    started = time.perf_counter()
    report = report_of()  # type: ignore[operator]
    return report, time.perf_counter() - started


@pytest.mark.parametrize("door", ["run", "run_async"])
@pytest.mark.parametrize("swallows", [False, True])
def test_a_hanging_async_agent_ends_at_its_deadline(door: str, swallows: bool) -> None:
    """Within 50 ms of the limit, also where the agent ignores its cancellation."""

    async def agent(task: str) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not swallows:
                    raise
                if door == "run":
                    raise  # asyncio.run would wait for it for ever
                swallowed.append(1)
                if len(swallowed) > 1:
                    raise

    swallowed: list[int] = []
    orchestrator = Orchestrator(policy=StrictPolicy(timeout_seconds=0.3))
    if door == "run":
        report, took = elapsed(lambda: orchestrator.run(agent, "x"))
    else:

        async def main() -> tuple[object, float]:
            started = time.perf_counter()
            found = await orchestrator.run_async(agent, "x")
            return found, time.perf_counter() - started

        report, took = asyncio.run(main())

    assert report.status == "FAILED"  # type: ignore[attr-defined]
    assert report.violation["rule"] == "timeout"  # type: ignore[attr-defined]
    assert 0.3 <= took < 0.45


@pytest.mark.parametrize("door", ["run", "run_async"])
def test_a_hanging_sync_agent_is_reported_and_its_later_calls_are_refused(door: str) -> None:
    """It cannot be killed in a thread, so its gate stays shut."""
    release, over = threading.Event(), threading.Event()
    caught: list[BaseException] = []
    ran: list[int] = []

    @tool
    def late() -> None:
        ran.append(1)

    def agent(task: str) -> None:
        release.wait(10)
        for _ in range(2):
            try:
                late()
            except BaseException as error:
                caught.append(error)
        over.set()

    orchestrator = Orchestrator(policy=StrictPolicy(timeout_seconds=0.2))
    if door == "run":
        report, took = elapsed(lambda: orchestrator.run(agent, "x"))
    else:
        report, took = elapsed(lambda: asyncio.run(orchestrator.run_async(agent, "x")))
    release.set()
    assert over.wait(5)

    assert report.violation["rule"] == "timeout"  # type: ignore[attr-defined]
    assert took < 0.35
    assert [type(error) for error in caught] == [PolicyViolation, PolicyViolation]
    assert ran == []


def test_time_is_per_run_and_counts_from_the_agents_start() -> None:
    """A policy object holds no clock: a second run has the whole time again."""
    policy = StrictPolicy(timeout_seconds=0.4)

    def agent(task: str) -> str:
        threading.Event().wait(0.25)
        return "done"

    assert [Orchestrator(policy=policy).run(agent, "x").status for _ in range(2)] == ["SUCCESS", "SUCCESS"]


def test_an_agent_that_raises_is_a_failed_report_with_the_error() -> None:
    """A failure says why, in one line."""

    def agent(task: str) -> None:
        raise ValueError("no such city")

    report = Orchestrator().run(agent, "x")

    assert (report.status, report.error, report.violation) == ("FAILED", "ValueError: no such city", None)


@pytest.mark.parametrize("policy", [None, StrictPolicy()])
def test_a_keyboard_interrupt_reaches_the_user_and_the_run_can_go_on(policy: object) -> None:
    """The journal says so before the interrupt goes on; with a deadline it is an error of the agent's thread."""
    store = MemoryStore()
    asked: list[str] = []

    def agent(task: str) -> str:
        asked.append(task)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return "done"

    orchestrator = Orchestrator(policy=policy, store=store)
    if policy is None:
        with pytest.raises(KeyboardInterrupt):
            orchestrator.run(agent, "x")
        (summary,) = store.runs()
        assert summary.status == "SUSPENDED"
        assert orchestrator.resume(summary.execution_id, agent).final_output == "done"
    else:
        assert orchestrator.run(agent, "x").status == "FAILED"

    (summary,) = store.runs()
    assert summary.status == ("SUCCESS" if policy is None else "FAILED")


async def test_a_cancelled_run_is_closed_and_the_cancellation_goes_on() -> None:
    """Who cancels `run_async` gets its CancelledError; the run is FAILED in the journal."""
    started = asyncio.Event()
    store = MemoryStore()

    async def agent(task: str) -> None:
        started.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(Orchestrator(store=store).run_async(agent, "x"))
    await asyncio.wait_for(started.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    (summary,) = store.runs()
    assert summary.status == "FAILED"


class OnlyAsync:
    async def ainvoke(self, task: str) -> str:
        return f"async {task}"


class NeedsConfig:
    def invoke(self, task: str, config: object) -> str:
        return f"config {config}"


class TakesConfig:
    def invoke(self, task: str, config: object = None) -> str:
        return f"config {config}"


class Callable_:
    def __call__(self, task: str) -> str:
        return f"called {task}"


def generator(task: str) -> Iterator[str]:
    yield "a"
    yield "b"


async def agenerator(task: str) -> AsyncIterator[str]:
    yield "a"
    yield "b"


@pytest.mark.parametrize(
    ("agent", "output"),
    [
        (OnlyAsync(), "async x"),
        (NeedsConfig(), "config {}"),
        (TakesConfig(), "config None"),
        (Callable_(), "called x"),
        (Callable_().__call__, "called x"),
        (generator, "ab"),
        (agenerator, "ab"),
        (lambda: "no task wanted", "no task wanted"),
        (lambda task: {"output": 5}, 5),
        (len, 1),
    ],
)
@pytest.mark.parametrize("door", ["run", "run_async"])
def test_agents_of_every_shape_are_run(agent: object, output: object, door: str) -> None:
    """Functions, callable objects, generators, `invoke` with or without config, `ainvoke` only."""
    orchestrator = Orchestrator()
    report = orchestrator.run(agent, "x") if door == "run" else asyncio.run(orchestrator.run_async(agent, "x"))

    assert (report.status, report.final_output) == ("SUCCESS", output), report.error


async def test_run_inside_a_running_loop_runs_an_async_agent() -> None:
    """A notebook calls `run` where a loop is running already."""
    assert Orchestrator().run(OnlyAsync(), "x").final_output == "async x"


@pytest.mark.parametrize("agent", [object(), 5, "text", OnlyAsync])
def test_an_agent_without_a_way_to_run_it_is_an_error(agent: object) -> None:
    """The message names the agent and what would do."""
    with pytest.raises(AgentError, match="there is no way to run"):
        Orchestrator().run(agent, "x")


def test_an_unknown_framework_is_an_error_that_lists_the_known_ones() -> None:
    """A typo is answered with the choices."""
    with pytest.raises(
        ConfigError, match=r"unknown framework 'langgrph'; known: graph, .*langgraph, .*langchain, invoke, function"
    ):
        Orchestrator().run(echo, "x", framework="langgrph")


def test_tools_passed_explicitly_are_governed_and_not_changed() -> None:
    """The agent is handed wrapped tools; the user's functions stay what they are."""

    def lookup(city: str) -> str:
        return f"sunny in {city}"

    def agent(task: str, tools: list[object]) -> object:
        return tools[0](task)  # type: ignore[operator]

    report = Orchestrator(policy=ToolPolicy(deny=["lookup"])).run(agent, "Rome", tools=[lookup])

    assert report.violation is not None
    assert report.violation["rule"] == "tools.deny"
    assert lookup("Rome") == "sunny in Rome"
    assert not hasattr(lookup, "__wrapped__")


class Opaque:
    def invoke(self, task: str) -> str:
        return "who knows what I did"


def test_an_agent_whose_calls_cannot_be_seen_is_reported_as_ungoverned() -> None:
    """Under StrictPolicy it runs, and the report says what could not be governed."""
    report = Orchestrator(policy=StrictPolicy()).run(Opaque(), "x")

    assert report.status == "SUCCESS"
    assert report.ungoverned == ["agent 'Opaque' (invoke): oao cannot see its model and tool calls"]


def test_an_agent_whose_calls_cannot_be_seen_is_refused_under_strict() -> None:
    """The named policy `strict` wants every call governed; the agent never enters EXECUTE."""
    report = Orchestrator(policy="strict").run(Opaque(), "x")

    assert report.status == "FAILED"
    assert report.violation is not None
    assert report.violation["rule"] == "require_governed"
    assert report.state_history == ["INIT", "PLAN", "TERMINATE"]


def test_an_agent_that_names_governed_tools_is_accepted_under_strict() -> None:
    """A function whose code refers to a governed tool is seen."""
    assert Orchestrator(policy="strict").run(lambda task: echo(task), "x").status == "SUCCESS"


def test_a_nested_run_draws_from_the_outer_one() -> None:
    """A run started inside of a run obeys both policies and spends both budgets."""
    inner = Orchestrator()
    outer = Orchestrator(policy=StrictPolicy(max_tool_calls=3))
    inner_reports = []

    def sub_agent(task: object) -> None:
        for _ in range(10):
            echo(task)

    def agent(task: object) -> str:
        echo(task)
        inner_reports.append(inner.run(sub_agent, task))
        return "done"

    report = outer.run(agent, "x")

    assert report.status == "FAILED"
    assert report.tool_calls == 3
    assert inner_reports == [] or inner_reports[0].status == "FAILED"


@pytest.mark.parametrize("way", ["thread", "pool", "empty context", "old pool"])
def test_calls_made_elsewhere_belong_to_the_run(way: str) -> None:
    """Raw threads, executors and empty contexts do not lead round the gate."""
    old_pool = ThreadPoolExecutor(1)
    old_pool.submit(lambda: None).result()

    def agent(task: str) -> None:
        if way == "thread":
            thread = threading.Thread(target=lambda: swallow(task))
            thread.start()
            thread.join()
        elif way == "pool":
            with ThreadPoolExecutor(1) as pool:
                pool.submit(swallow, task).result()
        elif way == "old pool":
            old_pool.submit(swallow, task).result()
        else:
            Context().run(swallow, task)

    def swallow(task: str) -> None:
        try:
            echo(task)
        except PolicyViolation as error:
            caught.append(error)

    caught: list[PolicyViolation] = []
    report = Orchestrator(policy=ToolPolicy(deny=["echo"])).run(agent, "x")
    old_pool.shutdown()

    assert len(caught) == 1
    assert report.status == "FAILED"


def test_two_concurrent_runs_keep_their_threads_apart() -> None:
    """A thread that an agent starts belongs to that agent's run, also while others are open."""
    together = threading.Barrier(2, timeout=10)

    def agent(task: int) -> None:
        together.wait()
        thread = threading.Thread(target=lambda: [echo(task) for _ in range(task)])
        thread.start()
        thread.join()
        together.wait()

    orchestrator = Orchestrator(policy=StrictPolicy(max_tool_calls=10))
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda n: orchestrator.run(agent, n), (2, 5)))

    assert [report.tool_calls for report in reports] == [2, 5]


@pytest.mark.parametrize(("policy", "outcome"), [(None, "ran"), ("strict", "refused")])
def test_a_call_that_may_belong_to_several_runs_is_reported_or_refused(policy: str | None, outcome: str) -> None:
    """From an empty context, while two runs are open: every report says so; under `strict` it does not happen."""
    together = threading.Barrier(2, timeout=10)
    found: list[str] = []

    def lost() -> None:
        try:
            echo("lost")
            found.append("ran")
        except RunHalted as error:
            found.append("refused")
            assert error.rule == "require_governed"

    def agent(task: int) -> object:
        together.wait()
        if task:
            Context().run(lost)
        together.wait()
        return echo("done")

    orchestrator = Orchestrator(policy=policy)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda n: orchestrator.run(agent, n), (0, 1)))

    assert found == [outcome]
    for report in reports:
        assert report.ungoverned == ["a call outside of every known context, while several runs were open"]


def test_the_lifecycle_has_no_other_moves() -> None:
    """INIT, PLAN, EXECUTE, REVIEW, TERMINATE; and from PLAN to TERMINATE where the task is refused."""
    order: list[State] = ["INIT", "PLAN", "EXECUTE", "REVIEW", "TERMINATE"]
    legal = {*itertools.pairwise(order), ("PLAN", "TERMINATE")}
    for start in order:
        for target in order:
            lifecycle = Lifecycle()
            for state in order[1 : order.index(start) + 1]:
                lifecycle.enter(state)
            if (start, target) in legal:
                lifecycle.enter(target)
                assert lifecycle.state == target
            else:
                with pytest.raises(IllegalTransition, match=f"a run in {start} cannot enter {target}"):
                    lifecycle.enter(target)


def test_the_execution_hash_is_equal_for_equal_runs_only() -> None:
    """Same agent, task, policy and calls: same hash; another task: another hash."""
    orchestrator = Orchestrator()

    def agent(task: str) -> object:
        return echo(task)

    first, second, other = (orchestrator.run(agent, task).execution_hash for task in ("a", "a", "b"))

    assert first == second != other
