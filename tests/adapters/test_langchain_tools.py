"""Tools: whatever way their body is reached, it passes the gate, once."""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    InjectedToolCallId,
    StructuredTool,
    Tool,
    ToolException,
    tool,
)
from pydantic import BaseModel, Field

from oao_harness import ExecutionReport, MemoryStore, Orchestrator, ToolPolicy
from oao_hookspecs import Modify, Record, ToolCall, hookimpl
from tests.adapters.scripted import ReplaySession

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


@tool
def add(a: int, b: int) -> int:
    """Add."""
    ran.append((a, b))
    return a + b


@tool
async def aadd(a: int, b: int) -> int:
    """Add."""
    ran.append((a, b))
    return a + b


class Custom(BaseTool):
    name: str = "custom"
    description: str = "A tool with a body of its own."

    def _run(self, a: int, run_manager: Any = None) -> int:
        ran.append(a)
        return a * 2


class Deeper(Custom):
    name: str = "deeper"

    def _run(self, a: int, run_manager: Any = None) -> int:
        return super()._run(a) + 1

    async def _arun(self, a: int, run_manager: Any = None) -> int:
        return self._run(a)


class Mixin:
    def _run(self, a: int) -> int:
        ran.append(a)
        return a


class Mixed(Mixin, BaseTool):  # type: ignore[misc]
    name: str = "mixed"
    description: str = "Its body comes from a mixin."


class Overridden(Custom):
    name: str = "overridden"

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        ran.append("past the leaf")
        return 7


class Handing(Custom):
    name: str = "handing"

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return super().invoke(input, config, **kwargs)

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return super().run(tool_input, *args, **kwargs)


plain = Tool(name="plain", func=lambda query: ran.append(query) or query, description="One text.")


def run(agent: Any, policy: Any = None, store: MemoryStore | None = None) -> ExecutionReport:
    return Orchestrator(policy, store=store).run(agent, "go")


def calls_of(store: MemoryStore, report: ExecutionReport) -> list[Any]:
    return [record for record in store.read(report.execution_id) if record["type"] == "call"]


def sync(entry: Callable[[], Any]) -> Callable[[Any], Any]:
    return lambda task: entry()


def awaited(entry: Callable[[], Any]) -> Any:
    async def agent(task: object) -> Any:
        return await entry()

    return agent


REACHES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "invoke": ("add", {"a": 1, "b": 2}, sync(lambda: add.invoke({"a": 1, "b": 2}))),
    "run": ("add", {"a": 1, "b": 2}, sync(lambda: add.run({"a": 1, "b": 2}))),
    "func": ("add", {"a": 1, "b": 2}, sync(lambda: add.func(1, b=2))),  # type: ignore[attr-defined]
    "_run": ("add", {"a": 1, "b": 2}, sync(lambda: add._run(a=1, b=2, config={}))),
    "batch": ("add", {"a": 1, "b": 2}, sync(lambda: add.batch([{"a": 1, "b": 2}])[0])),
    "stream": ("add", {"a": 1, "b": 2}, sync(lambda: next(iter(add.stream({"a": 1, "b": 2}))))),
    "ainvoke of sync": ("add", {"a": 1, "b": 2}, awaited(lambda: add.ainvoke({"a": 1, "b": 2}))),
    "ainvoke": ("aadd", {"a": 1, "b": 2}, awaited(lambda: aadd.ainvoke({"a": 1, "b": 2}))),
    "coroutine": ("aadd", {"a": 1, "b": 2}, awaited(lambda: aadd.coroutine(a=1, b=2))),  # type: ignore[attr-defined]
    "_arun": ("aadd", {"a": 1, "b": 2}, awaited(lambda: aadd._arun(a=1, b=2, config={}))),
    "custom": ("custom", {"a": 3}, sync(lambda: Custom().invoke({"a": 3}))),
    "custom _run": ("custom", {"a": 3}, sync(lambda: Custom()._run(3))),
    "custom async": ("custom", {"a": 3}, awaited(lambda: Custom().ainvoke({"a": 3}))),
    "super": ("deeper", {"a": 3}, sync(lambda: Deeper().invoke({"a": 3}))),
    "super async": ("deeper", {"a": 3}, awaited(lambda: Deeper().ainvoke({"a": 3}))),
    "mixin": ("mixed", {"a": 3}, sync(lambda: Mixed().invoke({"a": 3}))),
    "overridden run": ("overridden", {"a": 3}, sync(lambda: Overridden().run({"a": 3}))),
    "overridden run by invoke": ("overridden", {"a": 3}, sync(lambda: Overridden().invoke({"a": 3}))),
    "handing on": ("handing", {"a": 3}, sync(lambda: Handing().invoke({"a": 3}))),
    "one text": ("plain", {"query": "q"}, sync(lambda: plain.invoke("q"))),
    "one text by func": ("plain", {"query": "q"}, sync(lambda: plain.func("q"))),  # type: ignore[misc]
}


