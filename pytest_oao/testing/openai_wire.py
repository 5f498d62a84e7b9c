"""How a scripted reply looks on OpenAI's wire: chat completions and responses, JSON and server-sent events.

It must hold no state: the number of the request, which makes the ids, is handed in.

Source:
    OpenAI API reference, "Chat" and "Responses", objects and streaming events.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias, cast

from pytest_oao.testing.http_server import Answer, json_answer
from pytest_oao.testing.replies import ErrorReply, TextReply, ToolCall, ToolCallReply
from pytest_oao.testing.script import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["chat_answer", "error_reply_answer", "models_answer", "responses_answer"]

_ModelReply: TypeAlias = TextReply | ToolCallReply
_Object: TypeAlias = dict[str, object]

# A fixed moment: two runs of the same script get the same bytes.
_CREATED = 1_700_000_000


def chat_answer(body: Mapping[str, object], reply: _ModelReply, *, number: int) -> Answer:
    """Return the answer of `/v1/chat/completions`: one choice, whatever `n` asks for."""
    base = {"id": f"chatcmpl-{number}", "created": _CREATED, "model": body.get("model")}
    finish = "tool_calls" if _calls(reply) else "stop"
    if body.get("stream"):
        options = body.get("stream_options")
        with_usage = isinstance(options, dict) and bool(cast("_Object", options).get("include_usage"))
        return _stream(reply, _chat_chunks(base, reply, finish, number=number, with_usage=with_usage))
    message: _Object = {
        "role": "assistant",
        "content": reply.text or None,
        "refusal": None,
        "annotations": [],
    }
    if isinstance(reply, TextReply):
        message["content"] = reply.text
    else:
        message["tool_calls"] = [
            {
                "id": call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call)},
            }
            for call_id, call in _numbered(reply, number)
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    completion = {**base, "object": "chat.completion", "choices": [choice], "usage": _chat_usage(reply)}
    return json_answer(completion, delay_s=reply.delay_s)


def responses_answer(body: Mapping[str, object], reply: _ModelReply, *, number: int) -> Answer:
    """Return the answer of `/v1/responses`: a message item for the text, a function_call item per call."""
    output = list(_output_items(reply, number))
    response: _Object = {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": _CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "model": body.get("model"),
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": reply.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": reply.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.input_tokens + reply.output_tokens,
        },
    }
    if not body.get("stream"):
        return json_answer(response, delay_s=reply.delay_s)
    events = enumerate(_response_events(response, output))
    return _stream(reply, (_named_event({**event, "sequence_number": place}) for place, event in events))


def error_reply_answer(reply: ErrorReply) -> Answer:
    """Return the scripted error in the API's shape."""
    kind = "server_error" if reply.status >= 500 else "invalid_request_error"
    error = {"message": reply.message, "type": kind, "param": None, "code": reply.code}
    retry_after = () if reply.retry_after_s is None else (("retry-after", f"{reply.retry_after_s:g}"),)
    return json_answer({"error": error}, status=reply.status, headers=retry_after, delay_s=reply.delay_s)


def models_answer() -> Answer:
    """Return the answer of `/v1/models`: one model; requests may name any other."""
    model = {"id": "scripted", "object": "model", "created": _CREATED, "owned_by": "oao"}
    return json_answer({"object": "list", "data": [model]})


def _chat_chunks(base: _Object, reply: _ModelReply, finish: str, *, number: int, with_usage: bool) -> Iterator[bytes]:
    head: _Object = {**base, "object": "chat.completion.chunk"}
    if with_usage:
        head["usage"] = None

    def chunk(delta: _Object, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": "" if reply.text else None})
    for word in words(reply.text):
        yield chunk({"content": word})
    for index, (call_id, call) in enumerate(_numbered(reply, number)):
        function = {"name": call.name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]})
        for part in _halves(_arguments(call)):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield chunk({}, finish)
    if with_usage:
        yield _event({**head, "choices": [], "usage": _chat_usage(reply)})
    yield b"data: [DONE]\n\n"


def _response_events(response: _Object, output: list[_Object]) -> Iterator[_Object]:
    unfinished: _Object = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": unfinished}
    yield {"type": "response.in_progress", "response": unfinished}
    for index, item in enumerate(output):
        place = {"item_id": item["id"], "output_index": index}
        added: _Object = {**item, "status": "in_progress"}
        if item["type"] == "message":
            added["content"] = []
            parts = _message_events(item, place)
        else:
            added["arguments"] = ""
            parts = _call_events(item, place)
        yield {"type": "response.output_item.added", "output_index": index, "item": added}
        yield from parts
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": response}


def _message_events(item: _Object, place: _Object) -> Iterator[_Object]:
    (part,) = cast("list[_Object]", item["content"])
    text = cast("str", part["text"])
    place = {**place, "content_index": 0}
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    for word in words(text):
        yield {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}


def _call_events(item: _Object, place: _Object) -> Iterator[_Object]:
    arguments = cast("str", item["arguments"])
    for part in _halves(arguments):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": part}
    done = {"name": item["name"], "arguments": arguments}
    yield {"type": "response.function_call_arguments.done", **place, **done}


def _output_items(reply: _ModelReply, number: int) -> Iterator[_Object]:
    if reply.text or isinstance(reply, TextReply):
        part: _Object = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
        message: _Object = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
        yield {"id": f"msg_{number}", **message}
    for call_id, call in _numbered(reply, number):
        function = {"type": "function_call", "name": call.name, "arguments": _arguments(call)}
        yield {"id": f"fc_{call_id}", "call_id": call_id, "status": "completed", **function}


def _chat_usage(reply: _ModelReply) -> _Object:
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": 0,
            "reasoning_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _stream(reply: _ModelReply, chunks: Iterable[bytes]) -> Answer:
    return Answer(
        headers=(("content-type", "text/event-stream; charset=utf-8"),),
        chunks=tuple(chunks),
        delay_s=reply.delay_s,
        chunk_delay_s=reply.chunk_delay_s,
    )


def _event(payload: _Object) -> bytes:
    return f"data: {json.dumps(payload)}\n\n".encode()


def _named_event(payload: _Object) -> bytes:
    return f"event: {payload['type']}\n".encode() + _event(payload)


def _calls(reply: _ModelReply) -> tuple[ToolCall, ...]:
    return reply.calls if isinstance(reply, ToolCallReply) else ()


def _numbered(reply: _ModelReply, number: int) -> Iterator[tuple[str, ToolCall]]:
    for place, call in enumerate(_calls(reply), start=1):
        yield f"call_{number}_{place}", call


def _arguments(call: ToolCall) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(dict(call.arguments))


def _halves(text: str) -> tuple[str, str]:
    # Two parts, because a client that does not join the deltas must fail.
    middle = len(text) // 2
    return text[:middle], text[middle:]
