"""The recorded server, driven by the clients people use over traffic recorded from real APIs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import yaml
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from pytest_oao.testing import CassetteServer, TokenUsage

if TYPE_CHECKING:
    from typing import TypeAlias

    Body: TypeAlias = dict[str, Any]

CASSETTES = Path(__file__).parents[2].parent / "shared" / "data" / "cassettes"

NO_USAGE = (0, 0, 0)
COMPLETE = "langsmith/test_anthropic_test_completions_sync_api.yaml"
PELICAN = "llm-anthropic/test_prompt.yaml"
TOOLS_STREAMED = "otel/test_async_chat_completion_multiple_tools_streaming_with_content.yaml"
CHAT_404 = "otel/test_chat_completion_404.yaml"
CHOICES_STREAMED = "otel/test_chat_completion_multiple_choices_streaming.yaml"
CHAT_STREAMED = "otel/test_chat_completion_streaming.yaml"
CHAT_TOOLS = "otel/test_chat_completion_tool_calls_with_content.yaml"
CHAT = "otel/test_chat_completion_with_content.yaml"
RESPONSES_TOOL = "otel/test_responses_create_captures_tool_call_content_content_mode0_.yaml"
RESPONSES_STREAMED = "otel/test_responses_create_streaming_content_mode0_.yaml"
THINKING = "pydantic-ai/test_anthropic_model_thinking_part_stream.yaml"
PARALLEL = "pydantic-ai/test_multiple_parallel_tool_calls.yaml"
RATE_LIMITED = "pydantic-ai/test_openrouter_errors_raised.yaml"

# Added up by hand from the files: input, output, total.
USAGE = {
    COMPLETE: NO_USAGE,
    PELICAN: (17, 10, 27),
    TOOLS_STREAMED: (75, 51, 126),
    CHAT_404: NO_USAGE,
    CHOICES_STREAMED: (26, 104, 130),
    CHAT_STREAMED: (12, 5, 17),
    CHAT_TOOLS: (75 + 99, 51 + 25, 126 + 124),
    CHAT: (12, 5, 17),
    RESPONSES_TOOL: (72, 8, 80),
    RESPONSES_STREAMED: (22, 6, 28),
    THINKING: (43, 282, 325),
    PARALLEL: (423 + 771, 202 + 77, 625 + 848),
    RATE_LIMITED: NO_USAGE,
}
OPENAI = [
    CHAT,
    CHAT_TOOLS,
    CHAT_STREAMED,
    TOOLS_STREAMED,
    CHOICES_STREAMED,
    RESPONSES_TOOL,
    RESPONSES_STREAMED,
]
LANGCHAIN_OPENAI = [CHAT, CHAT_TOOLS, CHAT_STREAMED, TOOLS_STREAMED, RESPONSES_TOOL, RESPONSES_STREAMED]
LANGCHAIN_ANTHROPIC = [PELICAN, THINKING, PARALLEL]
ERRORS = [(CHAT_404, "/v1", [404]), (RATE_LIMITED, "/api/v1", [429, 429, 429])]


def _file(name: str) -> Path:
    if not CASSETTES.is_dir():
        pytest.skip("the recorded cassettes are not part of this checkout (../shared/data/cassettes)")
    return CASSETTES / name


def _interactions(name: str) -> list[Body]:
    return yaml.safe_load(_file(name).read_text(encoding="utf-8"))["interactions"]


def _recorded_requests(name: str) -> list[Body]:
    requests = [interaction["request"] for interaction in _interactions(name)]
    return [r["parsed_body"] if "parsed_body" in r else json.loads(r["body"]) for r in requests]


def _total(usages: list[Any]) -> tuple[int, int, int]:
    """Add up what a client read: usage objects of the SDK, or LangChain's dicts."""
    counted = []
    for usage in usages:
        numbers = usage if isinstance(usage, dict) else usage.to_dict()
        sent = numbers.get("input_tokens", numbers.get("prompt_tokens"))
        received = numbers.get("output_tokens", numbers.get("completion_tokens"))
        counted.append((sent, received, numbers["total_tokens"]))
    return tuple(map(sum, zip(*counted, strict=True)))


