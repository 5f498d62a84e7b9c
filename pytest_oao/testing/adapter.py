"""What every adapter of a framework promises, as tests that its author inherits.

```python
class MyCase(AdapterCase):
    name = "my-framework"

    def agent(self, url, tools):
        return my_framework.Agent(model=my_framework.OpenAI("scripted", base_url=url, api_key="k"), tools=tools)

    def streamed(self, agent):
        async def ask(task):
            return "".join([piece async for piece in agent.stream(task)])

        return ask


class TestMyFramework(AdapterConformance):
    case = MyCase()
```

The same without a file of your own: `pytest --pyargs pytest_oao.testing.conformance --oao-adapter=my_package:MyCase`.
The agents ask a model server on loopback over real HTTP; what really ran is counted by the server and by the bodies of
the tools, never by oao.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal, Protocol, cast

import pytest

from oao_harness import ExecutionReport, MemoryStore, Orchestrator
from oao_harness.journal.recording import Recording
from oao_harness.plugins.manager import make_manager
from oao_hookspecs import Adapter, Allow, Ask, Decision, Deny, Limits, Modify, Principal, Record, ToolCall, hookimpl
from pytest_oao.testing.openai_server import OpenAIServer
from pytest_oao.testing.replies import Reply, TextReply, ToolCallReply
from pytest_oao.testing.replies import ToolCall as Asked

__all__ = ["AdapterCase", "AdapterConformance", "ModelServer", "Way"]

Way = Literal["sync", "async", "stream"]
_WAYS: Final[tuple[Way, ...]] = ("sync", "async", "stream")
_PERSON: Final = Principal(id="reviewer")


class ModelServer(Protocol):
    """A scripted model on loopback, such as `OpenAIServer`."""

    @property
    def url(self) -> str:
        """What a client takes for its base URL."""
        ...

    @property
    def requests(self) -> Sequence[object]:
        """The requests so far."""
        ...

    def stop(self) -> None:
        """Stop serving; who asks now gets an error of the network's."""
        ...


class AdapterCase:
    """A framework as the suite sees it: how an agent of it is made, and how it is asked for a stream."""

    name: ClassVar[str] = ""
    """Of the adapter that drives its agents, see `Adapter.name`."""
    ways: ClassVar[Sequence[Way]] = _WAYS
    """How its agents can be asked."""
    plugins: ClassVar[Sequence[object]] = ()
    """The plugin with the adapter, where it is tested without being installed."""
    gaps: ClassVar[Mapping[str, str]] = {}
    """What it cannot do, and why: `{"approval": "...", "replay-stream": "..."}`, by test and way. A gap that is
    declared and does not exist fails."""

    def server(self, replies: Sequence[Reply | str]) -> AbstractContextManager[ModelServer]:
        """Return a server for the framework's client; by default one that speaks OpenAI's protocols."""
        return OpenAIServer(replies=replies)

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        """Return an agent whose model is at `url`, with these plain functions as its tools.

        Args:
            url: The server's.
            tools: Functions with annotations and docstrings; the agent must offer all of them to the model.
        """
        raise NotImplementedError

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        """Return a function, sync or async, that asks the agent, reads the answer as a stream, and returns its text."""
        raise NotImplementedError(f"{type(self).__name__} has no streamed(); leave 'stream' out of its `ways`")

    def text(self, output: object) -> str:
        """Return what the agent answered, of the output that its run reports."""
        return str(output)


class _Rules:
    """A policy by tool name.

    Args:
        deny: Never happen.
        hold: Wait for a person.
        rewrite: Get `b = 40` in place of what the model asked for.
        limits: What the run may spend.
    """

    name = "conformance"

    def __init__(self, *, deny: str = "", hold: str = "", rewrite: str = "", limits: Limits | None = None) -> None:
        self._deny, self._hold, self._rewrite, self._limits = deny, hold, rewrite, limits

    @hookimpl
    def oao_limits(self) -> Limits | None:
        """Name the limits."""
        return self._limits

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision:
        """Judge by name."""
        if call.name == self._deny:
            return Deny(rule="conformance", reason=f"{call.name} is denied")
        if call.name == self._hold:
            return Ask(rule="conformance", reason=f"{call.name} is held")
        if call.name == self._rewrite and call.arguments.get("b") != 40:
            return Modify(call=replace(call, arguments={**call.arguments, "b": 40}))
        return Allow()


