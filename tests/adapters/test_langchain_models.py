"""Chat models and completion models: every way to call one is one governed call."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult, GenerationChunk
from pydantic import BaseModel

from oao_harness import ExecutionReport, MemoryStore, Orchestrator, PolicyViolation, StrictPolicy
from oao_hookspecs import Deny, ModelCall, Modify, hookimpl
from tests.adapters.scripted import Delegating, JournalReplay, ReplaySession, Scripted, ScriptedStream, asks, says


def _invoke(model: Any) -> Any:
    return model.invoke("hi").text


async def _ainvoke(model: Any) -> Any:
    return (await model.ainvoke("hi")).text


def _stream(model: Any) -> Any:
    return "".join(chunk.text for chunk in model.stream("hi"))


async def _astream(model: Any) -> Any:
    return "".join([chunk.text async for chunk in model.astream("hi")])


def _batch(model: Any) -> Any:
    return model.batch(["hi"])[0].text


async def _abatch(model: Any) -> Any:
    return (await model.abatch(["hi"]))[0].text


async def _astream_events(model: Any) -> Any:
    events = [event async for event in model.astream_events("hi", version="v2")]
    return events[-1]["data"]["output"].text


def _generate(model: Any) -> Any:
    return model._generate([HumanMessage("hi")]).generations[0].message.text


def _stream_events(model: Any) -> Any:
    return str(model.stream_events("hi", version="v3").output.text)


STYLES = [_invoke, _ainvoke, _stream, _astream, _batch, _abatch, _astream_events, _generate]


def call_of(style: Callable[[Any], Any], model: Any) -> Callable[..., Any]:
    if asyncio.iscoroutinefunction(style):

        async def agent(task: object) -> Any:
            return await style(model)

        return agent
    return lambda task: style(model)


def run(agent: Any, policy: Any = None, store: MemoryStore | None = None) -> ExecutionReport:
    return Orchestrator(policy, store=store).run(agent, "hi")


@pytest.mark.parametrize("kind", [Scripted, ScriptedStream, Delegating])
@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_one_call_with_its_tokens(style: Callable[[Any], Any], kind: type[Scripted]) -> None:
    """However a model is called, and however its leaves call each other, one call with the reported tokens counts."""
    report = run(call_of(style, kind(script=[says("good day sir")])))
    assert report.error is None
    assert report.final_output == "good day sir"
    assert (report.model_calls, report.total_tokens, report.tokens_estimated) == (1, 15, False)


@pytest.mark.parametrize("style", STYLES)
def test_a_denied_call_does_not_reach_the_model(style: Callable[[Any], Any]) -> None:
    """A denial comes before the model's own code, in every style."""

    class NoModels:
        @hookimpl
        def oao_decide_model_call(self, call: ModelCall, run: object) -> Deny:
            return Deny(rule="none", reason="no models today")

    model = ScriptedStream(script=[says("x")])
    report = run(call_of(style, model), NoModels())
    assert report.status == "FAILED"
    assert report.violation is not None
    assert report.violation["rule"] == "none"
    assert model.executed == []


@pytest.mark.parametrize("replayed", STYLES)
@pytest.mark.parametrize("recorded", STYLES)
def test_what_one_style_recorded_another_replays(
    recorded: Callable[[Any], Any], replayed: Callable[[Any], Any]
) -> None:
    """A journal does not care about the style: the recorded answer comes back, and the model is not executed."""
    store = MemoryStore()
    first = run(call_of(recorded, ScriptedStream(script=[says("good day sir")])), store=store)
    model = ScriptedStream(script=[says("something else")])
    with ReplaySession(list(store.read(first.execution_id))):
        second = run(call_of(replayed, model))
    assert second.error is None
    assert second.final_output == "good day sir"
    assert (second.model_calls, second.total_tokens) == (1, 15)
    assert model.executed == []


def _rich() -> AIMessage:
    return AIMessage(
        content=[{"type": "text", "text": "a"}, {"type": "reasoning", "reasoning": "b"}],
        name="bob",
        id="msg-1",
        additional_kwargs={"refusal": None, "x": (1, 2)},
        response_metadata={"model_name": "m", "finish_reason": "stop"},
        tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}],
        invalid_tool_calls=[
            {"name": "add", "args": "{a", "id": "c2", "error": "not JSON", "type": "invalid_tool_call"}
        ],
        usage_metadata={
            "input_tokens": 3,
            "output_tokens": 4,
            "total_tokens": 7,
            "input_token_details": {"cache_read": 1},
        },
    )