@pytest.mark.parametrize("way", REACHES)
def test_every_way_to_a_body_is_one_call_with_named_arguments(way: str) -> None:
    """Public methods, leaves, `super()`, raw functions: one call, one execution, the same arguments by name."""
    name, arguments, agent = REACHES[way]
    store = MemoryStore()
    report = run(agent, store=store)
    assert report.error is None
    assert (report.tool_calls, report.tool_usage) == (1, {name: 1})
    assert len(ran) == 1
    (call,) = calls_of(store, report)
    assert call["req"] == arguments
    with ReplaySession(list(store.read(report.execution_id))):
        again = run(agent)
    assert (again.error, again.final_output) == (None, report.final_output)
    assert len(ran) == 1, "a replayed body does not run"


@pytest.mark.parametrize("way", REACHES)
def test_no_way_leads_past_a_denial(way: str) -> None:
    """A denied tool's body does not run, whichever way it is reached."""
    name, _, agent = REACHES[way]
    report = run(agent, ToolPolicy(deny=[name]))
    assert report.status == "FAILED"
    assert report.violation is not None
    assert report.violation["rule"] == "tools.deny"
    assert ran == []


def _in_thread(call: Callable[[], Any]) -> Any:
    results: list[Any] = []

    def target() -> None:
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    return str(results[0])


def _in_pool(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return str(pool.submit(call).result())


HIDING = {
    "nested": lambda call: call(),
    "raw thread": _in_thread,
    "thread pool": _in_pool,
    "empty context": lambda call: contextvars.Context().run(call),
    "own loop in a thread": lambda call: _in_thread(lambda: asyncio.run(asyncio.to_thread(call))),
}


@pytest.mark.parametrize("hiding", HIDING)
def test_a_tool_inside_of_a_tool_is_governed_wherever_it_hides(hiding: str) -> None:
    """A call made inside of an allowed tool, in threads and empty contexts too, is judged for itself."""

    @tool
    def outer() -> str:
        """Call another tool."""
        return str(HIDING[hiding](lambda: add.invoke({"a": 1, "b": 2})))

    report = run(lambda task: outer.invoke({}))
    assert (report.error, report.tool_calls) == (None, 2)
    ran.clear()
    report = run(lambda task: outer.invoke({}), ToolPolicy(deny=["add"]))
    assert report.status == "FAILED"
    assert ran == []


@pytest.mark.parametrize("again", ["invoke", "func", "_run"])
def test_a_tool_that_calls_itself_is_governed_again(again: str) -> None:
    """The mark that counts `super()` once does not let a body call its own tool unseen."""

    def body(depth: int) -> int:
        """Recurse."""
        ran.append(depth)
        if depth == 0:
            return 0
        ways: dict[str, Callable[[], Any]] = {
            "invoke": lambda: deep.invoke({"depth": depth - 1}),
            "func": lambda: deep.func(depth - 1),  # type: ignore[misc]
            "_run": lambda: deep._run(depth=depth - 1, config={}),
        }
        return ways[again]() + 1  # type: ignore[no-any-return]

    deep = StructuredTool.from_function(body, name="deep")
    report = run(lambda task: deep.invoke({"depth": 2}))
    assert (report.error, report.final_output, report.tool_calls) == (None, 2, 3)


def test_a_custom_tool_that_calls_itself_is_governed_again() -> None:
    """The same for a class with its own `_run`, by the public method and by itself."""

    class Deep(BaseTool):
        name: str = "deep"
        description: str = "Recurses."

        def _run(self, depth: int) -> int:
            ran.append(depth)
            if depth == 0:
                return 0
            return (self.invoke({"depth": depth - 1}) if depth % 2 else self._run(depth - 1)) + 1  # type: ignore[no-any-return]

    report = run(lambda task: Deep().invoke({"depth": 4}))
    assert (report.error, report.tool_calls, len(ran)) == (None, 5, 5)


class Changes:
    """Sets the argument `a` to 40."""

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: object) -> Modify:
        new = {key: 40 if key == "a" else value for key, value in call.arguments.items()}
        if "query" in new:
            new["query"] = "changed"
        return Modify(call=ToolCall(name=call.name, arguments=new, call_id=call.call_id))