class _World:
    """The tools, and what of them really ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._lock = threading.Lock()

    def _note(self, what: str) -> None:
        with self._lock:
            self.ran.append(what)

    def tools(self) -> list[Callable[..., Any]]:
        """Return the tools; new functions each time."""

        def add(a: int, b: int) -> int:
            """Add two numbers.

            Args:
                a: The first.
                b: The second.
            """
            self._note(f"add({a}, {b})")
            return a + b

        def danger(x: str) -> str:
            """Do what must not be done.

            Args:
                x: Anything.
            """
            self._note(f"danger({x})")
            return "BOOM"

        def broken(x: str) -> str:
            """Fail.

            Args:
                x: Anything.
            """
            self._note(f"broken({x})")
            raise ValueError(f"no {x}")

        return [add, danger, broken]


def _asks(*calls: tuple[str, Mapping[str, object]]) -> Reply:
    return ToolCallReply(calls=tuple(Asked(name=name, arguments=arguments) for name, arguments in calls))


_ADD: Final = _asks(("add", {"a": 1, "b": 2}))
_DANGER: Final = _asks(("danger", {"x": "now"}))
_BATCH: Final = _asks(("add", {"a": 1, "b": 2}), ("danger", {"x": "now"}))
_BROKEN: Final = _asks(("broken", {"x": "way"}))
_DONE: Final = TextReply(text="it is done")


class AdapterConformance:
    """Inherit it in a class whose name starts with `Test`, and give it a `case`."""

    case: ClassVar[AdapterCase]

    @pytest.fixture(params=_WAYS)
    def way(self, request: pytest.FixtureRequest) -> Way:
        """How the agent is asked."""
        way: Way = request.param
        if way not in self.case.ways:
            pytest.skip(f"{self.case.name} has no {way} way")
        return way

    @pytest.fixture(autouse=True)
    def _declared_gap(self, request: pytest.FixtureRequest) -> None:
        test = str(request.node.originalname).removeprefix("test_")
        way = request.node.callspec.params.get("way") if hasattr(request.node, "callspec") else None
        why = self.case.gaps.get(f"{test}-{way}") or self.case.gaps.get(test)
        if why is not None:
            request.applymarker(pytest.mark.xfail(reason=why, strict=True))

    @pytest.fixture
    def world(self) -> _World:
        """What really ran."""
        return _World()

    # What the tests do

    def ask(
        self, world: _World, url: str, way: Way, *policies: object, store: MemoryStore | None = None, task: str = "go"
    ) -> ExecutionReport:
        """Run an agent of the case in one of its ways."""
        orchestrator = Orchestrator([*policies], store or MemoryStore(), [*self.case.plugins])
        agent = self.agent(world, url, way)
        if way == "sync":
            return orchestrator.run(agent, task)
        return asyncio.run(orchestrator.run_async(agent, task))

    def agent(self, world: _World, url: str, way: Way) -> Any:
        """Return the agent, or the function that asks it for a stream."""
        agent = self.case.agent(url, world.tools())
        return self.case.streamed(agent) if way == "stream" else agent

    def answer(self, report: ExecutionReport) -> str:
        """Return what the agent answered; a stream's is text already."""
        assert report.status == "SUCCESS", report.error
        return self.case.text(report.result)

    # What is promised

    def test_governed(self, world: _World, way: Way) -> None:
        """Every call passes the gate, and is counted exactly once."""
        store = MemoryStore()
        with self.case.server([_ADD, _DONE]) as server:
            report = self.ask(world, server.url, way, store=store)
            requests = len(server.requests)

        assert _DONE.text in self.answer(report)
        assert world.ran == ["add(1, 2)"]
        assert (report.model_calls, report.tool_calls, report.tool_usage) == (2, 1, {"add": 1})
        assert requests == 2
        assert report.ungoverned == []
        if not report.tokens_estimated:
            assert (report.input_tokens, report.output_tokens) == (20, 10)
        (call,) = [record for record in store.read(report.execution_id) if record.get("kind") == "tool"]
        assert call["req"] == {"a": 1, "b": 2}

    def test_denied(self, world: _World, way: Way) -> None:
        """A denied tool does not begin, and the run goes no further."""
        with self.case.server([_DANGER, _DONE, _DONE, _DONE]) as server:
            report = self.ask(world, server.url, way, _Rules(deny="danger"))
            requests = len(server.requests)

        assert report.status == "FAILED"
        assert (report.violation or {}).get("rule") == "conformance", report.error
        assert world.ran == []
        assert requests == 1

    def test_batch(self, world: _World, way: Way) -> None:
        """Where one of several calls that a model asks for is denied, none of them begins."""
        with self.case.server([_BATCH, _DONE, _DONE]) as server:
            report = self.ask(world, server.url, way, _Rules(deny="danger"))

        assert report.status == "FAILED"
        assert world.ran == []

    def test_swallowed(self, world: _World, way: Way) -> None:
        """A program that catches the denial away gets nothing more past the gate."""
        with self.case.server([_DANGER, _ADD, _DONE, _DONE]) as server:
            report, requests = self._stubborn(world, server, way)

        assert report.status == "FAILED"
        assert (report.violation or {}).get("rule") == "conformance", report.error
        assert world.ran == []
        assert requests == 1

    def _stubborn(self, world: _World, server: ModelServer, way: Way) -> tuple[ExecutionReport, int]:
        once = self._once(self.agent(world, server.url, way), way)

        def again(task: str) -> str:
            for _ in range(3):
                with suppress(BaseException):
                    once(task)
            return "nothing happened"

        async def again_async(task: str) -> str:
            for _ in range(3):
                with suppress(BaseException):
                    await once(task)
            return "nothing happened"

        orchestrator = Orchestrator([_Rules(deny="danger")], MemoryStore(), [*self.case.plugins])
        if inspect.iscoroutinefunction(once):
            report = asyncio.run(orchestrator.run_async(again_async, "go"))
        else:
            report = orchestrator.run(again, "go")
        return report, len(server.requests)

    def _once(self, agent: Any, way: Way) -> Callable[[str], Any]:
        """Return a function, sync or async, that asks the agent as its users do, and returns the text."""
        if way == "stream":
            return cast("Callable[[str], Any]", agent)
        offered = cast("Sequence[Sequence[Adapter]]", make_manager((), self.case.plugins)[0].hook.oao_adapters())
        adapter = next(one for adapters in offered for one in adapters if one.matches(agent))

        async def once_async(task: str) -> str:
            return self.case.text(adapter.output(await adapter.drive_async(agent, task, ())))

        def once(task: str) -> str:
            return self.case.text(adapter.output(adapter.drive(agent, task, ())))

        return once_async if way == "async" else once

    def test_replayed(self, world: _World, way: Way) -> None:
        """A recorded run is played with the server stopped, and no body runs."""
        store = MemoryStore()
        with self.case.server([_ADD, _DONE]) as server:
            url = server.url
            live = self.ask(world, url, way, store=store)
        recording = recording_of(store, live)
        world.ran.clear()
        played = Orchestrator(plugins=self.case.plugins).replay(self.agent(world, url, way), "go", recording)
        other = Orchestrator(plugins=self.case.plugins).replay(self.agent(world, url, way), "another task", recording)

        assert self.answer(played) == self.answer(live)
        assert world.ran == []
        assert (played.model_calls, played.tool_calls) == (2, 1)
        assert played.total_tokens == live.total_tokens
        assert other.status == "FAILED"
        assert (other.violation or {}).get("rule") == "replay", other.error

    def test_approval(self, world: _World, way: Way) -> None:
        """A held call waits for a person; then the run goes on, and nothing is done twice."""
        orchestrator = Orchestrator([_Rules(hold="add")], MemoryStore(), [*self.case.plugins])
        with self.case.server([_ADD, _DONE]) as server:
            first = self._drive(orchestrator, self.agent(world, server.url, way), way)
            ran = list(world.ran)
            for question in orchestrator.approvals():
                orchestrator.approve(question.id, by=_PERSON)
            agent = self.agent(world, server.url, way)
            if way == "sync":
                last = orchestrator.resume(first.execution_id, agent, allow_changes=True)
            else:
                last = asyncio.run(orchestrator.resume_async(first.execution_id, agent, allow_changes=True))
            requests = len(server.requests)

        assert (first.status, ran) == ("SUSPENDED", []), first.error
        assert _DONE.text in self.answer(last)
        assert world.ran == ["add(1, 2)"]
        assert requests == 2

    def _drive(self, orchestrator: Orchestrator, agent: Any, way: Way) -> ExecutionReport:
        if way == "sync":
            return orchestrator.run(agent, "go")
        return asyncio.run(orchestrator.run_async(agent, "go"))

    def test_budget(self, world: _World, way: Way) -> None:
        """What is spent is spent: the call beyond a limit does not happen."""
        with self.case.server([_ADD, _ADD, _ADD, _DONE]) as server:
            models = self.ask(world, server.url, way, _Rules(limits=Limits(max_model_calls=1)))
            requests = len(server.requests)
        with self.case.server([_ADD, _ADD, _ADD, _DONE]) as server:
            tools = self.ask(world, server.url, way, _Rules(limits=Limits(max_tool_calls=2)))

        assert models.status == tools.status == "FAILED"
        assert (requests, models.model_calls) == (1, 1)
        assert len(world.ran) == 1 + 2

    def test_modified(self, world: _World, way: Way) -> None:
        """A policy's other arguments are those that the body gets."""
        with self.case.server([_ADD, _DONE]) as server:
            report = self.ask(world, server.url, way, _Rules(rewrite="add"))

        assert _DONE.text in self.answer(report)
        assert world.ran == ["add(1, 40)"]

    def test_undisturbed(self, world: _World, way: Way) -> None:
        """A failing tool is what it is without oao: told to the model, or the end; and its error is in the journal."""
        store = MemoryStore()
        with self.case.server([_BROKEN, _DONE]) as server:
            bare = self._bare(world, server.url, way)
            alone = len(server.requests)
        with self.case.server([_BROKEN, _DONE]) as server:
            report = self.ask(world, server.url, way, store=store)
            requests = len(server.requests)

        assert set(world.ran) == {"broken(way)"}
        assert requests == alone
        assert (report.status == "SUCCESS") == (bare is not None), report.error
        if bare is not None:
            assert self.answer(report) == bare
        outcome = [record for record in store.read(report.execution_id) if record["type"] == "outcome"][1]
        assert "no way" in str(outcome.get("error")), outcome

    def _bare(self, world: _World, url: str, way: Way) -> str | None:
        """Return what the agent answers outside of every run; None where it raises."""
        once = self._once(self.agent(world, url, way), way)
        try:
            return str(asyncio.run(once("go")) if inspect.iscoroutinefunction(once) else once("go"))
        except Exception:  # noqa: BLE001 - whatever the framework makes of it
            return None

    def test_traced(self, world: _World, way: Way) -> None:
        """Each call is a span below that of its run."""
        pytest.importorskip("opentelemetry.sdk")
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - optional
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415 - as above
            InMemorySpanExporter,
        )
        from opentelemetry.trace import SpanContext  # noqa: PLC0415 - as above

        from oao_harness.listeners.tracing import Tracing  # noqa: PLC0415 - as above

        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with self.case.server([_ADD, _DONE]) as server:
            agent = self.agent(world, server.url, way)
            self._drive(Orchestrator(store=MemoryStore(), plugins=[*self.case.plugins, Tracing(provider)]), agent, way)

        spans = exporter.get_finished_spans()
        assert len({cast("SpanContext", span.context).trace_id for span in spans}) == 1
        inside = sorted(span.name.partition(" ")[0] for span in spans)
        assert inside == ["chat", "chat", "orchestrator.run", "tool.execute"]


def recording_of(store: MemoryStore, report: ExecutionReport) -> Recording:
    """Return the recording of a run."""
    records: list[tuple[str, Record]] = [(report.execution_id, record) for record in store.read(report.execution_id)]
    return Recording.from_records(records)
