"""A call that was journaled as allowed gets its outcome, whatever happens on the way."""

from __future__ import annotations

import asyncio
import dataclasses

from oao_harness import Orchestrator, StrictPolicy, model, tool
from oao_hookspecs import CallDecided, Record, RunView, hookimpl


def _records(orchestrator: Orchestrator, execution_id: str, type_: str) -> list[Record]:
    return [record for record in orchestrator.store.read(execution_id) if record["type"] == type_]


class Unprintable(Exception):
    """Raises itself when somebody looks at it."""

    def __str__(self) -> str:
        raise Unprintable

    __repr__ = __str__


def _fail_unprintably() -> None:
    raise Unprintable("x")


def _fail_with_itself_inside() -> None:
    error = ValueError("x")
    error.args = (error, error)
    error.add_note("x")
    vars(error)["me"] = [error, error]
    raise error


def test_a_tool_that_raises_something_odd_has_an_outcome() -> None:
    """An exception that cannot be printed, or that holds itself, is an outcome all the same."""
    for body in (_fail_unprintably, _fail_with_itself_inside):
        failing = tool(body)

        def agent(task: str) -> str:
            try:
                failing()  # noqa: B023
            except Exception:
                return "went on"
            return ""

        orchestrator = Orchestrator()
        report = orchestrator.run(agent, "t")
        assert report.status == "SUCCESS"
        assert len(_records(orchestrator, report.execution_id, "outcome")) == 1


def test_a_call_cancelled_before_its_next_try_has_an_outcome() -> None:
    """The try that failed is how it ended."""

    @tool
    async def fetch() -> None:
        raise ConnectionError("down")

    async def agent(task: str) -> str:
        try:
            async with asyncio.timeout(0.05):
                await fetch()
        except TimeoutError:
            pass
        return "fallback"

    orchestrator = Orchestrator(StrictPolicy(timeout_seconds=None))
    report = orchestrator.run(agent, "t")
    assert report.final_output == "fallback"
    (outcome,) = _records(orchestrator, report.execution_id, "outcome")
    assert "ConnectionError" in str(outcome["error"])


def test_a_call_cancelled_before_it_began_gives_its_tokens_back() -> None:
    """Else three calls that never happened use up the budget of the fourth."""

    class Slow:
        @hookimpl
        async def oao_call_decided(self, event: CallDecided, run: RunView) -> None:
            await asyncio.sleep(0 if event.n == 4 else 30)

    @model
    async def think(prompt: str) -> str:
        return "y"

    async def agent(task: str) -> str:
        for _ in range(3):
            try:
                async with asyncio.timeout(0.02):
                    await think("x" * 100)
            except TimeoutError:
                continue
        return await think("x" * 100)

    policy = StrictPolicy(max_tokens=60, max_steps=None, timeout_seconds=None)
    orchestrator = Orchestrator(policy, plugins=[Slow()])
    report = orchestrator.run(agent, "t")
    assert report.error is None
    assert len(_records(orchestrator, report.execution_id, "outcome")) == 4


@dataclasses.dataclass
class _Node:
    parent: _Node | None = None
    children: list[_Node] = dataclasses.field(default_factory=list["_Node"])


def test_a_value_that_holds_itself_does_not_hang_the_gate() -> None:
    """A tree with links to the parent has 2^50 ways down; one of them is enough."""
    root = _Node()
    root.children = [_Node(root), _Node(root), _Node(root)]

    @tool
    def grow(node: _Node, by: int) -> _Node:
        return node

    def agent(task: str) -> bool:
        return grow(root, 2) is root

    orchestrator = Orchestrator()
    report = orchestrator.run(agent, "t")
    assert report.final_output is True
    (call,) = _records(orchestrator, report.execution_id, "call")
    assert call["req"]["by"] == 2  # type: ignore[index,call-overload]


def test_a_subclass_cannot_show_the_policy_other_values_than_it_gives_the_tool() -> None:
    """Judged is what the number, the list and the dict hold, not what they say of themselves."""

    class Amount(int):
        def __int__(self) -> int:
            return 1

    class Names(list[str]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(())

    @tool
    def pay(amount: int, to: list[str]) -> int:
        return amount + 0

    def agent(task: str) -> int:
        return pay(Amount(1000), Names(["mallory"]))

    orchestrator = Orchestrator()
    report = orchestrator.run(agent, "t")
    (call,) = _records(orchestrator, report.execution_id, "call")
    assert call["req"] == {"amount": 1000, "to": ["mallory"]}
