"""The recorded server, driven by the clients people use over traffic recorded from real APIs."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
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


def _openai(server: CassetteServer, base_path: str = "/v1", max_retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}{base_path}", api_key="any", max_retries=max_retries)


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
            answers.append(
                _merged(runnable.stream(messages)) if body.get("stream") else runnable.invoke(messages)
            )
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
                chunks = (
                    [c async for c in runnable.astream(messages)]
                    if asynchronous
                    else runnable.stream(messages)
                )
                answers.append(_merged(chunks))
            else:
                answers.append(
                    await runnable.ainvoke(messages) if asynchronous else runnable.invoke(messages)
                )
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


# --- the file format, written out


def _response(body: object, **headers: str) -> Body:
    recorded = {name.replace("_", "-"): [value] for name, value in headers.items()}
    return {"status": {"code": 200, "message": "OK"}, "headers": recorded, "body": {"string": body}}


def _cassette(
    tmp_path: Path, *responses: Body, uri: str = "https://api.example.test/v1/x", method: str = "GET"
) -> Path:
    request = {"method": method, "uri": uri, "body": None, "headers": {}}
    document = {"version": 1, "interactions": [{"request": request, "response": r} for r in responses]}
    path = tmp_path / "cassette.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    return path


TEXT = '{"city": "Zürich\u2028", "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}}'
RAW = TEXT.encode()
_DEFLATE = zlib.compressobj(wbits=-zlib.MAX_WBITS)
RAW_DEFLATE = _DEFLATE.compress(RAW) + _DEFLATE.flush()


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(_response(TEXT), id="str"),
        pytest.param(_response(RAW), id="bytes"),
        pytest.param(_response(gzip.compress(RAW), Content_Encoding="gzip"), id="gzip"),
        pytest.param(_response(gzip.compress(RAW)), id="gzip, header scrubbed"),
        pytest.param(_response(TEXT, Content_Encoding="gzip"), id="decoded, header kept"),
        pytest.param(_response(TEXT, content_encoding="br"), id="decoded from br, header kept"),
        pytest.param(_response(zlib.compress(RAW), Content_Encoding="deflate"), id="deflate"),
        pytest.param(_response(RAW_DEFLATE, Content_Encoding="deflate"), id="raw deflate"),
        pytest.param(
            {**_response(None), "body": {"base64_string": base64.b64encode(RAW).decode()}}, id="base64_string"
        ),
        pytest.param(
            {**_response(None), "body": {"encoding": "base64", "string": base64.b64encode(RAW)}},
            id="encoding: base64",
        ),
        pytest.param({**_response(None), "body": TEXT}, id="bare body"),
        pytest.param({"status_code": 200, "headers": {}, "content": TEXT}, id="old vcrpy for httpx"),
        pytest.param(
            {"status": {"code": 200}, "headers": {}, "parsed_body": json.loads(TEXT)}, id="parsed_body"
        ),
        pytest.param({**_response(TEXT), "headers": None}, id="no headers"),
    ],
)
def test_bodies_are_decoded_whatever_way_they_were_kept(tmp_path: Path, response: Body) -> None:
    """The client gets the plain body, correctly framed, and its usage is found."""
    with CassetteServer(_cassette(tmp_path, response)) as server:
        answer = httpx.get(f"{server.url}/v1/x")
    assert "content-encoding" not in answer.headers
    assert answer.json() == json.loads(TEXT)
    assert server.usage == TokenUsage(input_tokens=2, output_tokens=3, total_tokens=5)


def test_a_gzipped_cassette_loads(tmp_path: Path) -> None:
    """Large recordings may be kept as `.yaml.gz`."""
    packed = tmp_path / "cassette.yaml.gz"
    packed.write_bytes(gzip.compress(_cassette(tmp_path, _response(TEXT)).read_bytes()))
    assert CassetteServer(str(packed)).usage.total_tokens == 5


def test_headers_are_kept_but_those_of_the_connection(tmp_path: Path) -> None:
    """Rate limits and ids reach the client; framing is the server's own, and there is no second Date."""
    response = _response(
        "hello", Content_Type="text/plain", Date="then", X_Request_Id="7", Connection="close"
    )
    response["headers"] |= {
        "Transfer-Encoding": ["chunked"],
        "Content-Length": ["999"],
        "Warning": ["1", "2"],
    }
    response["headers"]["Set-Cookie"] = "scrubbed"
    with CassetteServer(_cassette(tmp_path, response)) as server:
        answer = httpx.get(f"{server.url}/v1/x")
    assert sorted(answer.headers.multi_items()) == [
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("date", "then"),
        ("set-cookie", "scrubbed"),
        ("warning", "1"),
        ("warning", "2"),
        ("x-request-id", "7"),
    ]


