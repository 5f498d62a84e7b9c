"""Cassettes written out in the test: the variants of the format, the rules of serving and of counting."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import yaml

from pytest_oao.testing import CassetteServer, TokenUsage

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TypeAlias

    Body: TypeAlias = dict[str, Any]

NO_USAGE = (0, 0, 0)


def _openai(server: CassetteServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=5)


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
        pytest.param({"status": {"code": 200}, "headers": {}, "parsed_body": json.loads(TEXT)}, id="parsed_body"),
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
    response = _response("hello", Content_Type="text/plain", Date="then", X_Request_Id="7", Connection="close")
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
    path = _cassette(tmp_path, _response("{}"), _response("{}"), uri="https://h.test/v1/messages", method="POST")
    with CassetteServer(path) as server:
        with _openai(server) as client, pytest.raises(openai.InternalServerError) as unknown:
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
    return "".join(f"event: e\ndata: {json.dumps(document)}\n\n" for document in documents) + "data: [DONE]\n\n"


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
            _events({"usage": None}, *({"usage": {"prompt_tokens": 2, "completion_tokens": n}} for n in (1, 4))),
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
    with pytest.raises(ValueError, match=r"interaction 1 has the content-encoding 'br'.*decode_compressed_response"):
        CassetteServer(path)


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    """Not every failure is a format error."""
    with pytest.raises(FileNotFoundError):
        CassetteServer(tmp_path / "none.yaml")