@pytest.mark.parametrize("way", [way for way in REACHES if way != "overridden run" and "overridden" not in way])
def test_modified_arguments_reach_the_body(way: str) -> None:
    """What a policy changed is what the body gets, whichever way it is reached."""
    report = run(REACHES[way][2], Changes())
    assert report.error is None
    assert ran in ([(40, 2)], [40], ["changed"])


def test_injected_arguments_are_not_in_the_request_and_survive_a_modification() -> None:
    """Call ids, configs and other injected arguments reach the body, and no policy or journal sees them."""

    @tool
    def injected(
        a: int,
        config: RunnableConfig,
        call_id: Annotated[str, InjectedToolCallId],
        secret: Annotated[str, InjectedToolArg] = "s",
    ) -> str:
        """Use what is injected."""
        ran.append((a, call_id, secret, "configurable" in config))
        return "ok"

    wanted = {"type": "tool_call", "id": "call-9", "name": "injected", "args": {"a": 1, "secret": "x"}}
    store = MemoryStore()
    report = run(lambda task: injected.invoke(wanted).content, Changes(), store)
    assert report.error is None
    (call,) = calls_of(store, report)
    assert (call["req"], call["given"], call["call_id"]) == ({"a": 40}, {"a": 1}, "call-9")
    assert ran[0][:3] == (40, "call-9", "x")


def test_a_partial_and_a_callable_object_work_as_functions() -> None:
    """What a tool is made of need not be a function; `config` still reaches a partial."""

    class Callable_:
        __name__ = "callable_"

        def __call__(self, a: int) -> int:
            return a

        __hash__ = None  # type: ignore[assignment]

    def function(b: int, a: int, config: RunnableConfig) -> int:
        return a + b + len(config["tags"])

    class Schema(BaseModel):
        a: int

    for body in (Callable_(), functools.partial(function, 0)):
        made = StructuredTool(name="made", func=body, args_schema=Schema, description="x")
        bare = made.invoke({"a": 3}, {"tags": ["t"]})
        report = run(lambda task, made=made: made.invoke({"a": 3}, {"tags": ["t"]}))
        assert (report.error, report.final_output, report.tool_calls) == (None, bare, 1)