@pytest.mark.parametrize("rest", ["", "data: cut"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_event_streams_are_sent_event_by_event(tmp_path: Path, end: str, rest: str) -> None:
    """Byte for byte the recorded stream, as a chunked transfer, also when its last event was cut off."""
    stream = "".join(f"event: e{end}data: {number}{end}{end}" for number in range(3)) + rest
    recorded = _response(stream, content_type="text/event-stream")
    with (
        CassetteServer(_cassette(tmp_path, recorded, _response("next"))) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        answer = client.get("/v1/x")
        after = client.get("/v1/x")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.content == stream.encode()
    assert after.text == "next"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_every_method_is_served_and_queries_are_ignored(tmp_path: Path, method: str) -> None:
    """Method and path are the match; a keep-alive connection survives a response without a body."""
    empty = {**_response(None), "status": {"code": 204}}
    path = _cassette(tmp_path, empty, _response("body"), uri="https://h.test/v1/x?beta=true", method=method)
    with CassetteServer(path) as server, httpx.Client(base_url=server.url) as client:
        first, second = client.request(method, "/v1/x"), client.request(method, "/v1/x?other=1")
    assert (first.status_code, first.content) == (204, b"")
    assert (second.status_code, second.text) == (200, "" if method == "HEAD" else "body")


def test_a_request_without_a_response_left_is_told_what_is_left(tmp_path: Path) -> None:
    """An unknown path and an exhausted one fail at once, even for a client that retries."""
    path = _cassette(
        tmp_path, _response("{}"), _response("{}"), uri="https://h.test/v1/messages", method="POST"
    )
    with CassetteServer(path) as server:
        with _openai(server, max_retries=5) as client, pytest.raises(openai.InternalServerError) as unknown:
            client.chat.completions.create(model="m", messages=[])
        for _ in range(2):
            httpx.post(f"{server.url}/v1/messages")
        exhausted = httpx.post(f"{server.url}/v1/messages")
    assert unknown.value.body["message"] == (
        "cassette.yaml has no response left for POST /v1/chat/completions; left: 2 x POST /v1/messages"
    )
    assert exhausted.status_code == 500
    assert exhausted.json()["error"]["message"] == (
        "cassette.yaml has no response left for POST /v1/messages; left: nothing"
    )
    assert server.requests == [{"model": "m", "messages": []}, {}, {}, {}]


def test_a_stopped_cassette_refuses_and_does_not_rewind(tmp_path: Path) -> None:
    """The url stays the same."""
    server = CassetteServer(_cassette(tmp_path, _response("one"), _response("two")))
    with pytest.raises(RuntimeError, match="CassetteServer has no address"):
        _ = server.url
    with server:
        url = f"{server.url}/v1/x"
        assert httpx.get(url).text == "one"
        server.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
        server.start()
        assert httpx.get(url).text == "two"


# --- usage


def _events(*documents: object) -> str:
    return (
        "".join(f"event: e\ndata: {json.dumps(document)}\n\n" for document in documents) + "data: [DONE]\n\n"
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            json.dumps({"usage": {"input_tokens": 1, "cache_read_input_tokens": 20, "output_tokens": 3}}),
            (21, 3, 24),
            id="anthropic, cached",
        ),
        pytest.param(
            json.dumps(
                {
                    "usage": {
                        "input_tokens": 9,
                        "input_tokens_details": {"cached_tokens": 4},
                        "total_tokens": 9,
                    }
                }
            ),
            (9, 0, 9),
            id="responses, cached: already in",
        ),
        pytest.param(
            _events(
                {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}},
                {"type": "message_delta", "usage": {"output_tokens": 5}},
                {"type": "message_delta", "usage": {"output_tokens": 8}},
            ),
            (7, 8, 15),
            id="anthropic, streamed: running total",
        ),
        pytest.param(
            _events(
                {"usage": None}, *({"usage": {"prompt_tokens": 2, "completion_tokens": n}} for n in (1, 4))
            ),
            (2, 4, 6),
            id="chat, streamed with usage in each chunk",
        ),
        pytest.param(
            'data: {"text": "\u2028", "usage": {"input_tokens": 6}}\r\rdata:{"usage": {"output_tokens": 2}}',
            (6, 2, 8),
            id="streamed, a line separator inside a string",
        ),
        pytest.param('[1, {"usage": {"input_tokens": 4}}]', NO_USAGE, id="not an object"),
        pytest.param("data: {broken\n\nplain text", NO_USAGE, id="no JSON"),
        pytest.param('{"usage": {"input_tokens": null}, "message": "text"}', NO_USAGE, id="nulls"),
    ],
)
def test_usage_rules(tmp_path: Path, body: str, expected: tuple[int, int, int]) -> None:
    """Cached input counts as input; in a stream the last number stands."""
    usage = CassetteServer(_cassette(tmp_path, _response(body))).usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == expected


