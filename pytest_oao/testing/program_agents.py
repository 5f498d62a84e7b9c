"""Agents made of programs. Their bodies write to a log that they ran; none of oao's counters is asked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, cast

from oao_harness.adapters.governed import model, tool
from oao_harness.runtime import gate
from oao_harness.runtime.context import current
from oao_harness.runtime.orchestrator import Orchestrator
from oao_hookspecs import Call, Json, Principal, Record, ToolCall
from pytest_oao.testing.programs import (
    Body,
    CallModel,
    CallTool,
    Fail,
    InnerRun,
    InThread,
    Leave,
    Nested,
    Node,
    Pause,
    StreamModel,
    StreamTool,
    Swallow,
    Together,
    TryAgain,
)

__all__ = ["Agent", "Ended", "Event", "Log", "Started", "Written"]

T = TypeVar("T")
_PERSON = Principal(id="reviewer")
_CHUNKS = ("x", "y", "z")


@dataclass(frozen=True, slots=True)
class Started:
    """A body began."""

    body: Body


@dataclass(frozen=True, slots=True)
class Ended:
    """A body ended, however."""

    body: Body
    ok: bool = True
    """False where it raised."""


@dataclass(frozen=True, slots=True)
class Written:
    """A record was kept."""

    execution_id: str
    record: Record


Event: TypeAlias = Started | Ended | Written


class Log:
    """What happened, in one order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.lock = threading.RLock()
        self.interrupt_in: int | None = None
        """How many more bodies begin until the process is interrupted; None for never."""

    def add(self, event: Event) -> None:
        """Say that something happened."""
        with self.lock:
            self.events.append(event)
            if self.interrupt_in is None or not isinstance(event, Started):
                return
            self.interrupt_in -= 1
            if self.interrupt_in > 0:
                return
            self.interrupt_in = None
        raise KeyboardInterrupt


def _finished(steps: Coroutine[Any, Any, T]) -> T:
    """Run to its end a coroutine that awaits nothing: how the one interpreter is a sync agent too."""
    try:
        steps.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    raise RuntimeError("a sync program awaited something")


@dataclass(slots=True)
class _Scope:
    """Where in the program: the same operation gets the same places in every leg."""

    prefix: str = ""
    visits: Counter[int] = field(default_factory=Counter[int])

    def place(self, index: int) -> str:
        self.visits[index] += 1
        visit = self.visits[index]
        return f"{self.prefix}{index}" + (f"~{visit}" if visit > 1 else "")