def test_every_cassette_of_the_folder_is_in_the_table() -> None:
    """A cassette that is added is a cassette that is tested."""
    present = {path.relative_to(CASSETTES).as_posix() for path in _file("").rglob("*.yaml")}
    assert present == set(USAGE)
    driven = {COMPLETE, *OPENAI, *LANGCHAIN_OPENAI, *LANGCHAIN_ANTHROPIC, *(name for name, _, _ in ERRORS)}
    assert driven == present


@pytest.mark.parametrize("name", USAGE)
def test_usage_is_what_the_recorded_responses_report(name: str) -> None:
    """Over JSON and streams, OpenAI's two shapes and Anthropic's, one interaction or several."""
    sent, received, total = USAGE[name]
    usage = CassetteServer(_file(name)).usage
    assert usage == TokenUsage(input_tokens=sent, output_tokens=received, total_tokens=total)


# --- the clients


def _openai(server: CassetteServer, base_path: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}{base_path}", api_key="any", max_retries=0)


def _call_openai(client: openai.OpenAI, body: Body) -> Any:
    create = client.responses.create if "input" in body else client.chat.completions.create
    if not body.get("stream"):
        return create(**body).usage
    with create(**body) as stream:
        return _last_usage(list(stream))


async def _acall_openai(client: openai.AsyncOpenAI, body: Body) -> Any:
    create = client.responses.create if "input" in body else client.chat.completions.create
    answer: Any = await create(**body)
    return _last_usage([event async for event in answer]) if body.get("stream") else answer.usage


def _last_usage(events: list[Any]) -> Any:
    assert len(events) > 1
    return getattr(events[-1], "response", events[-1]).usage


@pytest.mark.parametrize("name", OPENAI)
def test_openai_talks_to_recorded_traffic(name: str) -> None:
    """The recorded call, made again by today's client: same request, recorded usage."""
    bodies = _recorded_requests(name)
    with CassetteServer(_file(name)) as server, _openai(server) as client:
        usages = [_call_openai(client, body) for body in bodies]
    assert server.requests == bodies
    assert _total(usages) == USAGE[name]


@pytest.mark.parametrize("name", OPENAI)
async def test_async_openai_talks_to_recorded_traffic(name: str) -> None:
    """As above, for the async client."""
    bodies = _recorded_requests(name)
    with CassetteServer(_file(name)) as server:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            usages = [await _acall_openai(client, body) for body in bodies]
    assert server.requests == bodies
    assert _total(usages) == USAGE[name]


@pytest.mark.parametrize(("name", "base_path", "statuses"), ERRORS)
def test_recorded_errors_are_raised_by_the_client(name: str, base_path: str, statuses: list[int]) -> None:
    """Status and body of a recorded refusal reach the client."""
    interactions = _interactions(name)
    bodies = _recorded_requests(name)
    with CassetteServer(_file(name)) as server, _openai(server, base_path) as client:
        for body, status, interaction in zip(bodies, statuses, interactions, strict=True):
            with pytest.raises(openai.APIStatusError) as caught:
                client.chat.completions.create(**body)
            response = interaction["response"]
            recorded = response.get("parsed_body") or json.loads(response["body"]["string"])
            assert caught.value.status_code == status
            assert caught.value.response.json() == recorded
    assert server.requests == bodies


def _merged(chunks: Any) -> AIMessage:
    first, *rest = chunks
    for chunk in rest:
        first += chunk
    return first