def test_a_rich_answer_survives_the_journal() -> None:
    """Content blocks, tool calls, invalid ones, usage, metadata and ids are the same on replay."""
    store, results = MemoryStore(), []

    def agent(task: object) -> str:
        results.append(Scripted(script=[_rich()])._generate([HumanMessage("hi")]))
        return "done"

    report = run(agent, store=store)
    with ReplaySession(list(store.read(report.execution_id))):
        assert run(agent).error is None
    assert results[0] == results[1]
    assert results[1].generations[0].message == _rich()


def test_several_generations_survive_and_their_usage_counts_once() -> None:
    """With n answers the provider repeats the total in each; it is counted once, and all answers are replayed."""

    class Several(Scripted):
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=says(t), generation_info={"i": t}) for t in "ab"])

    store, results = MemoryStore(), []

    def agent(task: object) -> str:
        results.append(Several(script=[])._generate([HumanMessage("hi")]))
        return "done"

    report = run(agent, store=store)
    assert report.total_tokens == 15
    with ReplaySession(list(store.read(report.execution_id))):
        run(agent)
    assert results[0] == results[1]


def test_chunks_keep_their_boundaries_on_replay() -> None:
    """A replayed stream comes in the recorded chunks, the pieces of a tool call included."""
    store, streams = MemoryStore(), []
    script = [asks(("add", {"a": 1, "b": 2}), text="let me see")]

    def agent(task: object) -> str:
        pieces = [c for c in ScriptedStream(script=script).stream("hi") if c.content or c.tool_call_chunks]
        streams.append([(c.content, c.tool_call_chunks) for c in pieces])
        return "done"

    report = run(agent, store=store)
    with ReplaySession(list(store.read(report.execution_id))):
        assert run(agent).error is None
    assert streams[0] == streams[1]
    assert len(streams[1]) == 5


def test_the_journal_holds_plain_chunks_and_no_random_ids() -> None:
    """What LangChain writes into a chunk after the model made it is not in the journal."""
    store = MemoryStore()
    report = run(lambda task: _stream(ScriptedStream(script=[says("good day")])), store=store)
    outcome = next(record for record in store.read(report.execution_id) if record["type"] == "outcome")
    assert outcome["res"]["chunks"][:2] == ["good", " day"]  # type: ignore[call-overload,index]
    assert "lc_run" not in str(outcome)


def test_a_tool_call_recorded_whole_is_replayed_as_a_stream() -> None:
    """A streaming agent gets the tool calls of an answer that was recorded with `invoke`."""
    store = MemoryStore()
    script = [asks(("add", {"a": 1, "b": 2}))]
    first = run(lambda task: str(Scripted(script=script).invoke("hi").tool_calls), store=store)

    def streams(task: object) -> str:
        chunks = list(ScriptedStream(script=[says("no")]).stream("hi"))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return str(whole.tool_calls)

    with ReplaySession(list(store.read(first.execution_id))):
        second = run(streams)
    assert second.final_output == first.final_output


def test_tokens_that_nobody_reports_are_estimated_and_flagged() -> None:
    """Silence of the provider is not zero tokens."""
    report = run(lambda task: _invoke(Scripted(script=[AIMessage("a" * 40)])))
    assert report.output_tokens >= 10
    assert report.tokens_estimated


def test_a_stream_closed_early_has_estimated_tokens() -> None:
    """Who stops listening before the usage arrives has spent tokens all the same."""

    def agent(task: object) -> str:
        stream = ScriptedStream(script=[says("good day to you sir")]).stream("hi")
        first = next(stream).text
        stream.close()
        return first

    report = run(agent)
    assert report.error is None
    assert report.total_tokens > 0
    assert report.tokens_estimated


def test_text_and_text_blocks_are_the_same_request() -> None:
    """Content as a text and as a list of text blocks canonicalise equally."""
    store = MemoryStore()
    first = run(lambda task: Scripted(script=[says("x")]).invoke([HumanMessage("hi")]).text, store=store)
    blocks = [HumanMessage([{"type": "text", "text": "h"}, {"type": "text", "text": "i"}])]
    with ReplaySession(list(store.read(first.execution_id))):
        assert run(lambda task: Scripted(script=[says("y")]).invoke(blocks).text).final_output == "x"