@dataclass(frozen=True, slots=True)
class Agent:
    """Does operations in the name of one run."""

    log: Log
    inner: Orchestrator
    runs: tuple[str, ...]
    is_async: bool

    def of(self, nodes: Sequence[Node]) -> Callable[[str], Any]:
        """Return the agent function that does some operations."""
        if self.is_async:

            async def async_agent(task: str) -> str:
                await self.block(nodes, _Scope())
                return "done"

            return async_agent

        def agent(task: str) -> str:
            _finished(self.block(nodes, _Scope()))
            return "done"

        return agent

    async def block(self, nodes: Sequence[Node], scope: _Scope) -> bool:
        """Do operations in order; return True where the function they are in is to be left."""
        for node in nodes:
            if await self.do(node, scope):
                return True
        return False

    async def do(self, node: Node, scope: _Scope) -> bool:
        """Do one operation."""
        op = node.op
        place = scope.place(node.index)
        match op:
            case CallTool():
                await self.call_tool(op, place)
            case CallModel():
                await self.think(op, place)
            case StreamTool() | StreamModel():
                await self.stream(op, place)
            case Nested():
                await self.call_tool(CallTool("delegate", str(node.index)), place, node.inside)
            case InnerRun():
                await self.start_run(node, place)
            case Swallow() | TryAgain() | Together() | InThread():
                return await self.surround(op, node.inside, scope)
            case Pause():
                await self.pause()
            case Fail():
                raise ValueError("the program fails")
            case Leave():
                return True
        return False

    async def surround(
        self, op: Swallow | TryAgain | Together | InThread, nodes: Sequence[Node], scope: _Scope
    ) -> bool:
        """Do the operations that another one takes in."""
        match op:
            case Swallow():
                with suppress(BaseException):
                    return await self.block(nodes, scope)
            case TryAgain(_, times):
                return await self.try_again(nodes, scope, times)
            case Together():
                return any(await self.at_once([self.later(one, scope) for one in nodes]))
            case InThread():
                await self.in_thread(nodes, scope)
        return False

    def later(self, node: Node, scope: _Scope) -> Callable[[], Coroutine[Any, Any, bool]]:
        """Return one operation as a function."""
        return lambda: self.do(node, scope)

    async def try_again(self, nodes: Sequence[Node], scope: _Scope, times: int) -> bool:
        """Do operations until they do not raise."""
        for left in reversed(range(times)):
            try:
                return await self.block(nodes, scope)
            except BaseException:
                if not left:
                    raise
        return False

    async def at_once(self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
        """Do jobs beside each other; raise the first error once all have ended."""
        if self.is_async:
            found: list[T | BaseException] = await asyncio.gather(*(job() for job in jobs), return_exceptions=True)
        else:
            found = _in_threads([partial(_finish_job, job) for job in jobs])
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return cast("list[T]", found)

    async def in_thread(self, nodes: Sequence[Node], scope: _Scope) -> None:
        """Do operations in a thread; what they raise is lost with it."""
        sync = Agent(self.log, self.inner, self.runs, is_async=False)
        job: Callable[[], bool] = lambda: _finished(sync.block(nodes, scope))  # noqa: E731
        if self.is_async:
            # Started here, so that it is a thread of the agent's; waited for beside the loop.
            thread = _Thread(job)
            thread.start()
            await asyncio.to_thread(thread.join)
        else:
            _in_threads([job])

    async def pause(self) -> None:
        """Let others go on."""
        if self.is_async:
            await asyncio.sleep(0)
        else:
            _let_others_go_on()

    async def start_run(self, node: Node, place: str) -> None:
        """Run operations as an agent of its own."""
        name = f"{self.runs[-1]}/{place}"
        agent = Agent(self.log, self.inner, (*self.runs, name), is_async=self.is_async).of(node.inside)
        if self.is_async:
            await self.inner.run_async(agent, "t", agent_name=name)
        else:
            self.inner.run(agent, "t", agent_name=name)

    # Calls

    async def call_tool(
        self, op: CallTool, place: str, inside: Sequence[Node] = (), *, batch: str = "", call_id: str | None = None
    ) -> None:
        """Call a tool, as a framework does where the call has an id or arguments by name."""
        name = op.name

        async def body_of(value: str, arguments: Mapping[str, Json]) -> str:
            seen = self.seen("tool", name, value, place=place, batch=batch, arguments=arguments)
            with _running(self.log, seen):
                await self.block(inside, _Scope(f"{place}/"))
                if op.fails:
                    raise ValueError("the tool fails")
                return f"{name} {value}" if op.returns is None else op.returns

        async def body(value: str) -> str:
            return await body_of(value, {"value": value})

        run = current() if call_id is not None or op.arguments is not None else None
        if run is None:
            await self.calling(tool(name=name)(self.shaped(body)), op.value)
            return
        request = ToolCall(name=name, arguments=op.given, call_id=call_id)
        if self.is_async:
            await gate.acall(run, request, lambda call: body_of(*_arguments(call)), gate.ValueShape())
        else:
            gate.call(run, request, lambda call: _finished(body_of(*_arguments(call))), gate.ValueShape())

    async def think(self, op: CallModel, place: str) -> None:
        """Call the model and do what it asks for."""
        ids = [f"{self.runs[-1]}:{place}.{number}" for number in range(len(op.batch))]
        asked: list[Json] = [
            {"name": one.name, "args": one.given, "id": id_} for one, id_ in zip(op.batch, ids, strict=True)
        ]

        async def body(prompt: str, max_tokens: int) -> dict[str, Json]:
            usage = (0, 0) if op.fails else op.tokens
            with _running(self.log, self.seen("model", "think", prompt, place=place, tokens=usage)):
                if op.fails:
                    raise ValueError("the model fails")
                return {"text": "x", "tool_calls": asked, "usage": _usage(op.tokens)}

        def sync_body(prompt: str, max_tokens: int) -> dict[str, Json]:
            return _finished(body(prompt, max_tokens))

        think = model(name="think")(body if self.is_async else sync_body)
        await self.awaited(think(f"p{place}", max_tokens=op.max_tokens))
        batch = place if len(op.batch) > 1 else ""
        jobs = [
            partial(self.call_tool, one, id_, batch=batch, call_id=id_) for one, id_ in zip(op.batch, ids, strict=True)
        ]
        if op.way == "together":
            await self.at_once(jobs)
        elif op.way == "in_order":
            for job in jobs:
                await job()

    async def stream(self, op: StreamTool | StreamModel, place: str) -> None:
        """Take some chunks of a stream, and close it."""
        if isinstance(op, StreamTool):
            source = tool(name="feed")(self.feeding(place))
            chunks: Any = source(op.value)
        else:
            source = model(name="talk")(self.talking(op, place))
            chunks = source(f"p{place}", max_tokens=op.max_tokens)
        try:
            # One more than there are: only then does the stream know that nobody left it early.
            for _ in range(op.take + (op.take == len(_CHUNKS))):
                if await self.awaited(anext(chunks, None) if self.is_async else next(chunks, None)) is None:
                    break
        finally:
            await self.awaited(chunks.aclose() if self.is_async else chunks.close())

    def feeding(self, place: str) -> Callable[..., Any]:
        """Return the tool that yields chunks."""

        def feed(value: str) -> Iterator[str]:
            with _running(self.log, self.seen("tool", "feed", value, place=place)):
                yield from _CHUNKS

        async def async_feed(value: str) -> AsyncIterator[str]:
            for chunk in feed(value):
                yield chunk

        return async_feed if self.is_async else feed

    def talking(self, op: StreamModel, place: str) -> Callable[..., Any]:
        """Return the model that streams."""

        def talk(prompt: str, max_tokens: int) -> Iterator[Json]:
            # The tokens are in the last chunk: who leaves before it was never told.
            usage = op.tokens if op.take == len(_CHUNKS) else (0, 0)
            with _running(self.log, self.seen("model", "talk", prompt, place=place, tokens=usage)):
                yield {"text": "x"}
                yield {"text": "y"}
                yield {"text": "z", "usage": _usage(op.tokens)}

        async def async_talk(prompt: str, max_tokens: int) -> AsyncIterator[Json]:
            for chunk in talk(prompt, max_tokens):
                yield chunk

        return async_talk if self.is_async else talk

    def shaped(self, body: Callable[[str], Coroutine[Any, Any, str]]) -> Callable[[str], Any]:
        """Return a body as the kind of function that this agent calls."""

        def sync_body(value: str) -> str:
            return _finished(body(value))

        return body if self.is_async else sync_body

    async def calling(self, function: Callable[[str], Any], value: str) -> Any:
        """Call a function that is of this agent's kind."""
        return await self.awaited(function(value))

    async def awaited(self, result: Any) -> Any:
        """Return what a function of this agent's kind returned."""
        return await cast("Awaitable[Any]", result) if self.is_async else result

    def seen(
        self,
        kind: Literal["tool", "model"],
        name: str,
        value: str,
        *,
        place: str,
        batch: str = "",
        tokens: tuple[int, int] = (0, 0),
        arguments: Mapping[str, Json] | None = None,
    ) -> Body:
        """Return what the log says about a body."""
        return Body(
            kind=kind,
            name=name,
            value=value,
            runs=self.runs,
            place=place,
            batch=batch,
            tokens=tokens,
            arguments=arguments or {},
        )


class _running:  # noqa: N801 - used as `with _running(...)`
    """Says that a body began, and that it ended."""

    def __init__(self, log: Log, body: Body) -> None:
        self._log = log
        self._body = body

    def __enter__(self) -> None:
        self._log.add(Started(self._body))

    def __exit__(self, kind: object, *raised: object) -> None:
        self._log.add(Ended(self._body, ok=kind is None))


class _Thread(threading.Thread):
    """Keeps what its job returned or raised."""

    def __init__(self, job: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._job = job
        self.result: Any = None

    def run(self) -> None:
        """Do the job."""
        try:
            self.result = self._job()
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            self.result = error


def _in_threads(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do jobs beside each other; return what each returned or raised."""
    threads = [_Thread(job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [thread.result for thread in threads]


def _finish_job(job: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return _finished(job())


def _let_others_go_on() -> None:
    time.sleep(0)


def _arguments(call: Call) -> tuple[str, Mapping[str, Json]]:
    arguments = cast("ToolCall", call).arguments
    return str(arguments.get("value", "")), arguments


def _usage(tokens: tuple[int, int]) -> dict[str, Json]:
    return {"input_tokens": tokens[0], "output_tokens": tokens[1]}
