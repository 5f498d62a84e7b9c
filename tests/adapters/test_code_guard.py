"""`guard`: the gate in a function's own code; every kind of function, unchanged to the eye."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools import tool as langchain_tool

from oao_harness import ConfigError, ExecutionReport, Orchestrator, ToolPolicy, guard, tool
from oao_hookspecs import Modify, RunView, ToolCall, hookimpl

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


def run(agent: Callable[[Any], Any], policy: Any = None) -> ExecutionReport:
    return Orchestrator(policy).run(agent, "x", tools=[unused])


@tool
def unused() -> None: ...


def agent_calling(call: Callable[[], Any]) -> Callable[..., Any]:
    """Return an agent that makes one call and hands on what it gives, drained where it is a stream."""

    async def agent(task: object, tools: object = ()) -> object:
        found = call()
        if inspect.isasyncgen(found):
            return [item async for item in found]
        if inspect.isgenerator(found):
            return list(found)
        return await found if inspect.isawaitable(found) else found

    return agent


def make_sync(extra: int) -> Any:
    def work(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> list[Any]:
        """Do it."""
        ran.append("work")
        return [a, b, list(rest), c, d, more, extra]

    return work


def make_async(extra: int) -> Any:
    async def work(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> list[Any]:
        """Do it."""
        ran.append("work")
        return [a, b, list(rest), c, d, more, extra]

    return work


def make_stream(extra: int) -> Any:
    def work(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> Iterator[Any]:
        """Do it."""
        ran.append("work")
        yield from [a, b, list(rest), c, d, more, extra]

    return work


def make_astream(extra: int) -> Any:
    async def work(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> AsyncIterator[Any]:
        """Do it."""
        ran.append("work")
        for item in [a, b, list(rest), c, d, more, extra]:
            yield item

    return work


MAKERS = [make_sync, make_async, make_stream, make_astream]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1,), {"c": 3}, [1, 2, [], 3, 4, {}, 99]),
        ((1, 7, 8, 9), {"c": 3, "d": 5, "z": 6}, [1, 7, [8, 9], 3, 5, {"z": 6}, 99]),
        ((1,), {"b": 0, "c": 3, "a": 10}, [1, 0, [], 3, 4, {"a": 10}, 99]),
    ],
)
def test_a_guarded_function_does_what_it_did(make: Any, args: Any, kwargs: Any, expected: Any) -> None:
    """Every kind of function and parameter, with defaults and a closure; outside of runs and inside."""
    function = make(99)
    assert guard(function) is function

    outside = asyncio.run(agent_calling(lambda: function(*args, **kwargs))("x"))
    inside = run(agent_calling(lambda: function(*args, **kwargs)))

    assert outside == expected
    assert (inside.error, inside.final_output, inside.tool_calls) == (None, expected, 1)
    assert inside.tool_usage == {"work": 1}
    assert ran == ["work", "work"]


@pytest.mark.parametrize("make", MAKERS)
def test_it_looks_as_it_did(make: Any) -> None:
    """Kind, signature, source, names, annotations, defaults."""
    plain, function = make(1), guard(make(1))

    assert inspect.signature(function) == inspect.signature(plain)
    for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert kind(function) == kind(plain)
    assert inspect.getsource(function) == inspect.getsource(plain)
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__", "__defaults__"):
        assert getattr(function, name) == getattr(plain, name)
    assert function.__kwdefaults__ == plain.__kwdefaults__
    assert function.__code__.co_varnames[:2] == plain.__code__.co_varnames[:2]


@pytest.mark.parametrize("make", MAKERS)
def test_a_denied_function_does_not_run_however_it_is_reached(make: Any) -> None:
    """The function itself, a partial, another function object with its code."""
    original = make(1)
    alias = original
    guard(original)
    copy = types.FunctionType(
        original.__code__, original.__globals__, "other", original.__defaults__, original.__closure__
    )
    copy.__kwdefaults__ = original.__kwdefaults__

    for reached in (alias, functools.partial(original), copy):
        report = run(agent_calling(functools.partial(reached, 1, c=3)), ToolPolicy(deny=["work"]))
        assert report.violation is not None
        assert report.violation["rule"] == "tools.deny"
    assert ran == []


def test_a_second_guard_changes_nothing() -> None:
    """Guarding is idempotent, also under another name."""
    function = guard(make_sync(1))
    code = function.__code__

    assert guard(function) is function
    assert guard(name="other")(function).__code__ is code
    assert run(agent_calling(lambda: function(1, c=3))).tool_usage == {"work": 1}


def test_a_name_and_an_effect_may_be_given() -> None:
    """As for `tool`."""

    @guard(name="delete", effect="once")
    def _delete_impl(user: str) -> str:
        return user

    orchestrator = Orchestrator()
    report = orchestrator.run(agent_calling(lambda: _delete_impl("u")), "x", tools=[unused])

    call = next(record for record in orchestrator.store.read(report.execution_id) if record["type"] == "call")
    assert (call["name"], call["req"], call["effect"]) == ("delete", {"user": "u"}, "once")


def test_a_tool_of_the_same_name_is_one_call() -> None:
    """`@tool` and LangChain tools over a guarded function; a recursion is a call of its own."""

    @guard
    def count(n: int) -> int:
        """Count down."""
        ran.append(n)
        return count(n - 1) if n else 0

    of_langchain = StructuredTool.from_function(count)
    reports = [
        run(agent_calling(lambda: tool(count)(0))),
        run(agent_calling(lambda: of_langchain.invoke({"n": 0}))),
        run(agent_calling(lambda: of_langchain.ainvoke({"n": 0}))),
        run(agent_calling(lambda: of_langchain.func(n=0))),
        run(agent_calling(lambda: of_langchain.invoke({"n": 2}))),
    ]

    assert [report.error for report in reports] == [None] * 5
    assert [report.tool_usage["count"] for report in reports] == [1, 1, 1, 1, 3]


def test_under_another_name_it_is_still_itself() -> None:
    """Allowed as `nice`, denied as what it is."""

    def danger(x: str) -> str:
        """Harm."""
        ran.append("danger")
        return x

    nice = StructuredTool.from_function(guard(danger), name="nice")

    allowed = run(agent_calling(lambda: nice.invoke({"x": "1"})))
    denied = run(agent_calling(lambda: nice.invoke({"x": "1"})), ToolPolicy(deny=["danger"]))

    assert allowed.tool_usage == {"nice": 1, "danger": 1}
    assert denied.violation is not None
    assert denied.violation["reason"] == "tool danger is denied"
    assert ran == ["danger"]


def test_a_schema_is_what_it_was() -> None:
    """LangChain reads annotations and docstring."""

    def search(query: str, top: int = 3) -> str:
        """Search.

        Args:
            query: What for.
            top: How many.
        """
        return query

    plain = langchain_tool(parse_docstring=True)(search).args
    assert langchain_tool(parse_docstring=True)(guard(search)).args == plain


def test_a_method_is_guarded_in_its_class() -> None:
    """The instance is no argument; `super()` still works."""

    class Base:
        def greet(self, name: str) -> str:
            return f"hello {name}"

    class Shop(Base):
        @guard
        def greet(self, name: str = "you") -> str:
            return super().greet(name) + "!"

    orchestrator = Orchestrator()
    report = orchestrator.run(agent_calling(lambda: Shop().greet("me")), "x", tools=[unused])

    assert report.final_output == "hello me!"
    call = next(record for record in orchestrator.store.read(report.execution_id) if record["type"] == "call")
    assert call["req"] == {"name": "me"}
    assert Shop().greet() == "hello you!"


def test_a_guarded_method_of_a_tool_is_one_call() -> None:
    """`_run` of a custom tool: the leaf and the guard are the same call."""

    class Custom(BaseTool):
        name: str = "custom"
        description: str = "d"

        @guard(name="custom")
        def _run(self, x: str) -> str:
            return x

    assert run(agent_calling(lambda: Custom().invoke({"x": "1"}))).tool_usage == {"custom": 1}


def test_a_policy_may_change_the_arguments() -> None:
    """The function gets what was judged."""

    class Cap:
        name = "cap"

        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Modify:
            return Modify(call=ToolCall(name=call.name, arguments={**call.arguments, "amount": 10}))

    @guard
    def refund(order: str, amount: int) -> list[object]:
        return [order, amount]

    assert run(agent_calling(lambda: refund("a", 500)), Cap()).final_output == ["a", 10]


def test_an_agent_that_calls_a_guarded_function_is_seen() -> None:
    """It needs no `tools=` under a policy that wants everything governed."""
    from oao_harness import StrictPolicy

    assert Orchestrator(StrictPolicy(require_governed=True)).run(sees_it, "x").error is None


@guard
def seen(x: str) -> str:
    return x


def sees_it(task: str) -> str:
    return seen(task)


class Callable_:
    def __call__(self) -> None: ...

    def method(self) -> None: ...


@types.coroutine
def old_style() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (len, "only a function written in Python has code to guard; mark it with @oao_harness.tool"),
        (int, "only a function written in Python"),
        (Callable_(), "mark it with @oao_harness.tool"),
        (Callable_().method, "guard the function in the class: @guard above def method"),
        ([].append, "only a function written in Python"),
        (StructuredTool.from_function(make_sync(1), name="t"), r"guard its function: guard\(tool.func\)"),
        (unused, "made by @tool or @model; guard the function below it"),
        (old_style, "write it as async def"),
    ],
)
def test_what_cannot_be_guarded_is_refused(function: Any, words: str) -> None:
    """What was wrong, and what to do."""
    with pytest.raises(ConfigError, match=words):
        guard(function)
