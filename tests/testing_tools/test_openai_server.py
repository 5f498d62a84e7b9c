"""The scripted server, driven by the clients people use."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import openai
import pytest
from langchain_core.messages import AIMessageChunk, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from pytest_oao.testing import ErrorReply, OpenAIServer, TextReply, ToolCall, ToolCallReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    Connect: TypeAlias = Callable[..., openai.OpenAI]

USER = [{"role": "user", "content": "hi"}]
ADD = ToolCall(name="add", arguments={"a": 1, "b": 2})
MUL = ToolCall(name="mul", arguments={"a": 3, "b": 4})


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make clients that do not retry unless told to, and close them."""
    clients: list[openai.OpenAI] = []

    def _connect(server: OpenAIServer, **options: Any) -> openai.OpenAI:
        client = openai.OpenAI(base_url=server.url, api_key="any", **{"max_retries": 0, **options})
        clients.append(client)
        return client

    yield _connect
    for client in clients:
        client.close()


def _chat(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(model="m", messages=USER, **options)


def _respond(client: openai.OpenAI, **options: Any) -> Any:
    return client.responses.create(model="m", input="hi", **options)


# --- chat completions


def test_text_comes_back_with_the_scripted_usage(connect: Connect) -> None:
    """A reply's text and token numbers reach the client, and the request is kept."""
    reply = TextReply(text="hello there", input_tokens=100, output_tokens=20)
    with OpenAIServer(replies=[reply]) as server:
        completion = _chat(connect(server), temperature=0.5)
    assert completion.choices[0].message.content == "hello there"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "m"
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 20, 120)
    assert server.requests == [{"model": "m", "messages": USER, "temperature": 0.5}]


def test_replies_are_served_in_order_over_both_endpoints(connect: Connect) -> None:
    """One script, one order, one counter of ids."""
    with OpenAIServer(replies=["one", "two", "three"]) as server:
        client = connect(server)
        first, second, third = _chat(client), _respond(client), _chat(client)
    assert first.choices[0].message.content == "one"
    assert second.output_text == "two"
    assert third.choices[0].message.content == "three"
    assert [first.id, second.id, third.id] == ["chatcmpl-1", "resp_2", "chatcmpl-3"]


def test_parallel_tool_calls_have_counted_ids(connect: Connect) -> None:
    """Several calls of one reply are parallel calls; ids name the request and the place."""
    with OpenAIServer(replies=["first", ToolCallReply(calls=(ADD, MUL), text="let me see")]) as server:
        client = connect(server)
        _chat(client)
        (choice,) = _chat(client).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "let me see"
    calls = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls]
    assert calls == [("call_2_1", "add", {"a": 1, "b": 2}), ("call_2_2", "mul", {"a": 3, "b": 4})]


def test_arguments_given_as_text_are_sent_as_they_are(connect: Connect) -> None:
    """A model that writes broken JSON can be scripted."""
    with OpenAIServer(replies=[ToolCallReply(calls=(ToolCall(name="add", arguments='{"a": '),))]) as server:
        message = _chat(connect(server)).choices[0].message
    assert message.content is None
    assert message.tool_calls[0].function.arguments == '{"a": '


@pytest.mark.parametrize("text", ["", "word", "  several words,\n\nand lines  ", "žluťoučký kůň 🐎"])
def test_streamed_text_is_whole(connect: Connect, text: str) -> None:
    """No character is lost or doubled between the chunks."""
    with OpenAIServer(replies=[text]) as server, _chat(connect(server), stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.id for chunk in chunks} == {"chatcmpl-1"}


def test_a_stream_reports_usage_only_when_asked(connect: Connect) -> None:
    """As the real API: a last chunk without choices, only with `include_usage`."""
    with OpenAIServer(replies=["a b", TextReply(text="a b", input_tokens=3, output_tokens=4)]) as server:
        client = connect(server)
        with _chat(client, stream=True) as stream:
            silent = list(stream)
        with _chat(client, stream=True, stream_options={"include_usage": True}) as stream:
            *chunks, last = list(stream)
    assert all(chunk.usage is None and chunk.choices for chunk in [*silent, *chunks])
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (3, 4, 7)


