"""Plain `openai` and `anthropic` clients: a request of a model is one governed call, and replays without a server."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pydantic
import pytest
from langchain_openai import ChatOpenAI

from oao_harness import ExecutionReport, Orchestrator, StrictPolicy, model
from oao_harness.journal.recording import Recording
from oao_hookspecs import Deny, ModelCall, RunView, ToolCall, hookimpl
from pytest_oao.testing import ErrorReply, OpenAIServer, TextReply, ToolCallReply
from pytest_oao.testing import ToolCall as Asked
from tests.adapters.anthropic_server import AnthropicServer

LIMITS = StrictPolicy(max_tokens=None, max_steps=100, retry_config={"max_retries": 0}, require_governed=True)
MESSAGES: Any = [{"role": "user", "content": "say it"}]
ASK: dict[str, Any] = {"model": "m", "messages": MESSAGES}
ASK_CLAUDE: dict[str, Any] = {"model": "c", "messages": MESSAGES, "max_tokens": 99}


class NoModels:
    name = "no-models"

    @hookimpl
    def oao_decide_model_call(self, call: ModelCall, run: RunView) -> Deny:
        return Deny(rule="no-models", reason="none")


class Verdict(pydantic.BaseModel):
    word: str


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(respond=lambda body: TextReply(text="hello wide world")) as started:
        yield started


@pytest.fixture
def claude() -> Iterator[AnthropicServer]:
    with AnthropicServer() as started:
        yield started


def chat(url: str, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="any", max_retries=0, **more)


def achat(url: str, **more: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0, **more)


# Each is an agent that is given the URL of a server, and returns plain data.


def plain(url: str) -> object:
    with chat(url) as client:
        return client.chat.completions.create(**ASK).model_dump()


def stream(url: str) -> object:
    with chat(url) as client:
        return [chunk.model_dump() for chunk in client.chat.completions.create(**ASK, stream=True)]


def responses(url: str) -> object:
    with chat(url) as client:
        return client.responses.create(model="m", input="say it", instructions="be brief").model_dump()


def responses_stream(url: str) -> object:
    with chat(url) as client:
        return [event.model_dump() for event in client.responses.create(model="m", input="say it", stream=True)]


def raw(url: str) -> object:
    with chat(url) as client:
        found = client.chat.completions.with_raw_response.create(**ASK)
        return [found.status_code, found.headers["content-type"], found.parse().model_dump()]


def raw_stream(url: str) -> object:
    with chat(url) as client:
        found = client.chat.completions.with_raw_response.create(**ASK, stream=True)
        return [chunk.model_dump() for chunk in found.parse()]


def streaming_response(url: str) -> object:
    with chat(url) as client, client.chat.completions.with_streaming_response.create(**ASK) as found:
        return found.json()


def streaming_response_of_events(url: str) -> object:
    with chat(url) as client, client.chat.completions.with_streaming_response.create(**ASK, stream=True) as found:
        return [line for line in found.iter_lines() if line][-1]


def helper(url: str) -> object:
    with chat(url) as client, client.chat.completions.stream(**ASK) as events:
        kinds = [event.type for event in events]
        return [kinds, events.get_final_completion().choices[0].message.content]


async def aplain(url: str) -> object:
    async with achat(url) as client:
        return (await client.chat.completions.create(**ASK)).model_dump()


async def astream(url: str) -> object:
    async with achat(url) as client:
        return [chunk.model_dump() async for chunk in await client.chat.completions.create(**ASK, stream=True)]


async def araw(url: str) -> object:
    async with achat(url) as client:
        return (await client.chat.completions.with_raw_response.create(**ASK)).parse().model_dump()


async def astreaming_response(url: str) -> object:
    async with achat(url) as client, client.chat.completions.with_streaming_response.create(**ASK) as found:
        return await found.json()


async def ahelper(url: str) -> object:
    async with achat(url) as client, client.responses.stream(model="m", input="say it") as events:
        kinds = [event.type async for event in events]
        return [kinds, (await events.get_final_response()).output_text]


async def by_aiohttp(url: str) -> object:
    async with achat(url, http_client=openai.DefaultAioHttpClient()) as client:
        return [chunk.model_dump() async for chunk in await client.chat.completions.create(**ASK, stream=True)]


def own_http_client(url: str) -> object:
    class Own(httpx2.Client):
        def send(self, request: Any, **kwargs: Any) -> Any:
            return super().send(request, **kwargs)

    with chat(url, http_client=Own()) as client:
        return client.chat.completions.create(**ASK).model_dump()


def legacy_http_client(url: str) -> object:
    with chat(url, http_client=httpx.Client()) as client:
        return [chunk.model_dump() for chunk in client.chat.completions.create(**ASK, stream=True)]


def subclass(url: str) -> object:
    class Mine(openai.OpenAI):
        pass

    with Mine(base_url=url, api_key="any") as client:
        return client.chat.completions.create(**ASK).model_dump()


OPENAI = [
    plain, stream, responses, responses_stream, raw, raw_stream, streaming_response, streaming_response_of_events,
    helper, aplain, astream, araw, astreaming_response, ahelper, by_aiohttp, own_http_client, legacy_http_client,
    subclass,
]  # fmt: skip


def messages(url: str) -> object:
    with anthropic.Anthropic(base_url=url, api_key="any") as client:
        return client.messages.create(**ASK_CLAUDE).model_dump()


def messages_stream(url: str) -> object:
    with anthropic.Anthropic(base_url=url, api_key="any") as client, client.messages.stream(**ASK_CLAUDE) as events:
        return [list(events.text_stream), events.get_final_message().model_dump()]


def messages_raw(url: str) -> object:
    with anthropic.Anthropic(base_url=url, api_key="any") as client:
        return client.messages.with_raw_response.create(**ASK_CLAUDE).parse().model_dump()


def messages_one_shot(url: str) -> object:
    with anthropic.Anthropic(base_url=url, api_key="any") as client:
        return client.messages.create(**{**ASK_CLAUDE, "messages": iter(MESSAGES)}).model_dump()


async def amessages(url: str) -> object:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any") as client:
        return (await client.beta.messages.create(**ASK_CLAUDE)).model_dump()


async def amessages_stream(url: str) -> object:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any") as client:
        return [event.model_dump() async for event in await client.messages.create(**ASK_CLAUDE, stream=True)]


ANTHROPIC = [messages, messages_stream, messages_raw, messages_one_shot, amessages, amessages_stream]


def agent_of(make: Callable[[str], object], url: str) -> Any:
    if inspect.iscoroutinefunction(make):

        async def aagent(task: object) -> object:
            return await make(url)

        return aagent

    def agent(task: object) -> object:
        return make(url)

    return agent


def govern(make: Callable[[str], object], url: str, *policies: Any) -> tuple[Orchestrator, Any, ExecutionReport]:
    orchestrator, agent = Orchestrator([*(policies or (LIMITS,))]), agent_of(make, url)
    if inspect.iscoroutinefunction(agent):
        return orchestrator, agent, asyncio.run(orchestrator.run_async(agent, "go", tools=[plain]))
    return orchestrator, agent, orchestrator.run(agent, "go", tools=[plain])


def recorded(orchestrator: Orchestrator, report: ExecutionReport, path: Path) -> Recording:
    """The recording, through a file."""
    Recording.from_records(orchestrator.store.read(report.execution_id)).save(path / "x.oao.json")
    return Recording.load(path / "x.oao.json")


def replayed(make: Callable[[str], object], server: Any, path: Path) -> tuple[ExecutionReport, ExecutionReport, Any]:
    """Run with the server up, replay with the server down."""
    orchestrator, agent, live = govern(make, server.url)
    recording = recorded(orchestrator, live, path)
    server.stop()
    return live, orchestrator.replay(agent, "go", recording, tools=[plain]), recording.events


@pytest.mark.parametrize("make", OPENAI)
def test_openai_replays_with_the_server_down(make: Any, server: OpenAIServer, tmp_path: Path) -> None:
    """In every style: the same objects, one model call, the tokens that were reported."""
    live, again, events = replayed(make, server, tmp_path)

    assert (live.status, live.error) == ("SUCCESS", None)
    assert (again.status, again.error) == ("SUCCESS", None)
    assert again.final_output == live.final_output
    assert live.model_calls == again.model_calls == len(server.requests) == len(events) == 1
    assert live.total_tokens == again.total_tokens > 0
    assert live.ungoverned == []


@pytest.mark.parametrize("make", ANTHROPIC)
def test_anthropic_replays_with_the_server_down(make: Any, claude: AnthropicServer, tmp_path: Path) -> None:
    """In every style; what was read from the provider's cache counts as read."""
    live, again, events = replayed(make, claude, tmp_path)

    assert (live.status, live.error) == ("SUCCESS", None)
    assert (again.status, again.error) == ("SUCCESS", None)
    assert again.final_output == live.final_output
    assert len(claude.requests) == len(events) == 1
    assert (live.input_tokens, live.output_tokens, live.tokens_estimated) == (13, 5, False)
    assert again.total_tokens == 18