@pytest.mark.parametrize("name", LANGCHAIN_OPENAI)
def test_langchain_openai_talks_to_recorded_traffic(name: str) -> None:
    """Messages, tools and usage survive the way through LangChain's client."""
    answers = []
    bodies = _recorded_requests(name)
    with CassetteServer(_file(name)) as server:
        for body in bodies:
            model = ChatOpenAI(
                model=body["model"],
                base_url=f"{server.url}/v1",
                api_key="any",
                max_retries=0,
                stream_usage=True,
                use_responses_api="input" in body,
            )
            runnable = model.bind(**{key: body[key] for key in ("tools", "tool_choice") if key in body})
            # LangChain refuses a message without content, which OpenAI allows beside tool calls.
            messages = body.get("input") or [{"content": "", **message} for message in body["messages"]]
            answers.append(_merged(runnable.stream(messages)) if body.get("stream") else runnable.invoke(messages))
    assert [request["model"] for request in server.requests] == [body["model"] for body in bodies]
    assert _total([answer.usage_metadata for answer in answers]) == USAGE[name]
    cities = {call["args"]["location"].split(",")[0] for answer in answers for call in answer.tool_calls}
    if name in (CHAT_TOOLS, TOOLS_STREAMED):
        assert cities == {"Seattle", "San Francisco"}
        assert name == TOOLS_STREAMED or "50 degrees and raining" in answers[-1].text
    elif name == RESPONSES_TOOL:
        assert cities == {"Seattle"}
    else:
        assert answers[-1].text.strip('"') == "This is a test."


def _anthropic_messages(body: Body) -> list[Any]:
    system = [SystemMessage(body["system"])] if body.get("system") else []
    kinds = {"user": HumanMessage, "assistant": AIMessage}
    return system + [kinds[message["role"]](message["content"]) for message in body["messages"]]


# The recorded models grow old; the client warns about those that will be, or are, switched off.
@pytest.mark.filterwarnings(r"ignore:The model '[\w-]+' is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", LANGCHAIN_ANTHROPIC)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_langchain_anthropic_talks_to_recorded_traffic(name: str, asynchronous: bool) -> None:
    """Streamed text, thinking and parallel tool calls, with the usage of message_start and message_delta."""
    answers = []
    bodies = _recorded_requests(name)
    with CassetteServer(_file(name)) as server:
        for body in bodies:
            model = ChatAnthropic(
                model=body["model"],
                base_url=server.url,
                api_key="any",
                max_retries=0,
                max_tokens=body["max_tokens"],
                thinking=body.get("thinking"),
            )
            runnable = model.bind(**{key: body[key] for key in ("tools", "tool_choice") if key in body})
            messages = _anthropic_messages(body)
            if body["stream"]:
                chunks = [c async for c in runnable.astream(messages)] if asynchronous else runnable.stream(messages)
                answers.append(_merged(chunks))
            else:
                answers.append(await runnable.ainvoke(messages) if asynchronous else runnable.invoke(messages))
    assert _total([answer.usage_metadata for answer in answers]) == USAGE[name]
    for request, body in zip(server.requests, bodies, strict=True):
        assert {key: request.get(key) for key in ("model", "tools", "thinking", "system")} == {
            key: body.get(key) for key in ("model", "tools", "thinking", "system")
        }
        assert len(request["messages"]) == len(body["messages"])
    if name == PELICAN:
        assert answers[0].text == "- Captain\n- Scoop"
    elif name == THINKING:
        assert [block["type"] for block in answers[0].content] == ["thinking", "text"]
    else:
        assert [call["args"]["name"] for call in answers[0].tool_calls] == [
            "Alice",
            "Bob",
            "Charlie",
            "Daisy",
        ]
        assert answers[1].tool_calls == []


def test_a_retired_endpoint_is_served_to_a_plain_client() -> None:
    """No client of today speaks `/v1/complete`; all 12 responses of one path come in the recorded order."""
    with CassetteServer(_file(COMPLETE)) as server, httpx.Client(base_url=server.url) as client:
        for body, interaction in zip(_recorded_requests(COMPLETE), _interactions(COMPLETE), strict=True):
            answer = client.post("/v1/complete", json=body)
            recorded = interaction["response"]
            assert (answer.status_code, answer.text) == (
                recorded["status"]["code"],
                recorded["body"]["string"],
            )
        assert client.post("/v1/complete", json={}).status_code == 500
    assert server.requests == [*_recorded_requests(COMPLETE), {}]