def test_streamed_tool_calls_come_in_parts(connect: Connect) -> None:
    """Name and id first, then arguments in several deltas: a client must join them by index."""
    replies = [ToolCallReply(calls=(ADD, MUL))]
    with OpenAIServer(replies=replies) as server, _chat(connect(server), stream=True) as stream:
        chunks = list(stream)
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or ()]
    assert [(d.index, d.id, d.function.name) for d in deltas if d.id] == [
        (0, "call_1_1", "add"),
        (1, "call_1_2", "mul"),
    ]
    joined = ["".join(d.function.arguments for d in deltas if d.index == index) for index in (0, 1)]
    assert [json.loads(text) for text in joined] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert len(deltas) == 6
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_the_async_client_is_served() -> None:
    """Sync, stream and concurrent calls of the async client."""
    with OpenAIServer(replies=["one two", "same", "same"]) as server:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
            create = client.chat.completions.create
            stream = await create(model="m", messages=USER, stream=True)
            text = [chunk.choices[0].delta.content or "" async for chunk in stream]
            both = await asyncio.gather(*(create(model="m", messages=USER) for _ in range(2)))
    assert "".join(text) == "one two"
    assert [completion.choices[0].message.content for completion in both] == ["same", "same"]


# --- responses


def test_responses_carry_text_calls_and_usage(connect: Connect) -> None:
    """The responses endpoint gives the same reply in its own shape."""
    reply = ToolCallReply(calls=(ADD, MUL), text="wait", input_tokens=7, output_tokens=2)
    with OpenAIServer(replies=[reply]) as server:
        response = _respond(connect(server))
    assert response.output_text == "wait"
    calls = [(i.call_id, i.name, json.loads(i.arguments)) for i in response.output if i.type == "function_call"]
    assert calls == [("call_1_1", "add", {"a": 1, "b": 2}), ("call_1_2", "mul", {"a": 3, "b": 4})]
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (7, 2, 9)