@pytest.mark.parametrize("make", [*OPENAI, *ANTHROPIC])
def test_a_denied_call_sends_no_byte(make: Any, server: OpenAIServer, claude: AnthropicServer) -> None:
    """Judged as the model call that it is."""
    used: Any = claude if make in ANTHROPIC else server
    _, _, report = govern(make, used.url, LIMITS, NoModels())

    assert report.status == "FAILED"
    assert report.violation is not None
    assert report.violation["rule"] == "no-models"
    assert used.requests == []


def test_a_request_is_described_as_the_provider_sees_it(server: OpenAIServer, tmp_path: Path) -> None:
    """Conversation, tools and parameters in their places; transport and what is not set stay out."""
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "default": None}}}

    def ask(url: str) -> None:
        client = chat(url)
        client.chat.completions.create(
            **ASK, tools=[tool], temperature=0, stop=None, stream=False, timeout=9, extra_headers={"x": "y"},
            extra_body={"top_k": 3},
        )  # fmt: skip
        client.responses.create(model="r", input=["a"], instructions="brief")  # type: ignore[list-item]

    orchestrator, _, live = govern(ask, server.url)
    first, second = recorded(orchestrator, live, tmp_path).events

    assert (first.name, second.name) == ("m", "r")
    assert first.request == {
        "messages": MESSAGES, "tools": [tool], "endpoint": "chat/completions", "temperature": 0, "top_k": 3,
    }  # fmt: skip
    assert second.request == {
        "messages": [{"role": "system", "content": "brief"}, {"role": "user", "content": "a"}],
        "endpoint": "responses",
    }


