"""Traces of runs in this process, sent to a real collector: names, nesting, decisions, contexts."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import oao_harness as oao
from oao_harness import MemoryStore, Orchestrator
from oao_harness.listeners import conventions as names
from oao_harness.listeners.tracing import Tracing
from oao_harness.runtime.execute import Ending
from oao_hookspecs import Allow, Approve, Ask, Deny, Modify, Principal, hookimpl
from tests.listeners.collector import Collector, Sent, collecting, orphans, tree


@oao.tool(effect="idempotent")
def look(what: object = "") -> str:
    return f"saw {what}"


class Rule:
    """Answers as it is told about the calls of one tool."""

    name = "rule"

    def __init__(self, tool: str, answer: Any) -> None:
        self._tool = tool
        self._answer = answer

    @hookimpl
    def oao_decide_tool_call(self, call: Any, run: Any) -> Any:
        if call.name != self._tool:
            return None
        return self._answer(call) if callable(self._answer) else self._answer


class Traced:
    """A tracer of the test's own, a collector, and orchestrators that are traced by the one into the other."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces")))
        self.tracing = Tracing(self.provider)
        self.tracer = self.provider.get_tracer("test")

    def orchestrator(self, *policies: object, **more: Any) -> Orchestrator:
        return Orchestrator(list(policies), plugins=[self.tracing], **more)

    @property
    def spans(self) -> list[Sent]:
        """All that has ended; nothing may be left open, and nothing be current, when a test looks."""
        assert self.tracing.open_runs == 0
        self.provider.force_flush()
        return self.collector.spans

    @property
    def tree(self) -> list[str]:
        spans = self.spans
        assert orphans(spans) == []
        return tree(spans)

    def one(self, name: str) -> Sent:
        (found,) = (span for span in self.spans if span.name == name)
        return found


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SEMCONV_STABILITY_OPT_IN", "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def traced() -> Iterator[Traced]:
    """Tracing into a collector; afterwards nothing of it is current any more."""
    with collecting() as collector:
        made = Traced(collector)
        yield made
        assert not trace.get_current_span().get_span_context().is_valid
        made.provider.shutdown()


def test_a_run_its_calls_and_its_decisions_are_spans(traced: Traced) -> None:
    """The seed's names, the conventions' attributes, and one event for each decision."""

    @oao.model
    def ask(prompt: str) -> str:
        return "yes"

    def agent(task: str) -> str:
        ask("well?")
        return look(task)

    principal = Principal(id="ann", tenant="acme")
    report = traced.orchestrator().run(agent, "the sea", principal=principal)

    assert traced.tree == ["orchestrator.run", "  chat ask", "  tool.execute look"]
    run, chat, tool = traced.one("orchestrator.run"), traced.one("chat ask"), traced.one("tool.execute")
    assert (
        run.attributes
        | {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "agent",
            "gen_ai.conversation.id": report.execution_id,
            "oao.execution_id": report.execution_id,
            "oao.status": "SUCCESS",
            "oao.total.tool_calls": 1,
            "langfuse.observation.type": "agent",
            "openinference.span.kind": "AGENT",
            "user.id": "ann",
            "oao.tenant": "acme",
        }
        == run.attributes
    )
    assert (
        chat.attributes
        | {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "ask",
            "langfuse.observation.type": "generation",
            "openinference.span.kind": "LLM",
            "oao.usage.estimated": True,
        }
        == chat.attributes
    )
    assert chat.attributes["gen_ai.usage.input_tokens"] > 0
    assert chat.kind == 3
    assert (
        tool.attributes
        | {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "look",
            "oao.tool.effect": "idempotent",
            "oao.call.n": 2,
            "oao.call.status": "ok",
            "langfuse.observation.type": "tool",
            "openinference.span.kind": "TOOL",
        }
        == tool.attributes
    )
    for call in (chat, tool):
        assert [(name, said["oao.decision.verdict"]) for name, said in call.events] == [("oao.decision", "allow")]
    assert {span.scope for span in traced.spans} == {"oao"}
    assert not any(span.failed for span in traced.spans)