def test_a_request_holds_what_changes_the_answer_and_nothing_of_the_transport() -> None:
    """Parameters, tools and schemas are in the request; keys, URLs, timeouts and ids are not."""

    class Answer(BaseModel):
        value: int

    class Real(Scripted):
        @property
        def _identifying_params(self) -> dict[str, Any]:
            return {"temperature": 0.5, "openai_api_key": "sk-1", "base_url": "http://x", "max_retries": 2, "f": print}

    store = MemoryStore()
    model = Real(script=[says("x")])
    tools = [{"type": "mcp", "server_url": "https://s", "authorization": "secret"}]
    report = run(
        lambda task: model.invoke("hi", stop=["."], response_format=Answer, timeout=3, tools=tools, seed=7).text,
        store=store,
    )
    request: Any = next(record["req"] for record in store.read(report.execution_id) if record["type"] == "call")
    assert set(request) == {"messages", "tools", "temperature", "stop", "response_format", "seed"}
    assert request["response_format"]["properties"] == {"value": {"title": "Value", "type": "integer"}}
    assert request["tools"] == [{"type": "mcp", "server_url": "https://s"}]


def test_a_modified_request_is_not_sent() -> None:
    """A policy that modifies a prompt gets an error, and the model is not asked with the old one."""

    class Rewrites:
        @hookimpl
        def oao_decide_model_call(self, call: ModelCall, run: object) -> Modify:
            return Modify(call=ModelCall(name=call.name, messages=[{"role": "user", "content": "other"}]))

    model = Scripted(script=[says("x")])
    report = run(lambda task: model.invoke("hi").text, Rewrites())
    assert report.status == "FAILED"
    assert "modified the request" in (report.error or "")
    assert model.executed == []


def test_caches_do_not_hide_calls() -> None:
    """Inside of a run the cache of `set_llm_cache` and that of a model are off: each call is counted and paid."""
    set_llm_cache(InMemoryCache())
    try:
        model, own = Scripted(script=[says("x")]), Scripted(script=[says("x")], cache=InMemoryCache())
        for each in (model, own):
            each.invoke("hi")
            report = run(lambda task, each=each: each.invoke("hi").text + each.invoke("hi").text)
            assert (report.model_calls, report.total_tokens) == (2, 30)
            before = len(each.executed)
            each.invoke("hi")
            assert len(each.executed) == before, "outside of runs the cache works as before"
    finally:
        set_llm_cache(None)


def test_fallbacks_and_retries_count_each_try() -> None:
    """Each try of `with_retry` and `with_fallbacks` is a call; errors are replayed as errors."""
    tries: list[int] = []

    def flaky(messages: Any) -> AIMessage:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("busy")
        return says("at last")

    store = MemoryStore()

    def agent(task: object) -> str:
        retrying = Scripted(script=flaky).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
        return retrying.with_fallbacks([Scripted(script=flaky)]).invoke("hi").text

    report = run(agent, store=store)
    assert (report.final_output, report.model_calls) == ("at last", 3)
    with ReplaySession(list(store.read(report.execution_id))):
        assert run(agent).final_output == "at last"
    assert len(tries) == 3


def test_a_callback_that_calls_its_own_model_is_governed() -> None:
    """A handler that runs inside of the model's own code does not ride on the model's call."""
    model = ScriptedStream(script=[says("one two")])

    class Nested(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **_: Any) -> None:
            if token == "one":
                model.invoke("sneaky")
                list(model.stream("sneaky"))

    report = run(lambda task: list(model.stream("hi", config={"callbacks": [Nested()]}))[-1].text)
    assert report.model_calls == 3


def test_max_tokens_stops_the_next_call() -> None:
    """Tokens of LangChain models settle against the run's budget."""
    model = Scripted(script=[says("x")])

    def agent(task: object) -> str:
        for _ in range(10):
            try:
                model.invoke("hi")
            except BaseException:
                continue
        return "I went on"

    report = run(agent, StrictPolicy(max_tokens=40))
    assert report.status == "FAILED"
    assert len(model.executed) <= 3


def test_a_stream_that_outlives_its_run_can_be_closed() -> None:
    """Closing what was left open, as the garbage collector does, raises nothing into whoever closes it."""
    left: list[Any] = []

    def agent(task: object) -> str:
        left.append(ScriptedStream(script=[says("good day")])._stream([HumanMessage("hi")]))
        return str(next(left[0]).text)

    assert run(agent).final_output == "good"
    left[0].close()


def test_a_model_names_itself_by_field_property_or_class() -> None:
    """The request's name is the model id that this call names, else the model's own, else its class."""

    class Named(Scripted):
        model: str = ""

        @property
        def model_name(self) -> str:
            return "by property"

    for model, given, name in (
        (Scripted(script=[says("x")], model="by field"), {}, "by field"),
        (Scripted(script=[says("x")], model="by field"), {"model": "by call"}, "by call"),
        (Named(script=[says("x")]), {}, "by property"),
        (Scripted(script=[says("x")], model=""), {}, "Scripted"),
    ):
        store = MemoryStore()
        report = run(lambda task, model=model, given=given: model.invoke("hi", **given).text, store=store)
        assert next(r["name"] for r in store.read(report.execution_id) if r["type"] == "call") == name