def test_a_changed_prompt_diverges(server: OpenAIServer, tmp_path: Path) -> None:
    """With a message that says what changed, although the agent catches everything."""

    def ask(url: str, said: str = "say it") -> object:
        try:
            return chat(url).chat.completions.create(model="m", messages=[{"role": "user", "content": said}])
        except BaseException:
            return "went on"

    orchestrator, _, live = govern(ask, server.url)
    again = orchestrator.replay(
        lambda task: ask(server.url, "say that"), "go", recorded(orchestrator, live, tmp_path), tools=[plain]
    )

    assert again.status == "FAILED"
    assert "user message changed (replay diverged)" in str(again.error)
    assert len(server.requests) == 1


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_retries_of_a_client_are_one_call(is_stream: bool, tmp_path: Path) -> None:
    """Counted once, with its attempts; a replay does not wait."""

    def ask(url: str) -> object:
        client = openai.OpenAI(base_url=url, api_key="any", max_retries=2)
        found: Any = client.chat.completions.create(**ASK, stream=is_stream)
        return [chunk.id for chunk in found] if is_stream else found.id

    slow = ErrorReply(status=429, message="slow down", retry_after_s=0.05)
    with OpenAIServer(replies=[slow, slow, "at last"]) as server:
        live, again, events = replayed(ask, server, tmp_path)

    assert (live.model_calls, len(server.requests), events[0].attempts) == (1, 3, 3)
    assert again.final_output == live.final_output


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("status", [404, 429, 500])
def test_an_error_is_raised_again(status: int, is_async: bool, is_stream: bool, tmp_path: Path) -> None:
    """The client's own class, with a status, a body and a response that can be used."""

    def seen(error: openai.APIStatusError) -> object:
        kind, response = type(error).__name__, error.response
        return [kind, error.status_code, error.body, response.status_code, response.json(), str(error)]

    def ask(url: str) -> object:
        try:
            return chat(url).chat.completions.create(**ASK, stream=is_stream)
        except openai.APIStatusError as error:
            return seen(error)

    async def aask(url: str) -> object:
        try:
            async with achat(url) as client:
                return await client.chat.completions.create(**ASK, stream=is_stream)
        except openai.APIStatusError as error:
            return seen(error)

    with OpenAIServer(replies=[ErrorReply(status=status, message="no", code="x")]) as server:
        live, again, events = replayed(aask if is_async else ask, server, tmp_path)

    assert live.final_output[1] == status  # type: ignore[index]
    assert again.final_output == live.final_output
    assert events[0].error is not None


