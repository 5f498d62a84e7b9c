"""A scripted model server that speaks Anthropic's Messages, on loopback."""

from __future__ import annotations

import json
from typing import Any

from pytest_oao.testing.http_server import Answer, LoopbackServer, Request, error_answer, json_answer


class AnthropicServer(LoopbackServer):
    """Says `hello world`, plain or streamed, and counts 10 tokens in, 3 from its cache, and 5 out."""

    @property
    def url(self) -> str:
        return self._root_url()

    def _answer(self, request: Request) -> Answer:
        body: Any = request.json_object()
        if request.path != "/v1/messages" or body is None:
            return error_answer(f"{request.path} is not served", status=404)
        with self._lock:
            self._record(body)
        usage = {"input_tokens": 10, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 0, "output_tokens": 5}
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn",
            "stop_sequence": None, "content": [{"type": "text", "text": "hello world"}], "usage": usage,
        }  # fmt: skip
        if not body.get("stream"):
            return json_answer(message)
        block = {"type": "text", "text": ""}
        events = [
            {"type": "message_start", "message": {**message, "content": [], "usage": {**usage, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello "}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "world"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ]
        chunks = tuple(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
        return Answer(headers=(("content-type", "text/event-stream"),), chunks=chunks)
