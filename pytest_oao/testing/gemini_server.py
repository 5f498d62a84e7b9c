"""A scripted model server on loopback that speaks Gemini's protocol, for real clients over real HTTP.

Source:
    Gemini API reference, "Generating content": `models.generateContent` and `models.streamGenerateContent`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pytest_oao.testing.http_server import Answer, Request, error_answer, json_answer
from pytest_oao.testing.replies import ErrorReply, TextReply, ToolCallReply
from pytest_oao.testing.script import words
from pytest_oao.testing.scripted_server import ScriptedServer

__all__ = ["GeminiServer"]

_PATH: Final = re.compile(
    r"/v1(?:beta|alpha)?/models/(?P<model>[^/:]+):(?P<method>generateContent|streamGenerateContent)"
)
_STATUS: Final = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}


class GeminiServer(ScriptedServer):
    """Serve `models/*:generateContent` and `models/*:streamGenerateContent` from a script.

    The n-th request gets the response id `resp-n`; calls of tools have no ids, as those of most models.
    When the script has run out, or `respond` raises, the answer is an HTTP 500.

    Example:
        ```python
        with GeminiServer(replies=["hello"]) as server:
            client = genai.Client(api_key="any", http_options={"base_url": server.url})
            assert client.models.generate_content(model="any", contents="hi").text == "hello"
        ```

    Args:
        replies: Served in order; a str is short for a `TextReply`.
        respond: Makes each reply instead, for concurrent requests, whose order is not fixed.

    Raises:
        TypeError: A reply is neither a `Reply` nor a str.
        ValueError: Both `replies` and `respond` are given, or neither.
    """

    @property
    def url(self) -> str:
        """The base URL for a client; the same while stopped.

        Raises:
            RuntimeError: The server was never started.
        """
        return self._root_url()

    def _answer(self, request: Request) -> Answer:
        if request.method == "POST" and _PATH.fullmatch(request.path):
            return self._scripted(request)
        message = f"{request.method} {request.path} is not served; see GeminiServer for what is"
        return error_answer(message, status=404)

    def _wire(self, body: Mapping[str, object], path: str, reply: TextReply | ToolCallReply, number: int) -> Answer:
        found = _PATH.fullmatch(path)
        assert found is not None  # noqa: S101 - `_answer` has looked
        head = {"modelVersion": found["model"], "responseId": f"resp-{number}"}
        if found["method"] == "generateContent":
            whole = {**head, **_candidate([*_texts([reply.text]), *_calls(reply)], is_last=True), **_usage(reply)}
            return json_answer(whole, delay_s=reply.delay_s)
        calls = list(_calls(reply))
        parts = [[text] for text in _texts(words(reply.text))] + ([calls] if calls else [])
        chunks = [{**head, **_candidate(one, is_last=False), **_usage(reply)} for one in parts]
        chunks.append({**head, **_candidate([{"text": ""}], is_last=True), **_usage(reply)})
        return Answer(
            headers=(("content-type", "text/event-stream"),),
            chunks=tuple(f"data: {json.dumps(chunk)}\r\n\r\n".encode() for chunk in chunks),
            delay_s=reply.delay_s,
            chunk_delay_s=reply.chunk_delay_s,
        )

    def _error(self, reply: ErrorReply) -> Answer:
        status = reply.code or _STATUS.get(reply.status, "RESOURCE_EXHAUSTED" if reply.status == 429 else "INTERNAL")
        error = {"code": reply.status, "message": reply.message, "status": status}
        retry_after = () if reply.retry_after_s is None else (("retry-after", f"{reply.retry_after_s:g}"),)
        return json_answer({"error": error}, status=reply.status, headers=retry_after, delay_s=reply.delay_s)


def _candidate(parts: list[dict[str, object]], *, is_last: bool) -> dict[str, object]:
    candidate: dict[str, object] = {"content": {"role": "model", "parts": parts}, "index": 0}
    return {"candidates": [{**candidate, "finishReason": "STOP"} if is_last else candidate]}


def _texts(texts: Iterable[str]) -> Iterator[dict[str, object]]:
    for text in texts:
        if text:
            yield {"text": text}


def _calls(reply: TextReply | ToolCallReply) -> Iterator[dict[str, object]]:
    for call in reply.calls if isinstance(reply, ToolCallReply) else ():
        arguments = json.loads(call.arguments) if isinstance(call.arguments, str) else dict(call.arguments)
        yield {"functionCall": {"name": call.name, "args": arguments}}


def _usage(reply: TextReply | ToolCallReply) -> dict[str, object]:
    return {
        "usageMetadata": {
            "promptTokenCount": reply.input_tokens,
            "candidatesTokenCount": reply.output_tokens,
            "totalTokenCount": reply.input_tokens + reply.output_tokens,
        }
    }