VALUES = [
    3,
    ("text", {"artifact": [1, (2, 3)]}),
    ToolMessage("hi", tool_call_id="c", artifact={"x": 1}, status="error"),
    [AIMessage("a", tool_calls=[{"name": "n", "args": {}, "id": "1", "type": "tool_call"}]), HumanMessage("b")],
    Document("page", metadata={"source": "s"}, id="7"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_a_tool_returned_survives_the_journal(value: Any) -> None:
    """Tuples, messages, documents come back as what they were, without the body."""
    store, results = MemoryStore(), []

    def body() -> Any:
        """Return a value."""
        ran.append(1)
        return value

    made = StructuredTool.from_function(body, name="made")

    def agent(task: object) -> str:
        results.append(made.func())  # type: ignore[misc]
        return "done"

    report = run(agent, store=store)
    with ReplaySession(list(store.read(report.execution_id))):
        assert run(agent).error is None
    assert results[0] == results[1] == value
    assert type(results[1]) is type(value)
    assert ran == [1]


def test_content_and_artifact_survive_the_journal() -> None:
    """A two-tuple is still one on replay: `response_format="content_and_artifact"` works."""

    @tool(response_format="content_and_artifact")
    def both() -> tuple[str, dict[str, int]]:
        """Return both."""
        return "text", {"rows": 2}

    store, results = MemoryStore(), []

    def agent(task: object) -> str:
        results.append(both.invoke({"type": "tool_call", "id": "c", "name": "both", "args": {}}))
        return "done"

    report = run(agent, store=store)
    with ReplaySession(list(store.read(report.execution_id))):
        assert run(agent).error is None
    assert [(r.content, r.artifact, r.tool_call_id) for r in results] == [("text", {"rows": 2}, "c")] * 2


def test_exceptions_of_a_tool_are_journaled_and_replayed() -> None:
    """An error reaches the agent as it was, and as it was on replay; `handle_tool_error` works on both."""

    @tool
    def fails(a: int) -> str:
        """Fail."""
        ran.append(a)
        raise ToolException(f"no {a}") if a else KeyError("key")

    fails.handle_tool_error = True
    store, seen = MemoryStore(), []

    def agent(task: object) -> str:
        with pytest.raises(KeyError) as caught:
            fails.invoke({"a": 0})
        seen.append((caught.value.args, fails.invoke({"a": 1})))
        return "done"

    report = run(agent, store=store)
    with ReplaySession(list(store.read(report.execution_id))):
        assert run(agent).error is None
    assert seen == [(("key",), "no 1")] * 2
    assert len(ran) == 2


@pytest.mark.parametrize("kind", [Exception, BaseException])
def test_swallowing_a_denial_does_not_save_the_run(kind: type[BaseException]) -> None:
    """`except Exception` does not see it; `except BaseException` does, and nothing works afterwards."""

    def agent(task: object) -> str:
        for each in (add, Custom()):
            try:
                each.invoke({"a": 1, "b": 2})
            except kind:
                continue
        return "all fine"

    report = run(agent, ToolPolicy(deny=["add"]))
    assert (report.status, report.final_output, ran) == ("FAILED", None, [])


def test_fallbacks_and_retries_do_not_swallow_a_denial() -> None:
    """`with_fallbacks` and `with_retry` see no exception that they may handle."""
    for wrapped in (add.with_retry(), add.with_fallbacks([Custom()])):
        report = run(lambda task, wrapped=wrapped: wrapped.invoke({"a": 1, "b": 2}), ToolPolicy(deny=["add"]))
        assert report.status == "FAILED"
    assert ran == []


def test_tools_are_untouched_outside_of_runs() -> None:
    """Functions, schemas and copies of a tool are what they were; nothing is judged or written."""

    def body(a: int, b: str = "x") -> int:
        """Body."""
        return a

    made = StructuredTool.from_function(body)
    assert made.func is body
    before = made.tool_call_schema.model_json_schema()  # type: ignore[union-attr]
    inside: list[Any] = []

    def agent(task: object) -> str:
        fresh = StructuredTool.from_function(body)
        inside.append(fresh.tool_call_schema.model_json_schema())  # type: ignore[union-attr]
        inside.append(made.model_copy().tool_call_schema.model_json_schema())  # type: ignore[union-attr]
        return "done"

    assert run(agent).error is None
    assert inside == [before, before]
    assert made.func is body
    assert made.model_copy(update={"name": "other"}).func is body
    assert vars(made)["func"] is body


def test_a_subclass_of_a_patched_class_needs_nothing_special() -> None:
    """New subclasses, also of StructuredTool, can be defined after the patches, with fields of their own."""

    class Mine(StructuredTool):
        extra: int = Field(default=1)

        def _run(self, *args: Any, config: RunnableConfig, run_manager: Any = None, **kwargs: Any) -> Any:
            return super()._run(*args, config=config, run_manager=run_manager, **kwargs)

    made = Mine.from_function(lambda a: ran.append(a) or a, name="mine", description="x")
    report = run(lambda task: made.invoke({"a": 5}))
    assert (report.error, report.final_output, report.tool_calls, ran) == (None, 5, 1, [5])


async def test_fifty_runs_at_once_are_not_mixed() -> None:
    """Concurrent runs, in one loop and in threads, count their own calls only."""
    store = MemoryStore()

    async def agent(task: Any) -> Any:
        await asyncio.gather(*(aadd.ainvoke({"a": task, "b": i}) for i in range(task % 5 + 1)))
        return await add.ainvoke({"a": task, "b": 0})

    orchestrator = Orchestrator(store=store)
    reports = await asyncio.gather(
        *(orchestrator.run_async(agent, i) for i in range(25)),
        *(asyncio.to_thread(orchestrator.run, agent, i) for i in range(25)),
    )
    for i, report in enumerate(reports):
        assert (report.final_output, report.tool_calls) == (i % 25, i % 25 % 5 + 2)
        assert all(call["req"]["a"] == i % 25 for call in calls_of(store, report))


def test_a_record_of_a_tool_call_is_readable() -> None:
    """The journal holds the plain arguments and the plain result."""
    store = MemoryStore()
    report = run(lambda task: add.invoke({"a": 1, "b": 2}), store=store)
    records: list[Record] = list(store.read(report.execution_id))
    assert next(r for r in records if r["type"] == "outcome")["res"] == 3
