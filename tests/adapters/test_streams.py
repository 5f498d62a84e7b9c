"""Streams: not held back while they are recorded, and kept as what their consumer took of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from oao_harness import ExecutionReport, Orchestrator, tool
from oao_harness.journal.recording import Recording
from tests.adapters.holding import WAIT_S, HoldingServer
from tests.adapters.scripted import Scripted, ScriptedStream, says

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


def model_at(url: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt-x", base_url=url, api_key="k", max_retries=0, stream_usage=True, timeout=2 * WAIT_S,
        default_headers={"connection": "close"}, http_client=DefaultHttpxClient(verify=False),
        http_async_client=DefaultAsyncHttpxClient(verify=False), **options,
    )  # fmt: skip


ASKED = {"messages": [("user", "hi")]}
SYNC: dict[str, Callable[[str], Iterator[Any]]] = {
    "stream": lambda url: model_at(url).stream("hi"),
    "responses": lambda url: model_at(url, use_responses_api=True).stream("hi"),
    "chain": lambda url: (model_at(url) | StrOutputParser()).stream("hi"),
    "stream_events_v3": lambda url: iter(model_at(url).stream_events("hi", version="v3")),
    "messages": lambda url: create_agent(model_at(url), []).stream(ASKED, stream_mode="messages"),
    "messages_list": lambda url: create_agent(model_at(url), []).stream(ASKED, stream_mode=["values", "messages"]),
}
ASYNC: dict[str, Callable[[str], AsyncIterator[Any]]] = {
    "astream": lambda url: model_at(url).astream("hi"),
    "aresponses": lambda url: model_at(url, use_responses_api=True).astream("hi"),
    "achain": lambda url: (model_at(url) | StrOutputParser()).astream("hi"),
    "astream_events_v2": lambda url: model_at(url).astream_events("hi", version="v2"),
    "amessages": lambda url: create_agent(model_at(url), []).astream(ASKED, stream_mode="messages"),
    "agent_events": lambda url: create_agent(model_at(url), []).astream_events(ASKED, version="v2"),
}


@pytest.mark.parametrize("style", [*SYNC, *ASYNC])
def test_the_first_word_comes_before_the_second_is_sent(style: str) -> None:
    """A recorded stream is handed on chunk by chunk: the server waits for the client after the first word."""
    with HoldingServer(lambda body: "good day to you") as server:
        in_time: list[bool] = []

        def look(item: Any) -> None:
            if "good" in repr(item) and not server.got_first.is_set():
                in_time.append("day" not in repr(item))
                server.got_first.set()

        def agent(task: object) -> str:
            for item in SYNC[style](server.url):
                look(item)
            return "done"

        async def async_agent(task: object) -> str:
            async for item in ASYNC[style](server.url):
                look(item)
            return "done"

        report = Orchestrator().run(agent if style in SYNC else async_agent, "go")
    assert (report.status, report.error, in_time) == ("SUCCESS", None, [True])
    assert report.total_tokens == 15


def test_a_generator_tool_is_not_held_back() -> None:
    """The body of a streaming tool goes on only after its consumer has its first item: sync and async."""
    got_first = threading.Event()

    @tool
    def count(to: int) -> Iterator[int]:
        for number in range(to):
            yield number
            assert got_first.wait(WAIT_S), "nobody got the first item"

    @tool
    async def acount(to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number
            assert await asyncio.to_thread(got_first.wait, WAIT_S), "nobody got the first item"

    def agent(task: object) -> str:
        seen = []
        for number in count(3):
            got_first.set()
            seen.append(number)
        return str(seen)

    async def async_agent(task: object) -> str:
        seen = []
        async for number in acount(3):
            got_first.set()
            seen.append(number)
        return str(seen)

    for each in (agent, async_agent):
        got_first.clear()
        report = Orchestrator().run(each, "go")
        assert (report.error, report.final_output) == (None, "[0, 1, 2]")


# Streams that are left early


def broken_off(model: Any) -> Any:
    def agent(task: object) -> str:
        seen = []
        for chunk in model.stream("hi"):
            seen.append(chunk.text)
            if len(seen) == 2:
                break
        return "".join(seen) + model.invoke("and then?").text

    return agent


def closed(model: Any) -> Any:
    def agent(task: object) -> str:
        stream = model.stream("hi")
        seen = next(stream).text + next(stream).text
        stream.close()
        return str(seen + model.invoke("and then?").text)

    return agent


def abroken_off(model: Any) -> Any:
    async def agent(task: object) -> str:
        seen = []
        async for chunk in model.astream("hi"):
            seen.append(chunk.text)
            if len(seen) == 2:
                break
        return "".join(seen) + (await model.ainvoke("and then?")).text

    return agent


def aclosed(model: Any) -> Any:
    async def agent(task: object) -> str:
        stream = model.astream("hi")
        seen = (await anext(stream)).text + (await anext(stream)).text
        await stream.aclose()
        return str(seen + (await model.ainvoke("and then?")).text)

    return agent


WAYS = [broken_off, closed, abroken_off, aclosed]


def script(messages: Any) -> Any:
    return says("good day to you" if messages[-1].text == "hi" else "!")


def recorded(way: Any, path: Path) -> tuple[ExecutionReport, Recording]:
    orchestrator = Orchestrator()
    report = orchestrator.run(way(ScriptedStream(script=script)), "go")
    assert report.error is None
    Recording.from_records(orchestrator.store.read(report.execution_id)).save(path)
    return report, Recording.load(path)


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_is_left_early_is_kept_as_what_was_taken(way: Any, tmp_path: Path) -> None:
    """Two chunks were taken and two are recorded, marked, with estimated tokens, in the order of what happened."""
    report, recording = recorded(way, tmp_path / "x.oao.json")
    first, second = recording.events
    assert first.value == {"chunks": ["good", " day"], "partial": True}
    assert first.usage is not None
    assert first.usage.estimated
    # Python closes what `break` left of an async stream in a later turn of the loop.
    assert way is abroken_off or first.end < second.start
    assert (report.final_output, report.model_calls) == ("good day!", 2)


async def test_a_stream_that_nobody_closes_is_written_before_its_run_ends() -> None:
    """An agent that ends right after `break` has asked the model, and paid, inside of its run."""

    async def agent(task: object) -> str:
        async for chunk in (ScriptedStream(script=script) | StrOutputParser()).astream("hi"):
            return str(chunk)
        return "nothing"

    orchestrator = Orchestrator()
    report = await orchestrator.run_async(agent, "go")
    records = list(orchestrator.store.read(report.execution_id))
    assert (report.final_output, report.model_calls, report.tokens_estimated) == ("good", 1, True)
    assert report.total_tokens > 0
    assert [record["type"] for record in records[-4:]] == ["outcome", "state", "state", "run.finished"]


@pytest.mark.parametrize("replayed", WAYS)
@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_is_left_early_is_left_early_again(way: Any, replayed: Any, tmp_path: Path) -> None:
    """The same two chunks, the same tokens, and nothing is executed."""
    report, recording = recorded(way, tmp_path / "x.oao.json")
    model = ScriptedStream(script=[says("never")])
    again = Orchestrator().replay(replayed(model), "go", recording)
    assert (again.error, again.final_output, model.executed) == (None, "good day!", [])
    assert (again.total_tokens, again.tokens_estimated) == (report.total_tokens, True)


def invoked(model: Any) -> Any:
    return lambda task: model.invoke("hi").text


def read_on(model: Any) -> Any:
    return lambda task: "".join(chunk.text for chunk in model.stream("hi"))


def aread_on(model: Any) -> Any:
    async def agent(task: object) -> str:
        return "".join([chunk.text async for chunk in model.astream("hi")])

    return agent


def swallowing(model: Any) -> Any:
    def agent(task: object) -> str:
        try:
            return str(model.invoke("hi").text)
        except BaseException:
            return "fine"

    return agent


@pytest.mark.parametrize("more", [invoked, read_on, aread_on, swallowing])
def test_more_of_a_stream_than_was_recorded_is_a_divergence(more: Any, tmp_path: Path) -> None:
    """A part of an answer is never handed out as the whole: not by `invoke`, and not by reading on."""
    _, recording = recorded(closed, tmp_path / "x.oao.json")
    model = ScriptedStream(script=[says("never")])
    report = Orchestrator().replay(more(model), "go", recording)
    assert report.status == "FAILED"
    assert report.violation is not None
    assert report.violation["rule"] == "replay"
    assert "only the first 2 chunks of this answer were recorded" in (report.error or "")
    assert model.executed == []


def test_less_of_a_stream_than_was_recorded_is_allowed(tmp_path: Path) -> None:
    """Who stops earlier than when it was recorded gets the first chunks; the whole answer was paid for all the same."""
    orchestrator = Orchestrator()
    first = orchestrator.run(read_on(ScriptedStream(script=script)), "go")
    recording = Recording.from_records(orchestrator.store.read(first.execution_id))

    def agent(task: object) -> str:
        return str(next(iter(ScriptedStream(script=[says("never")]).stream("hi"))).text)

    again = Orchestrator().replay(agent, "go", recording)
    assert (again.error, again.final_output, again.total_tokens) == (None, "good", first.total_tokens)


def test_a_whole_answer_is_a_stream_of_one_chunk_with_its_tokens(tmp_path: Path) -> None:
    """What `invoke` recorded comes as one chunk, and then as LangChain's own empty last one."""
    orchestrator = Orchestrator()
    first = orchestrator.run(invoked(Scripted(script=script)), "go")
    recording = Recording.from_records(orchestrator.store.read(first.execution_id))
    pieces: list[Any] = []

    def agent(task: object) -> str:
        pieces.extend(ScriptedStream(script=[says("never")]).stream("hi"))
        return "done"

    assert Orchestrator().replay(agent, "go", recording).error is None
    assert [piece.text for piece in pieces if piece.text] == ["good day to you"]
    assert pieces[0].usage_metadata["total_tokens"] == 15