def test_a_lost_connection_is_raised_again(server: OpenAIServer, tmp_path: Path) -> None:
    """With the request that it was lost for."""
    server.stop()

    def ask(url: str) -> object:
        try:
            return chat(url).chat.completions.create(**ASK)
        except openai.APIConnectionError as error:
            return [type(error).__name__, type(error.__cause__).__name__, error.request.method]

    live, again, _ = replayed(ask, server, tmp_path)

    assert live.final_output == again.final_output == ["APIConnectionError", "ConnectError", "POST"]


def test_an_answer_that_only_the_client_stumbles_over_is_an_answer(server: OpenAIServer, tmp_path: Path) -> None:
    """It was paid for: its tokens count, and a replay lets the client stumble again."""

    def ask(url: str) -> object:
        try:
            return chat(url).chat.completions.parse(**ASK, response_format=Verdict)
        except pydantic.ValidationError as error:
            return error.error_count()

    live, again, events = replayed(ask, server, tmp_path)

    assert live.final_output == again.final_output == 1
    assert live.total_tokens == again.total_tokens == 15
    assert events[0].error is None


def test_parse_returns_the_same_object(tmp_path: Path) -> None:
    """Of the user's own class."""

    def ask(url: str) -> object:
        found = chat(url).chat.completions.parse(**ASK, response_format=Verdict).choices[0].message.parsed
        return found.word if isinstance(found, Verdict) else found

    with OpenAIServer(replies=['{"word": "yes"}']) as server:
        live, again, _ = replayed(ask, server, tmp_path)

    assert live.final_output == again.final_output == "yes"