class Echo(LLM):
    """A completion model."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **_: Any) -> str:
        executed.append(prompt)
        return f"<{prompt}>"


class EchoStream(Echo):
    """The same as a stream."""

    def _stream(self, prompt: str, stop: Any = None, run_manager: Any = None, **_: Any) -> Iterator[GenerationChunk]:
        executed.append(prompt)
        for part in ("<", prompt, ">"):
            yield GenerationChunk(text=part)


executed: list[str] = []


async def _allm(llm: Any) -> str:
    return str(await llm.ainvoke("hi"))


async def _allm_stream(llm: Any) -> str:
    return "".join([chunk async for chunk in llm.astream("hi")])


LLM_STYLES = [
    lambda llm: llm.invoke("hi"),
    lambda llm: "".join(llm.stream("hi")),
    lambda llm: llm.batch(["hi"])[0],
    lambda llm: llm._generate(["hi"]).generations[0][0].text,
    lambda llm: llm._call("hi"),
    _allm,
    _allm_stream,
]


@pytest.mark.parametrize("kind", [Echo, EchoStream])
@pytest.mark.parametrize("style", LLM_STYLES)
def test_completion_models_are_governed_and_replayed(style: Callable[[Any], Any], kind: type[Echo]) -> None:
    """Models that take texts pass the gate once in every style, with estimated tokens, and are replayed."""
    executed.clear()
    store = MemoryStore()
    report = run(call_of(style, kind()), store=store)
    assert (report.final_output, report.model_calls, report.tokens_estimated) == ("<hi>", 1, True)
    assert len(executed) == 1
    with ReplaySession(list(store.read(report.execution_id))):
        assert run(call_of(LLM_STYLES[0], kind())).final_output == "<hi>"
    assert len(executed) == 1


def test_a_chat_model_is_an_agent() -> None:
    """A model itself can be run: the task goes to it as it is, the output is its text."""
    report = Orchestrator().run(Scripted(script=[says("hello")]), "hi")
    assert (report.status, report.final_output, report.model_calls) == ("SUCCESS", "hello", 1)
    assert asyncio.run(Orchestrator().run_async(Scripted(script=[says("hello")]), "hi")).final_output == "hello"


class Native(Scripted):
    """A model that speaks the event protocol by itself."""

    def _stream_chat_model_events(self, messages: Any, stop: Any = None, **_: Any) -> Iterator[Any]:
        from langchain_core.language_models._compat_bridge import message_to_events

        self._executed.append("events")
        yield from message_to_events(self._answer(messages))

    async def _astream_chat_model_events(self, messages: Any, stop: Any = None, **_: Any) -> AsyncIterator[Any]:
        for event in self._stream_chat_model_events(messages):
            yield event


@pytest.mark.parametrize("recorded", [_stream_events, _invoke])
@pytest.mark.parametrize("replayed", [_stream_events, _invoke])
@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_native_events_are_governed_and_replayed(recorded: Any, replayed: Any) -> None:
    """The newest streaming protocol passes the gate once and is replayed from and to the others."""
    store = MemoryStore()
    first = run(call_of(recorded, Native(script=[says("good day")])), store=store)
    assert (first.error, first.final_output, first.model_calls, first.total_tokens) == (None, "good day", 1, 15)
    model = Native(script=[says("no")])
    with ReplaySession(list(store.read(first.execution_id))):
        second = run(call_of(replayed, model))
    assert (second.error, second.final_output, model.executed) == (None, "good day", [])


def test_a_replay_that_misses_halts_the_run() -> None:
    """Under replay a call that was not recorded is not made."""
    model = Scripted(script=[says("x")])
    with ReplaySession([]):
        report = run(lambda task: model.invoke("hi").text)
    assert report.status == "FAILED"
    assert model.executed == []
    assert JournalReplay([]).serve(ModelCall(name="m", messages=[]), "a") != ""


async def test_a_denial_reaches_async_code_as_itself() -> None:
    """LangChain gathers it as a value and stumbles over it; the agent must see the halt, not the stumble."""
    caught: list[BaseException] = []

    class NoModels:
        @hookimpl
        def oao_decide_model_call(self) -> Deny:
            return Deny(rule="models.deny", reason="no models today")

    async def agent(task: str) -> None:
        try:
            await Scripted(script=[says("hello")]).ainvoke("hi")
        except BaseException as error:
            caught.append(error)
            raise

    report = await Orchestrator(policy=NoModels()).run_async(agent, "x")

    assert [type(error) for error in caught] == [PolicyViolation]
    assert report.error == "models.deny: no models today"