@pytest.mark.parametrize("reply", [TextReply(text="one two three"), ToolCallReply(calls=(ADD, MUL), text="wait a bit")])
def test_streamed_responses_end_in_what_their_deltas_said(connect: Connect, reply: Any) -> None:
    """Deltas, done events and the completed response agree, and events are numbered without a gap."""
    with OpenAIServer(replies=[reply]) as server, _respond(connect(server), stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    completed = events[-1].response
    assert completed.status == "completed"
    assert completed.usage.total_tokens == 15
    said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert said == completed.output_text == reply.text
    written = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    assert written == "".join(i.arguments for i in completed.output if i.type == "function_call")
    done = [e.item for e in events if e.type == "response.output_item.done"]
    assert [item.to_dict() for item in done] == [item.to_dict() for item in completed.output]


# --- errors


def test_scripted_errors_reach_the_client(connect: Connect) -> None:
    """Status, message, code and the retry-after header are the scripted ones."""
    error = ErrorReply(status=429, message="slow down", code="rate_limit_exceeded", retry_after_s=2)
    with (
        OpenAIServer(replies=[error]) as server,
        pytest.raises(openai.RateLimitError, match="slow down") as caught,
    ):
        _chat(connect(server))
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "2"


def test_a_retrying_client_gets_the_next_reply(connect: Connect) -> None:
    """A retry is a request like any other."""
    errors = [ErrorReply(status=status, message="again", retry_after_s=0.01) for status in (429, 503)]
    with OpenAIServer(replies=[*errors, "at last"]) as server:
        completion = _chat(connect(server, max_retries=2))
    assert completion.choices[0].message.content == "at last"
    assert completion.id == "chatcmpl-3"
    assert len(server.requests) == 3


def test_an_exhausted_script_fails_at_once(connect: Connect) -> None:
    """A client that would retry is told not to, and the message says how many replies there were."""
    with OpenAIServer(replies=["only"]) as server:
        client = connect(server, max_retries=5)
        _chat(client)
        with pytest.raises(openai.InternalServerError, match="request 2 came, but only 1 replies were scripted"):
            _chat(client)
    assert len(server.requests) == 2


def test_unknown_paths_and_bodies_are_refused_and_not_counted(connect: Connect) -> None:
    """Nothing but a model call uses up a reply."""
    with OpenAIServer(replies=["kept"]) as server:
        client = connect(server)
        with pytest.raises(openai.NotFoundError, match="POST /v1/embeddings is not served"):
            client.embeddings.create(model="m", input="hi")
        for content in (b"", b"[1]", b"{", b"\xff"):
            refused = httpx.post(f"{server.url}/chat/completions", content=content)
            assert (refused.status_code, refused.json()["error"]["message"]) == (
                400,
                "the request body is not a JSON object",
            )
        assert httpx.post(f"{server.url}/responses", content=iter([b"{}"])).status_code == 411
        assert [model.id for model in client.models.list()] == ["scripted"]
        assert server.requests == []
        assert _chat(client).choices[0].message.content == "kept"


def test_a_script_of_the_wrong_type_is_refused() -> None:
    """Mistakes in a script are found before anything is served."""
    with pytest.raises(ValueError, match="exactly one"):
        OpenAIServer()
    with pytest.raises(ValueError, match="exactly one"):
        OpenAIServer(replies=[], respond=lambda body: "hi")
    with pytest.raises(TypeError, match="42 is not a reply"):
        OpenAIServer(replies=["fine", 42])  # type: ignore[list-item]
    with pytest.raises(RuntimeError, match="before its first start"):
        _ = OpenAIServer(replies=[]).url


# --- respond


def test_respond_answers_concurrent_requests_by_their_content(connect: Connect) -> None:
    """Requests are answered in parallel: each waits until all have arrived."""
    words = [f"word {number}" for number in range(32)]
    together = threading.Barrier(len(words), timeout=10)

    def respond(body: dict[str, Any]) -> str:
        together.wait()
        return f"echo {body['messages'][0]['content']}"

    def ask(client: openai.OpenAI, word: str) -> str | None:
        messages: Any = [{"role": "user", "content": word}]
        return client.chat.completions.create(model="m", messages=messages).choices[0].message.content

    with OpenAIServer(respond=respond) as server, ThreadPoolExecutor(len(words)) as pool:
        client = connect(server)
        answers = list(pool.map(lambda word: ask(client, word), words))
    assert answers == [f"echo {word}" for word in words]
    assert len(server.requests) == len(words)


@pytest.mark.parametrize(
    ("respond", "says"),
    [
        (lambda body: body["missing"], "respond raised KeyError\\('missing'\\) on request 1"),
        (lambda body: None, "None is not a reply"),
    ],
)
def test_a_failing_respond_is_seen_by_the_client(
    connect: Connect, caplog: pytest.LogCaptureFixture, respond: Any, says: str
) -> None:
    """The client gets a 500 that names the exception; the traceback is in the log."""
    with OpenAIServer(respond=respond) as server, pytest.raises(openai.InternalServerError, match=says):
        _chat(connect(server, max_retries=5))
    assert len(server.requests) == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info


def test_respond_may_stop_its_own_server(connect: Connect) -> None:
    """A provider that dies in the middle of a call: no answer, then no connection."""

    def die(body: dict[str, Any]) -> str:
        server.stop()
        return "never sent"

    server = OpenAIServer(respond=die)
    with server:
        client = connect(server)
        for _ in range(2):
            with pytest.raises(openai.APIConnectionError):
                _chat(client)
    assert len(server.requests) == 1


# --- lifecycle and time


def test_a_stopped_server_refuses_and_comes_back_at_the_same_url(connect: Connect) -> None:
    """Pooled connections are cut too; the script goes on where it was."""
    server = OpenAIServer(replies=["one", "two"])
    with server:
        url, client = server.url, connect(server)
        assert _chat(client).choices[0].message.content == "one"
        server.stop()
        server.stop()
        with pytest.raises(openai.APIConnectionError):
            _chat(client)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/models")
        server.start()
        server.start()
        assert server.url == url
        assert _chat(client).choices[0].message.content == "two"
    assert len(server.requests) == 2


@pytest.mark.parametrize("reply", [TextReply(text="late", delay_s=60), TextReply(text="late", chunk_delay_s=60)])
def test_stop_cuts_a_hanging_answer(connect: Connect, reply: TextReply) -> None:
    """Neither the client nor the test waits for the delay."""
    with OpenAIServer(replies=[reply]) as server, ThreadPoolExecutor(1) as pool:
        client = connect(server, timeout=30)
        waiting = pool.submit(lambda: list(_chat(client, stream=True)))
        server.wait_for_requests(1)
        server.stop()
        # The client wraps what happens before the status line, and nothing that happens after it.
        with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
            waiting.result(timeout=10)


def test_a_delayed_reply_meets_the_timeout_of_the_client(connect: Connect) -> None:
    """`delay_s` is a provider that hangs."""
    with (
        OpenAIServer(replies=[TextReply(text="late", delay_s=60)]) as server,
        pytest.raises(openai.APITimeoutError),
    ):
        _chat(connect(server, timeout=0.1))


def test_chunks_are_paced(connect: Connect) -> None:
    """`chunk_delay_s` passes before each chunk, and chunks are sent as they come."""
    replies = [TextReply(text="a b c", chunk_delay_s=0.02)]
    with OpenAIServer(replies=replies) as server, _chat(connect(server), stream=True) as stream:
        arrivals = [time.monotonic() for _ in stream]
    assert len(arrivals) == 5
    assert arrivals[-1] - arrivals[0] >= 0.06


def test_waiting_for_requests_is_bounded() -> None:
    """A test that waits for too much is told what came."""
    with OpenAIServer(replies=[]) as server, pytest.raises(TimeoutError, match="0 of 1 requests arrived"):
        server.wait_for_requests(1, timeout_s=0.01)


def test_no_thread_outlives_the_server(connect: Connect) -> None:
    """Also with a keep-alive connection still open on the client's side."""
    before = set(threading.enumerate())
    with OpenAIServer(replies=["hi"]) as server:
        _chat(connect(server))
        # A thread of an earlier test may be ending just now: only what is new counts.
        assert set(threading.enumerate()) - before
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(timeout=5)
    assert not any(thread.is_alive() for thread in left)


def test_the_same_script_gives_the_same_bytes() -> None:
    """No clock and no chance in an answer."""
    answers = []
    for _ in range(2):
        with OpenAIServer(replies=["one", ToolCallReply(calls=(ADD,))]) as server:
            for path in ("chat/completions", "responses"):
                answer = httpx.post(f"{server.url}/{path}", json={"model": "m", "stream": True, "messages": []})
                answers.append((answer.content, sorted(answer.headers.items())))
    assert answers[:2] == answers[2:]


def test_what_respond_does_to_a_body_is_not_seen_in_requests(connect: Connect) -> None:
    """The body is the callable's own."""
    with OpenAIServer(respond=lambda body: str(len(body["messages"].pop()))) as server:
        _chat(connect(server))
    assert server.requests == [{"model": "m", "messages": USER}]


def test_requests_is_a_snapshot(connect: Connect) -> None:
    """What a test does to it changes nothing."""
    with OpenAIServer(replies=["hi"]) as server:
        _chat(connect(server))
        taken: list[Any] = server.requests
        taken[0]["messages"].clear()
        taken.clear()
        assert server.requests == [{"model": "m", "messages": USER}]


# --- LangChain


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize("responses_api", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
async def test_langchain_runs_a_tool_loop(responses_api: bool, streaming: bool) -> None:
    """Tool call, tool result, answer, with usage: over both endpoints, plain and streamed, sync and async."""
    replies = [ToolCallReply(calls=(ADD,), input_tokens=30, output_tokens=9), "it is three"]
    with OpenAIServer(replies=replies) as server:
        model = ChatOpenAI(
            model="m",
            base_url=server.url,
            api_key="any",
            streaming=streaming,
            stream_usage=True,
            use_responses_api=responses_api,
        ).bind_tools([add])
        asked = model.invoke("what is 1 + 2?")
        (call,) = asked.tool_calls
        result = add.invoke(call)
        answered = await model.ainvoke([("user", "what is 1 + 2?"), asked, result])
    assert (call["name"], call["args"], call["id"]) == ("add", {"a": 1, "b": 2}, "call_1_1")
    assert isinstance(result, ToolMessage)
    assert answered.text == "it is three"
    usages = [(m.usage_metadata["input_tokens"], m.usage_metadata["output_tokens"]) for m in (asked, answered)]
    assert usages == [(30, 9), (10, 5)]
    assert [bool(body.get("stream")) for body in server.requests] == [streaming, streaming]
    assert '"call_1_1"' in json.dumps(server.requests[1])


async def test_langchain_streams_chunk_by_chunk() -> None:
    """`stream` and `astream` yield the words as they were sent."""
    with OpenAIServer(replies=["one two three", "four five"]) as server:
        model = ChatOpenAI(model="m", base_url=server.url, api_key="any")
        chunks = list(model.stream("count"))
        more = [chunk async for chunk in model.astream("on")]
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    assert [chunk.text for chunk in chunks if chunk.text] == ["one ", "two ", "three"]
    assert [chunk.text for chunk in more if chunk.text] == ["four ", "five"]