# Which of the two is collected first, the forgotten stream or its socket, is for the garbage collector to say.
@pytest.mark.filterwarnings("ignore:.*unclosed <socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*unclosed <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_an_abandoned_stream_settles_once(how: str, server: OpenAIServer, tmp_path: Path) -> None:
    """With what had come by then; its tokens are estimated."""

    def ask(url: str) -> object:
        with chat(url) as client:
            chunks: Any = client.chat.completions.create(**ASK, stream=True)
            first = [next(chunks).id, next(chunks).id]
            if how == "closed":
                chunks.close()
                chunks.close()
            del chunks
            gc.collect()
        return first

    live, again, events = replayed(ask, server, tmp_path)

    assert again.final_output == live.final_output
    assert (live.model_calls, live.tokens_estimated, len(events)) == (1, True, 1)
    assert events[0].finished


def test_an_abandoned_async_stream_settles_once(server: OpenAIServer, tmp_path: Path) -> None:
    """As a sync one does."""

    async def ask(url: str) -> object:
        async with achat(url) as client, await client.chat.completions.create(**ASK, stream=True) as chunks:
            return (await anext(aiter(chunks))).id

    live, again, events = replayed(ask, server, tmp_path)

    assert again.final_output == live.final_output
    assert (live.tokens_estimated, len(events), events[0].finished) == (True, 1, True)


def test_a_batch_is_judged_before_its_stream_has_ended() -> None:
    """A stream that asks for two tools, one of them denied, is halted before its reader sees the end."""
    seen: list[str | None] = []

    class NoHarm:
        name = "no-harm"

        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Deny | None:
            return Deny(rule="no-harm", reason="harm") if call.name == "harm" else None

    def ask(url: str) -> object:
        for chunk in chat(url).chat.completions.create(**ASK, stream=True):
            seen.extend(choice.finish_reason for choice in chunk.choices)
        return "done"

    asked = ToolCallReply(calls=(Asked(name="look", arguments={}), Asked(name="harm", arguments={"x": 1})))
    with OpenAIServer(replies=[asked]) as server:
        _, _, report = govern(ask, server.url, LIMITS, NoHarm())

    assert report.status == "FAILED"
    assert report.violation is not None
    assert report.violation["rule"] == "no-harm"


def test_twenty_concurrent_calls(server: OpenAIServer, tmp_path: Path) -> None:
    """Each counts, and each gets its own answer back."""

    async def ask(url: str) -> object:
        async with achat(url) as client:

            async def one(n: int) -> str:
                found = await client.chat.completions.create(model=f"m{n}", messages=MESSAGES)
                return found.model

            return await asyncio.gather(*map(one, range(20)))

    live, again, events = replayed(ask, server, tmp_path)

    assert live.final_output == again.final_output == [f"m{n}" for n in range(20)]
    assert (live.model_calls, len(events)) == (20, 20)


def test_clients_in_threads(server: OpenAIServer) -> None:
    """In a pool, and a stream that is begun in one thread and read in another."""

    def ask(url: str) -> object:
        client = chat(url)
        with ThreadPoolExecutor(4) as pool:
            ids = list(pool.map(lambda _: client.chat.completions.create(**ASK).model, range(8)))
        chunks, read = client.chat.completions.create(**ASK, stream=True), list[Any]()
        thread = threading.Thread(target=lambda: read.extend(chunks))
        thread.start()
        thread.join(20)
        return [len(ids), len(read) > 2]

    _, _, report = govern(ask, server.url)

    assert (report.final_output, report.model_calls, report.ungoverned) == ([8, True], 9, [])


def test_inside_of_a_governed_model_call_it_is_part_of_that(server: OpenAIServer, tmp_path: Path) -> None:
    """LangChain's model, and a function marked `@model`: counted once, as what they are."""

    @model(name="mine")
    def mine(prompt: str) -> str:
        return chat(server.url).chat.completions.create(**ASK).choices[0].message.content or ""

    def ask(url: str) -> object:
        text = ChatOpenAI(model="lc", base_url=url, api_key="any").invoke("say it").text  # type: ignore[arg-type]
        return [str(text), mine("say it")]

    live, again, events = replayed(ask, server, tmp_path)

    assert again.final_output == live.final_output
    assert [event.name for event in events] == ["lc", "mine"]
    assert all("endpoint" not in event.request for event in events)


def test_what_asks_no_model_is_left_alone(server: OpenAIServer) -> None:
    """`models.list` is no call of the run."""
    _, _, report = govern(lambda url: [one.id for one in chat(url).models.list()], server.url)

    assert (report.final_output, report.model_calls) == (["scripted"], 0)


def test_outside_of_a_run_nothing_is_different(server: OpenAIServer) -> None:
    """The leaf is inert."""
    assert plain(server.url) == plain(server.url) | {"id": "chatcmpl-1"}


# The client itself leaves generators behind where a stream ends.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_trio(server: OpenAIServer) -> None:
    """The async client under another event loop; the run is the one around it."""
    trio = pytest.importorskip("trio")

    def ask(url: str) -> object:
        return trio.run(astream, url)

    _, _, report = govern(ask, server.url)

    assert (report.status, report.error, report.model_calls) == ("SUCCESS", None, 1)
