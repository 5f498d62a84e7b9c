"""The scripted server that speaks Gemini's protocol, asked over real HTTP."""

from __future__ import annotations

import json

import httpx
import pytest

from pytest_oao.testing import ErrorReply, GeminiServer, ToolCall, ToolCallReply

_CALLS = ToolCallReply(text="one moment", calls=(ToolCall(name="add", arguments={"a": 1}),), input_tokens=7)
_BODY = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def test_an_answer_has_text_calls_and_tokens() -> None:
    """In the shape of `GenerateContentResponse`."""
    with GeminiServer(replies=[_CALLS]) as server, httpx.Client(base_url=server.url) as client:
        answer = client.post("/v1beta/models/gemini-x:generateContent", json=_BODY).json()
        assert server.requests == [_BODY]
    (candidate,) = answer["candidates"]
    assert candidate["content"]["parts"] == [
        {"text": "one moment"},
        {"functionCall": {"name": "add", "args": {"a": 1}}},
    ]
    assert (candidate["finishReason"], answer["modelVersion"]) == ("STOP", "gemini-x")
    assert answer["usageMetadata"] == {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}


def test_a_stream_is_the_same_answer_in_pieces() -> None:
    """As server-sent events, of which the last one has the reason for the end."""
    with GeminiServer(replies=[_CALLS]) as server, httpx.Client(base_url=server.url) as client:
        answer = client.post("/v1beta/models/m:streamGenerateContent?alt=sse", json=_BODY)
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\r\n\r\n") if line]
    parts = [part for event in events for part in event["candidates"][0]["content"]["parts"]]
    assert "".join(part.get("text", "") for part in parts) == "one moment"
    assert len(parts) > 2
    assert {"functionCall": {"name": "add", "args": {"a": 1}}} in parts
    assert ["finishReason" in event["candidates"][0] for event in events] == [False] * (len(events) - 1) + [True]


@pytest.mark.parametrize(
    ("path", "status"), [("/v1beta/models/m:generateContent", 429), ("/v1beta/models/m:countTokens", 404)]
)
def test_errors(path: str, status: int) -> None:
    """A scripted one has Google's shape; what is not served says so."""
    reply = ErrorReply(status=429, message="slow down", retry_after_s=2)
    with GeminiServer(replies=[reply]) as server, httpx.Client(base_url=server.url) as client:
        answer = client.post(path, json=_BODY)
    assert answer.status_code == status
    if status == 429:
        assert answer.json()["error"] == {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}
        assert answer.headers["retry-after"] == "2"