def test_the_conventions_names_are_opted_in(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_SEMCONV_STABILITY_OPT_IN` names spans as the conventions for generative AI do."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http, gen_ai_latest_experimental")

    def agent(task: str) -> str:
        return look(task)

    graph = oao.TaskGraph([oao.TaskNode("a", agent, "x")], name="trip")
    oao.GraphExecutor(graph, plugins=[traced.tracing]).execute("x")
    assert traced.tree == [
        "invoke_workflow trip",
        "  dag.schedule_task a",
        "    invoke_agent agent a",
        "      execute_tool look look",
    ]


def test_every_name_of_the_conventions_is_one() -> None:
    """What is spelled here is what the installed package of conventions spells."""
    attributes = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    known = {value for value in vars(attributes).values() if isinstance(value, str)}
    ours = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("gen_ai.")}
    assert len(ours) > 15
    assert ours <= known
    operations = {one.value for one in attributes.GenAiOperationNameValues}
    assert {
        names.kind_attributes(kind)[names.OPERATION] for kind in ("agent", "workflow", "model", "tool")
    } <= operations
    providers = {one.value for one in attributes.GenAiProviderNameValues}
    assert {*names._PROVIDERS.values(), *names._FAMILIES.values()} <= providers


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", "openai"),
        ("o3-mini", "openai"),
        ("anthropic/claude-sonnet-4", "anthropic"),
        ("bedrock:some.model", "aws.bedrock"),
        ("anthropic.claude-3-5", "anthropic"),
        ("GenericFakeChatModel", None),
        ("of-mine", None),
    ],
)
def test_the_provider_is_named_where_the_model_tells_it(model: str, provider: str | None) -> None:
    """A prefix or a family; nothing is guessed of other names."""
    assert names.provider_of(model) == provider


def test_a_graph_its_nodes_and_their_runs(traced: Traced) -> None:
    """`dag.execute` around `dag.schedule_task` around each node's run, also where nodes run side by side."""

    def first(task: str) -> str:
        return look(task)

    async def left(task: object) -> str:
        return look("l")

    async def right(task: object) -> str:
        return look("r")

    nodes = [
        oao.TaskNode("first", first, "x"),
        oao.TaskNode("l", left, "x", {"first"}),
        oao.TaskNode("r", right, "x", {"first"}),
    ]
    executor = oao.GraphExecutor(oao.TaskGraph(nodes, name="trip"), plugins=[traced.tracing])
    assert executor.execute("x").workflow.status == "SUCCESS"
    lines = traced.tree
    assert lines[0] == "dag.execute"
    below = {lines[i]: lines[i + 1 : i + 3] for i in range(1, len(lines), 3)}
    assert below == {
        f"  dag.schedule_task {name}": [f"    orchestrator.run {name}", "      tool.execute look"]
        for name in ("first", "l", "r")
    }


def test_a_nested_run_belongs_to_the_call_that_started_it(traced: Traced) -> None:
    """In the body of a tool, in a thread of it, and beside a span of the user's own."""
    orchestrator = traced.orchestrator()

    def inner(task: str) -> str:
        return look(task)

    @oao.tool
    def delegate(how: str) -> str | None:
        if how == "thread":
            thread = threading.Thread(target=orchestrator.run, args=(inner, how))
            thread.start()
            thread.join()
            return None
        with traced.tracer.start_as_current_span("mine"):
            return orchestrator.run(inner, how).status

    def agent(task: str) -> None:
        delegate("thread")
        delegate("span")

    orchestrator.run(agent, "x")
    assert traced.tree == [
        "orchestrator.run",
        "  tool.execute delegate",
        "    orchestrator.run",
        "      tool.execute look",
        "  tool.execute delegate",
        "    mine",
        "      orchestrator.run",
        "        tool.execute look",
    ]


def test_spans_of_the_users_own_nest_by_themselves(traced: Traced) -> None:
    """Around a run, in the agent, in a tool's body, and around a call in the body of a call."""

    @oao.tool
    def outer_tool() -> str:
        with traced.tracer.start_as_current_span("in tool"):
            return look("inner")

    def agent(task: str) -> None:
        with traced.tracer.start_as_current_span("in agent"):
            outer_tool()
        look("last")

    with traced.tracer.start_as_current_span("around"):
        traced.orchestrator().run(agent, "x")
    assert traced.tree == [
        "around",
        "  orchestrator.run",
        "    in agent",
        "      tool.execute outer_tool",
        "        in tool",
        "          tool.execute look",
        "    tool.execute look",
    ]


async def test_context_over_tasks_threads_and_executors(traced: Traced) -> None:
    """Parallel tools do not mix; what runs in an empty context falls back to the run's span, or its call's."""

    @oao.tool
    async def wait_for(name: str) -> None:
        await asyncio.sleep(0.01)
        with traced.tracer.start_as_current_span(f"in {name}"):
            await asyncio.sleep(0.01)

    @oao.tool
    def spread(name: str) -> None:
        thread = threading.Thread(target=look, args=("raw",))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(look, "pooled").result()

    async def agent(task: str) -> None:
        await asyncio.gather(wait_for("a"), wait_for("b"), asyncio.create_task(wait_for("c")))
        await asyncio.to_thread(spread, "x")
        await asyncio.get_running_loop().run_in_executor(None, look, "executor")
        contextvars.Context().run(look, "empty")

    report = await traced.orchestrator().run_async(agent, "x")
    assert report.status == "SUCCESS", report.error
    lines = traced.tree
    assert lines[0] == "orchestrator.run"
    parallel = [(traced.spans, span) for span in traced.spans if span.name.startswith("in ")]
    parents = {span.span_id: span for span in traced.spans}
    assert len({span.parent_id for _, span in parallel}) == 3
    assert all(parents[span.parent_id].attributes["gen_ai.tool.name"] == "wait_for" for _, span in parallel)
    assert lines[7:] == [
        "  tool.execute spread",
        "    tool.execute look",
        "    tool.execute look",
        "  tool.execute look",
        "  tool.execute look",
    ]


def test_a_sync_agent_with_a_time_limit_runs_in_another_thread(traced: Traced) -> None:
    """Its spans, and those in its tools, are in the trace all the same."""

    @oao.tool
    def work() -> None:
        with traced.tracer.start_as_current_span("in work"):
            pass

    def agent(task: str) -> None:
        assert threading.current_thread() is not threading.main_thread()
        with traced.tracer.start_as_current_span("in agent"):
            pass
        work()

    assert traced.orchestrator(oao.StrictPolicy(timeout_seconds=20)).run(agent, "x").status == "SUCCESS"
    assert traced.tree == ["orchestrator.run", "  in agent", "  tool.execute work", "    in work"]


def test_a_stream_does_not_leak_its_span(traced: Traced) -> None:
    """Between the chunks the consumer's spans are its own, in the producer's body they are the call's."""

    @oao.tool
    def count(upto: int) -> Iterator[int]:
        for i in range(upto):
            with traced.tracer.start_as_current_span(f"made {i}"):
                pass
            yield i

    def agent(task: str) -> None:
        with traced.tracer.start_as_current_span("mine"):
            for i in count(2):
                with traced.tracer.start_as_current_span(f"used {i}"):
                    pass
        for i in count(5):
            with traced.tracer.start_as_current_span(f"again {i}"):
                break

    assert traced.orchestrator().run(agent, "x").status == "SUCCESS"
    assert traced.tree == [
        "orchestrator.run",
        "  mine",
        "    tool.execute count",
        "      made 0",
        "      made 1",
        "    used 0",
        "    used 1",
        "  tool.execute count",
        "    made 0",
        "  again 0",
    ]


async def test_an_async_stream_does_not_leak_its_span(traced: Traced) -> None:
    """The same for async generators, one of which is left in the middle."""

    @oao.tool
    async def count(upto: int) -> Any:
        for i in range(upto):
            with traced.tracer.start_as_current_span(f"made {i}"):
                await asyncio.sleep(0)
            yield i

    async def agent(task: str) -> None:
        with traced.tracer.start_as_current_span("mine"):
            async for i in count(5):
                with traced.tracer.start_as_current_span(f"used {i}"):
                    break
        look("after")

    assert (await traced.orchestrator().run_async(agent, "x")).status == "SUCCESS"
    assert traced.tree == [
        "orchestrator.run",
        "  mine",
        "    tool.execute count",
        "      made 0",
        "    used 0",
        "  tool.execute look",
    ]


async def test_concurrent_runs_do_not_mix(traced: Traced) -> None:
    """Two runs on one loop and one in a thread: each is a trace of its own, and all is in it."""

    def make(name: str) -> Any:
        async def agent(task: str) -> None:
            for _ in range(5):
                await asyncio.sleep(0.001)
                look(name)

        return agent

    orchestrator = traced.orchestrator()

    def blocking(task: str) -> None:
        for _ in range(5):
            look("thread")

    reports = await asyncio.gather(
        orchestrator.run_async(make("a"), "x"),
        orchestrator.run_async(make("b"), "x"),
        asyncio.to_thread(orchestrator.run, blocking, "x"),
    )
    spans = traced.spans
    assert orphans(spans) == []
    for report in reports:
        own = [span for span in spans if span.attributes["oao.execution_id"] == report.execution_id]
        assert len(own) == 6
        assert len({span.trace_id for span in own}) == 1
    assert len({span.trace_id for span in spans}) == 3


def test_a_failed_call_and_a_failed_run_say_so(traced: Traced) -> None:
    """Error status, the class of the error, and what a retry was made for."""

    @oao.tool
    def broken() -> None:
        raise ValueError("no such thing")

    def agent(task: str) -> None:
        broken()

    assert traced.orchestrator().run(agent, "x").status == "FAILED"
    run, call = traced.one("orchestrator.run"), traced.one("tool.execute")
    assert (call.failed, call.message, call.attributes["error.type"]) == (True, "no such thing", "ValueError")
    assert (run.failed, run.message) == (True, "ValueError: no such thing")
    assert (run.attributes["error.type"], run.attributes["oao.status"]) == ("ValueError", "FAILED")


@pytest.mark.parametrize(
    ("answer", "verdict", "failed"),
    [
        (Deny(rule="no-look", reason="not allowed"), "deny", True),
        (Allow(rule="no-look", reason="not allowed", would="deny"), "allow", False),
        (lambda call: Modify(call=_changed(call), rule="no-look", reason="not allowed"), "modify", False),
    ],
)
def test_a_decision_against_a_call_is_a_guardrail(traced: Traced, answer: Any, verdict: str, failed: bool) -> None:
    """A span of its own beside the call's, and an event on the call's."""

    def agent(task: str) -> None:
        look(task)

    traced.orchestrator(Rule("look", answer)).run(agent, "x")
    assert sorted(traced.tree) == ["  guardrail", "  tool.execute look", "orchestrator.run"]
    guard, call = traced.one("guardrail"), traced.one("tool.execute")
    assert (
        guard.attributes
        | {
            "langfuse.observation.type": "guardrail",
            "openinference.span.kind": "GUARDRAIL",
            "oao.decision.verdict": verdict,
            "oao.decision.rule": "no-look",
            "oao.decision.plugin": "rule",
            "oao.decision.reason": "not allowed",
            "oao.decision.subject": "tool look",
        }
        == guard.attributes
    )
    ((event, said),) = [one for one in call.events if one[0] == "oao.decision"]
    assert (said["oao.decision.rule"], said["oao.decision.verdict"]) == ("no-look", verdict)
    assert (guard.failed, call.failed) == (failed, failed)
    if failed:
        run = traced.one("orchestrator.run")
        assert (run.failed, run.attributes["error.type"], call.attributes["oao.call.status"]) == (
            True,
            "no-look",
            "denied",
        )
        ((event, said),) = run.events
        assert (event, said["oao.decision.rule"]) == ("oao.violation", "no-look")


def _changed(call: Any) -> Any:
    from dataclasses import replace

    return replace(call, arguments={"what": "less"})


def test_a_run_that_is_refused_whole_has_a_guardrail_too(traced: Traced) -> None:
    """Where no call was denied, the violation itself is told of by a span."""

    class No:
        name = "no"

        @hookimpl
        def oao_decide_run(self, run: Any) -> Any:
            return Deny(rule="never", reason="not today")

    assert traced.orchestrator(No()).run(look, "x").status == "FAILED"
    assert traced.tree == ["orchestrator.run", "  guardrail"]
    assert traced.one("guardrail").attributes["oao.decision.rule"] == "never"


def test_an_approval_is_asked_and_answered_in_the_trace(traced: Traced) -> None:
    """Two events on the run, and one guardrail for the question, not a second one when the call is made."""

    def approver(request: Any) -> Any:
        return Approve(by=Principal(id="boss"))

    def agent(task: str) -> None:
        look(task)

    rule = Rule("look", Ask(rule="careful", reason="who knows"))
    report = traced.orchestrator(rule, approver=approver).run(agent, "x")
    assert report.status == "SUCCESS", report.error
    assert sorted(traced.tree) == ["  guardrail look", "  tool.execute look", "orchestrator.run"]
    events = dict(traced.one("orchestrator.run").events)
    assert [*events] == ["oao.approval.requested", "oao.approval.answered"]
    assert events["oao.approval.answered"]["oao.approval.by"] == "boss"
    assert traced.one("guardrail").attributes["oao.decision.verdict"] == "ask"


def test_a_resumed_run_is_linked_to_where_it_began(traced: Traced) -> None:
    """A new span with a link; what was served from the past is not sent twice."""
    store = MemoryStore()
    rule = Rule("pay", Ask(rule="careful", reason="who knows"))

    @oao.tool
    def pay() -> str:
        return "paid"

    def agent(task: str) -> str:
        look(task)
        return pay()

    orchestrator = traced.orchestrator(rule, store=store)
    first = orchestrator.run(agent, "x", execution_id="r1")
    assert first.status == "SUSPENDED"
    orchestrator.approve(first.approvals[0]["id"], by=Principal(id="boss"))
    assert orchestrator.resume("r1", agent).status == "SUCCESS"

    began, resumed = (span for span in traced.spans if span.name == "orchestrator.run")
    assert (began.attributes["oao.status"], began.failed, began.links) == ("SUSPENDED", False, [])
    assert resumed.links == [(began.trace_id, began.span_id)]
    assert resumed.trace_id != began.trace_id
    assert (resumed.attributes["oao.resumed"], resumed.attributes["oao.status"]) == (True, "SUCCESS")
    assert [span.attributes["gen_ai.tool.name"] for span in traced.spans if span.name == "tool.execute"] == [
        "look",
        "pay",
    ]
    assert orphans(traced.spans) == []


def test_a_replay_exports_nothing(traced: Traced, tmp_path: Path) -> None:
    """Neither the run nor what the agent itself traces in it; the trace around it is untouched."""

    def agent(task: str) -> str:
        with traced.tracer.start_as_current_span("in agent"):
            return look(task)

    store = MemoryStore()
    live = Orchestrator(store=store).run(agent, "x", execution_id="r1")
    before = len(traced.spans)
    from oao_harness.journal.recording import Recording

    recording = Recording.from_records(store.read(live.execution_id))
    recording.save(tmp_path / "r.jsonl")
    with traced.tracer.start_as_current_span("around"):
        report = traced.orchestrator().replay(agent, "x", tmp_path / "r.jsonl")
    assert report.status == "SUCCESS", report.error
    assert before == 1
    assert [span.name for span in traced.spans[before:]] == ["around"]


def test_content_is_only_there_when_opted_in_and_without_secrets(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Task, arguments and results are in no span by default; opted in they are, but for what the environment hides."""
    monkeypatch.setenv("MY_API_KEY", "hunter2-hunter2")

    @oao.model
    def ask(prompt: str) -> str:
        return "the answer hunter2-hunter2"

    @oao.tool
    def broken(password: str) -> None:
        raise ValueError(f"wrong password {password}")

    def agent(task: str) -> str:
        ask(f"prompt of {task}")
        try:
            broken("hunter2-hunter2")
        except ValueError:
            pass
        return look("argument hunter2-hunter2")

    deny = Rule("look", lambda call: Allow(rule="r", reason=f"about {call.arguments['what']}"))
    traced.orchestrator(deny).run(agent, "secret task hunter2-hunter2")
    assert len(traced.spans) == 4
    raw = traced.collector.raw
    assert not any(text in raw for text in (b"secret task", b"prompt of", b"the answer", b"saw argument", b"hunter2"))

    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    traced.orchestrator(deny).run(agent, "secret task hunter2-hunter2")
    run = [span for span in traced.spans if span.name == "orchestrator.run"][1]
    chat = [span for span in traced.spans if span.name == "chat ask"][1]
    tool = [span for span in traced.spans if span.attributes.get("gen_ai.tool.name") == "look"][1]
    assert run.attributes["input.value"] == "secret task <env:MY_API_KEY>"
    assert '"prompt of secret task <env:MY_API_KEY>"' in chat.attributes["gen_ai.input.messages"]
    assert '"the answer <env:MY_API_KEY>"' in chat.attributes["gen_ai.output.messages"]
    assert tool.attributes["gen_ai.tool.call.arguments"] == '{"what": "argument <env:MY_API_KEY>"}'
    assert tool.attributes["gen_ai.tool.call.result"] == "saw argument <env:MY_API_KEY>"
    assert b"hunter2" not in traced.collector.raw


def test_a_langgraph_agent_has_steps(traced: Traced) -> None:
    """`oao.step.N` in the run, with what its nodes call, and what they trace themselves, inside."""
    graph_module = pytest.importorskip("langgraph.graph")
    from typing import TypedDict

    class State(TypedDict):
        text: str

    def one(state: State) -> State:
        return {"text": look("one")}

    def two(state: State) -> State:
        with traced.tracer.start_as_current_span("in two"):
            return {"text": look("two")}

    built = graph_module.StateGraph(State)
    built.add_node("one", one)
    built.add_node("two", two)
    built.add_edge(graph_module.START, "one")
    built.add_edge("one", "two")
    graph = built.compile()
    report = traced.orchestrator().run(graph, {"text": "x"})
    assert report.status == "SUCCESS", report.error
    assert traced.tree == [
        "orchestrator.run",
        "  oao.step.1",
        "    tool.execute look",
        "  oao.step.2",
        "    in two",
        "      tool.execute look",
    ]
    assert traced.one("oao.step.2").attributes["oao.step.name"] == "two"


def test_log_records_say_which_run_and_trace_they_belong_to(traced: Traced, caplog: Any) -> None:
    """In the body of a tool they have the ids of its span, outside of every run none."""
    from oao_harness.listeners.logs import JsonFormatter, LogFields

    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, logger = Keep(), logging.getLogger("test.tracing")
    handler.addFilter(LogFields())
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.propagate = False
    try:

        @oao.tool
        def work() -> None:
            logger.warning("at work")

        report = traced.orchestrator().run(lambda task: work(), "x", agent_name="a")
        logger.warning("outside")
    finally:
        logger.removeHandler(handler)
    import json

    inside, outside = map(json.loads, lines)
    call = traced.one("tool.execute")
    assert (inside["execution_id"], inside["trace_id"], inside["span_id"]) == (
        report.execution_id,
        call.trace_id,
        call.span_id,
    )
    assert (outside["execution_id"], outside["trace_id"], outside["message"]) == ("", "", "outside")


def test_a_run_is_traced_once(traced: Traced) -> None:
    """Where two listeners are there, that of the orchestrator and that of the environment, one of them does it."""
    orchestrator = Orchestrator(plugins=[Tracing(traced.provider), traced.tracing])
    assert orchestrator.run(look, "x").status == "SUCCESS"
    assert traced.tree == ["orchestrator.run", "  tool.execute look"]


def test_a_run_that_is_opened_in_one_context_may_be_closed_in_another(traced: Traced) -> None:
    """What stays behind in the first context stands for nothing any more, and does not pile up."""
    there = contextvars.copy_context()
    for _ in range(20):
        orchestrator = traced.orchestrator()
        run = there.run(orchestrator.open_run, "session")
        there.run(look, "inside")
        orchestrator.close_run(run, Ending(done=True))
        left = there.run(trace.get_current_span)
        assert not left.get_span_context().is_valid
    assert len(traced.tree) == 40
    assert {span.parent_id for span in traced.spans if span.name == "orchestrator.run"} == {""}
    assert left._before is trace.INVALID_SPAN  # type: ignore[attr-defined]


def test_calls_that_never_ended_end_with_their_run(traced: Traced) -> None:
    """A stream that nobody closed, a call in a thread that hangs at the deadline: the span says so, nothing is kept."""
    hangs = threading.Event()

    @oao.tool
    def hang() -> None:
        hangs.wait(20)

    report = traced.orchestrator(oao.StrictPolicy(timeout_seconds=0.3)).run(lambda task: hang(), "x", agent_name="a")
    assert report.status == "FAILED"
    call, run = traced.one("tool.execute"), traced.one("orchestrator.run")
    hangs.set()
    assert (call.failed, run.failed, run.attributes["error.type"]) == (True, True, "timeout")
    assert sorted(traced.tree) == ["  guardrail", "  tool.execute hang", "orchestrator.run"]


def test_a_retry_is_an_event_of_its_call(traced: Traced) -> None:
    """With the number of the try, its error and the delay."""
    tries: list[int] = []

    class Again:
        name = "again"

        @hookimpl
        def oao_limits(self) -> Any:
            from oao_hookspecs import Limits, Retry

            return Limits(retry=Retry(max_retries=2, initial_delay_s=0.0, backoff_factor=1.0))

    @oao.tool(effect="idempotent")
    def shaky() -> str:
        tries.append(1)
        if len(tries) < 2:
            raise ConnectionError("away")
        return "there"

    assert traced.orchestrator(Again()).run(lambda task: shaky(), "x", agent_name="a").status == "SUCCESS"
    call = traced.one("tool.execute")
    said = dict(call.events)["oao.retry"]
    assert (said["oao.retry.attempt"], call.attributes["oao.call.attempts"], call.failed) == (1, 2, False)
    assert "away" in said["oao.error"]