# --- files that are no cassettes

_ANSWERED = b"interactions: [{request: {method: GET, uri: /}, response: %b}]"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is None, not a dict"),
        (b"- just\n- a list", "the file is ['just', 'a list'], not a dict"),
        (b"version: 1", "`interactions` is None, not a list"),
        (b"interactions: {a: 1}", "`interactions` is {'a': 1}, not a list"),
        (b"interactions: [7]", "interaction 1 is 7, not a dict"),
        (b"interactions: [{}]", "the request of interaction 1 is None, not a dict"),
        (b"interactions: [{request: {}, response: {}}]", "the method of interaction 1 is None, not a str"),
        (
            _ANSWERED % b"{}",
            "interaction 1 has the status None",
        ),
        (
            _ANSWERED % b"{status: {code: 20}}",
            "interaction 1 has the status 20",
        ),
        (
            _ANSWERED % b"{status_code: 200, content: [1]}",
            "the response body of interaction 1 is [1], not a str",
        ),
        (
            _ANSWERED % b"{status: 200, body: {base64_string: x}}",
            "the base64 body of interaction 1 cannot be decoded",
        ),
        (b"interactions: [", "did not find expected node content"),
        (b"\xff\xfe\x00", "not a vcrpy cassette"),
        (b"interactions: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (gzip.compress(b"interactions: []", mtime=0)[:-9], "end-of-stream marker"),
        (b"\x1f\x8b no gzip", "Unknown compression method"),
    ],
)
def test_a_file_that_is_no_cassette_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """The message names the file and the reason; nothing a file asks for is executed."""
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a vcrpy cassette") as caught:
        CassetteServer(path)
    assert str(caught.value).startswith(str(path))
    assert reason in str(caught.value)


def test_a_body_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    """Better no server than one that sends noise; the message says how to record it."""
    path = _cassette(tmp_path, _response(b"\x8b\x02\x80\xff", content_encoding="br"))
    with pytest.raises(
        ValueError, match=r"interaction 1 has the content-encoding 'br'.*decode_compressed_response"
    ):
        CassetteServer(path)


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    """Not every failure is a format error."""
    with pytest.raises(FileNotFoundError):
        CassetteServer(tmp_path / "none.yaml")
