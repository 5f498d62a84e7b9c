"""Whatever an agent does, and however it ends: no span is an orphan, nothing is left open, nothing stays current."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import oao_harness as oao
from oao_harness import Orchestrator
from oao_harness.listeners.tracing import Tracing
from oao_hookspecs import Allow, Ask, Deny, hookimpl

_LEAVES = ("tool", "model", "stream", "break", "fail", "denied", "would", "held", "user")
_AROUND = ("in tool", "in thread", "in task", "in span", "in run")
Program = list[Any]
PROGRAMS = st.recursive(
    st.lists(st.sampled_from(_LEAVES), max_size=3),
    lambda inner: st.lists(st.sampled_from(_LEAVES) | st.tuples(st.sampled_from(_AROUND), inner), max_size=4),
    max_leaves=8,
)


class Judge:
    """Denies, asks, or would deny, by the name of the tool."""

    name = "judge"

    @hookimpl
    def oao_decide_tool_call(self, call: Any) -> Any:
        answers = {
            "denied": Deny(rule="no", reason="no"),
            "held": Ask(rule="ask", reason="who knows"),
            "would": Allow(rule="no", reason="no", would="deny"),
        }
        return answers.get(call.name)


class Machine:
    """Does what a program says, traced."""

    def __init__(self) -> None:
        self.kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.kept))
        self.tracer = provider.get_tracer("test")
        self.tracing = Tracing(provider)
        self.orchestrator = Orchestrator([Judge()], plugins=[self.tracing])

    async def play(self, program: Program) -> None:
        for step in program:
            if isinstance(step, tuple):
                await self._around(*step)
            else:
                self._leaf(step)

    async def _around(self, how: str, inner: Program) -> None:
        match how:
            case "in tool":
                await _tool("outer", self.play)(inner)
            case "in thread":
                await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(self.play(inner)))
            case "in task":
                await asyncio.gather(self.play(inner), self.play(inner), return_exceptions=True)
            case "in span":
                with self.tracer.start_as_current_span("users"):
                    await self.play(inner)
            case _:
                await self.orchestrator.run_async(lambda task: self.play(inner), None, agent_name="inner")

    def _leaf(self, step: str) -> None:
        if step == "user":
            with self.tracer.start_as_current_span("users"):
                return
        if step in {"stream", "break"}:
            for _ in _tool("stream", _chunks)():
                with self.tracer.start_as_current_span("users"):
                    if step == "break":
                        break
            return
        if step == "model":
            oao.model(lambda prompt: "yes")("well?")
            return
        try:
            _tool(step, _fail if step == "fail" else _fine)()
        except ValueError:
            pass


def _tool(name: str, body: Any) -> Any:
    made = body if name == "outer" else _renamed(name, body)
    return oao.tool(made) if name != "outer" else oao.tool(_outer(body))


def _outer(play: Any) -> Any:
    async def outer(inner: Any) -> None:
        await play(inner)

    return outer


def _renamed(name: str, body: Any) -> Any:
    def made() -> Any:
        return body()

    def chunks() -> Iterator[int]:
        yield from body()

    found = chunks if name == "stream" else made
    found.__name__ = name
    return found


def _chunks() -> Iterator[int]:
    yield from range(3)


def _fine() -> str:
    return "fine"


def _fail() -> None:
    raise ValueError("no")


@settings(max_examples=40, deadline=None)
@given(program=PROGRAMS)
def test_no_span_is_an_orphan(program: Program) -> None:
    """Calls, streams left early, threads, tasks, nested runs, denials and questions, in any order and depth."""
    machine = Machine()

    async def agent(task: object) -> None:
        await machine.play(program)

    report = asyncio.run(_run(machine, agent))
    spans = machine.kept.get_finished_spans()
    known = {span.context.span_id for span in spans if span.context is not None}
    assert [span.name for span in spans if span.parent is not None and span.parent.span_id not in known] == []
    # A span that the user starts in a thread without a context is a trace of its own; what is called in it is not.
    ours = [span for span in spans if span.name != "users"]
    assert len({span.context.trace_id for span in ours if span.context is not None}) == 1
    (root,) = (span for span in ours if span.parent is None)
    assert root.name == "orchestrator.run"
    assert (root.attributes or {})["oao.status"] == report.status
    assert machine.tracing.open_runs == 0


async def _run(machine: Machine, agent: Any) -> Any:
    report = await machine.orchestrator.run_async(agent, None)
    assert not trace.get_current_span().get_span_context().is_valid
    return report
