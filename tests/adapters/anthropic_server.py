"""A scripted model server that speaks Anthropic's Messages, on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pytest_oao.testing.http_server import Answer, Request, error_answer, json_answer
from pytest_oao.testing.openai_wire import error_reply_answer
from pytest_oao.testing.replies import ErrorReply, Reply, TextReply, ToolCallReply
from pytest_oao.testing.script import words
from pytest_oao.testing.scripted_server import ScriptedServer


class AnthropicServer(ScriptedServer):
    """Replies from a script, plain or streamed.

    Without one it says `hello world`, and counts 10 tokens in, 3 more from its cache, and 5 out.
    """

    def __init__(self, replies: Iterable[Reply | str] | None = None) -> None:
        if replies is None:
            super().__init__(respond=lambda _body: "hello world")
        else:
            super().__init__(replies=replies)
        self._cached = 3 if replies is None else 0

    @property
    def url(self) -> str:
        return self._root_url()

    def _answer(self, request: Request) -> Answer:
        if request.path != "/v1/messages":
            return error_answer(f"{request.path} is not served", status=404)
        return self._scripted(request)

    def _error(self, reply: ErrorReply) -> Answer:
        return error_reply_answer(reply)

    def _wire(self, body: Mapping[str, Any], path: str, reply: TextReply | ToolCallReply, number: int) -> Answer:
        usage = {
            "input_tokens": reply.input_tokens, "cache_read_input_tokens": self._cached,
            "cache_creation_input_tokens": 0, "output_tokens": reply.output_tokens,
        }  # fmt: skip
        blocks = list(_blocks(reply, number))
        stop = "tool_use" if isinstance(reply, ToolCallReply) else "end_turn"
        message = {
            "id": f"msg_{number}", "type": "message", "role": "assistant", "model": body["model"], "stop_reason": stop,
            "stop_sequence": None, "content": blocks, "usage": usage,
        }  # fmt: skip
        if not body.get("stream"):
            return json_answer(message)
        events = [
            {"type": "message_start", "message": {**message, "content": [], "usage": {**usage, "output_tokens": 1}}},
            *(event for index, block in enumerate(blocks) for event in _events(index, block)),
            {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": reply.output_tokens}},
            {"type": "message_stop"},
        ]
        chunks = tuple(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
        return Answer(headers=(("content-type", "text/event-stream"),), chunks=chunks)


def _blocks(reply: TextReply | ToolCallReply, number: int) -> Iterator[dict[str, Any]]:
    if reply.text:
        yield {"type": "text", "text": reply.text}
    for place, call in enumerate(reply.calls if isinstance(reply, ToolCallReply) else (), start=1):
        assert not isinstance(call.arguments, str)
        yield {"type": "tool_use", "id": f"toolu_{number}_{place}", "name": call.name, "input": dict(call.arguments)}


def _events(index: int, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        empty = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": word} for word in words(block["text"])]
    else:
        empty = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    yield {"type": "content_block_start", "index": index, "content_block": empty}
    yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
    yield {"type": "content_block_stop", "index": index}
