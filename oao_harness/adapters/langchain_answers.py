"""What chat models answer, as readable JSON and back: recorded with `invoke` and replayed as a stream, or the reverse.

```text
{"message": {role, content[, name, calls]}[, "extra": {...}]}      one generation
{"generations": [{"message": ...}, ...][, "llm_output": ...]}      several
{"chunks": ["text", {content, calls, ...}, ...]}                   a stream, with its boundaries
{"events": [...]}                                                  a model's native protocol events
{"chunks" | "events": [...], "partial": true}                      a stream that its consumer left before its end
```

`langchain_usual` says how what is in every answer is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, BaseMessageChunk
from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.outputs.chat_generation import merge_chat_generation_chunks
from pydantic import BaseModel

from oao_harness.adapters.langchain_params import usage_or_estimate
from oao_harness.adapters.langchain_usual import (
    full_answer,
    full_chunks,
    marked_partial,
    refuse_partial,
    short_answer,
    short_chunks,
)
from oao_harness.errors import CodecError
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime.gate import Answer
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Json, ModelCall, ProposedCall, Usage

__all__ = ["ChatShape", "EventShape"]

_Node = Mapping[str, Json]
# Fields of a message that are kept beside what a person reads.
_EXTRA: Final = ("id", "additional_kwargs", "response_metadata", "usage_metadata", "invalid_tool_calls")
_CHUNK_EXTRA: Final = ("id", "name", "additional_kwargs", "response_metadata", "usage_metadata", "chunk_position")


class ChatShape:
    """Answers of `_generate` and `_stream`.

    Args:
        call: What was asked; for estimates where the answer reports no tokens.
    """

    __slots__ = ("_call",)

    def __init__(self, call: ModelCall) -> None:
        self._call = call

    def dump(self, value: ChatResult) -> Answer:
        """Return a whole answer as JSON."""
        generations = [_dump_generation(generation) for generation in value.generations]
        node: dict[str, Json] = dict(generations[0]) if len(generations) == 1 else {"generations": generations}
        if value.llm_output:
            node["llm_output"] = encode(value.llm_output)
        if "message" in node:
            node = short_answer(node, self._call.name)
        messages = [generation.message for generation in value.generations]
        usage = usage_or_estimate(self._call, _usage_of(messages, value.llm_output), [_said(m) for m in messages])
        return Answer(value=node, usage=usage, proposed=[call for m in messages for call in _proposed(m)])

    def load(self, value: Json) -> ChatResult:
        """Return the whole answer; chunks are merged as LangChain merges them."""
        node = full_answer(cast("_Node", value), self._call.name)
        refuse_partial(node)
        if "chunks" in node:
            return generate_from_stream(iter(self.load_chunks(value)))
        if "events" in node:
            return ChatResult(generations=[ChatGeneration(message=_message_of_events(node["events"]))])
        generations = cast("Sequence[_Node]", node["generations"]) if "generations" in node else [node]
        return ChatResult(
            generations=[_load_generation(item) for item in generations],
            llm_output=cast("Any", decode(node.get("llm_output"))),
        )

    def load_chunks(self, value: Json) -> Iterable[ChatGenerationChunk]:
        """Yield the chunks; a whole answer is one chunk."""
        node = cast("_Node", value)
        if "chunks" in node:
            for chunk in full_chunks(node):
                yield _load_chunk(chunk)
            refuse_partial(node)
        else:
            yield from (_as_chunk(generation) for generation in self.load(value).generations[:1])

    def snapshot(self, chunk: ChatGenerationChunk) -> Json:
        """Return a chunk as JSON: a text where it is nothing else."""
        return _dump_chunk(chunk)

    def is_last(self, chunk: Any) -> bool:
        """Return False: a stream of chunks is read to its end."""
        del chunk
        return False

    def join(self, snapshots: list[Json], chunks: list[ChatGenerationChunk], *, partial: bool) -> Answer:
        """Return a stream as JSON; one that was closed early is marked, and has its tokens estimated."""
        reported = None
        for snapshot in snapshots:
            extra = snapshot.get("extra") if isinstance(snapshot, Mapping) else None
            if isinstance(extra, Mapping) and "usage_metadata" in extra:
                reported = add_usage(reported, cast("Any", extra["usage_metadata"]))
        found = read_usage(reported) if reported is not None else _last_usage(snapshots)
        said: list[Json] = [
            [snapshot.get("content"), snapshot.get("calls")] if isinstance(snapshot, Mapping) else snapshot
            for snapshot in snapshots
        ]
        proposed: Sequence[ProposedCall] = ()
        if any(getattr(chunk.message, "tool_call_chunks", None) for chunk in chunks):
            merged = merge_chat_generation_chunks(chunks)
            proposed = _proposed(merged.message) if merged is not None else ()
        usage = usage_or_estimate(self._call, found, said)
        return Answer(value=marked_partial(short_chunks(snapshots), partial), usage=usage, proposed=proposed)


class EventShape(ChatShape):
    """Answers of `_stream_chat_model_events`, which speaks LangChain's event protocol by itself."""

    __slots__ = ()

    def load_chunks(self, value: Json) -> Iterable[Any]:
        """Yield the events; an answer that was recorded otherwise is turned into events."""
        from langchain_core.language_models._compat_bridge import (  # noqa: PLC0415 - not in every version
            chunks_to_events,
            message_to_events,
        )

        node = cast("_Node", value)
        if "events" in node:
            yield from cast("list[Any]", decode(node["events"]))
            refuse_partial(node)
        elif "chunks" in node:
            yield from chunks_to_events(iter(super().load_chunks(value)))
        else:
            yield from message_to_events(self.load(value).generations[0].message)

    def snapshot(self, chunk: Any) -> Json:
        """Return an event as JSON."""
        return encode(chunk)

    def is_last(self, chunk: Any) -> bool:
        """Return True for the event after which LangChain stops to listen."""
        return isinstance(chunk, Mapping) and cast("_Node", chunk).get("event") == "message-finish"

    def join(self, snapshots: list[Json], chunks: list[Any], *, partial: bool) -> Answer:
        """Return the events as JSON."""
        del chunks
        message = _message_of_events(snapshots)
        usage = usage_or_estimate(self._call, _usage_of([message], None), [_said(message)])
        value = marked_partial({"events": snapshots}, partial)
        return Answer(value=value, usage=usage, proposed=_proposed(message))


def _usage_of(messages: Sequence[BaseMessage], llm_output: Mapping[str, Any] | None) -> Usage | None:
    """Return the tokens of an answer; with several generations providers repeat the total in each of them."""
    if len(messages) != 1 and llm_output and (total := read_usage(llm_output)) is not None:
        return total
    found = [usage for message in messages if (usage := read_usage(vars(message))) is not None]
    if not found:
        return read_usage(llm_output) if llm_output else None
    if all(usage == found[0] for usage in found):
        return found[0]
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in found),
        output_tokens=sum(usage.output_tokens for usage in found),
    )


def _last_usage(snapshots: Sequence[Json]) -> Usage | None:
    for snapshot in reversed(snapshots):
        extra = snapshot.get("extra") if isinstance(snapshot, Mapping) else None
        if isinstance(extra, Mapping):
            for holder in ("response_metadata", "generation_info", "additional_kwargs"):
                if (usage := read_usage(extra.get(holder) or {})) is not None:
                    return usage
    return None


def _proposed(message: BaseMessage) -> Sequence[ProposedCall]:
    return [
        ProposedCall(name=call["name"], arguments=cast("_Node", encode(call["args"])), call_id=call["id"])
        for call in getattr(message, "tool_calls", ())
    ]


def _said(message: BaseMessage) -> Json:
    calls = [[call["name"], encode(call["args"])] for call in getattr(message, "tool_calls", ())]
    return [encode(message.content), *calls]


def _dump_generation(generation: ChatGeneration) -> _Node:
    message = generation.message
    extra: dict[str, Json] = {}
    if generation.generation_info:
        extra["generation_info"] = encode(generation.generation_info)
    if type(message) is not AIMessage:
        # A message class of its own: the codec's registry knows it.
        node: dict[str, Json] = {"message": encode(message)}
    else:
        shown: dict[str, Json] = {"role": "assistant", "content": encode(message.content)}
        if message.name:
            shown["name"] = message.name
        if message.tool_calls:
            shown["calls"] = [
                {"id": call["id"], "name": call["name"], "args": encode(call["args"])} for call in message.tool_calls
            ]
        extra.update({name: encode(item) for name in _EXTRA if (item := getattr(message, name))})
        parsed = message.additional_kwargs.get("parsed")
        if isinstance(parsed, BaseModel) and "<locals>" in type(parsed).__qualname__:
            # No other process can find its class; langchain-openai makes one of a dict again.
            extra["additional_kwargs"] = {
                **cast("_Node", extra["additional_kwargs"]),
                "parsed": encode(parsed.model_dump()),
            }
        extra.update({name: encode(item) for name, item in (message.__pydantic_extra__ or {}).items()})
        node = {"message": shown}
    if extra:
        node["extra"] = extra
    return node


def _load_generation(node: _Node) -> ChatGeneration:
    shown = cast("_Node", node["message"])
    extra = cast("dict[str, Any]", decode(node.get("extra") or {}))
    info = extra.pop("generation_info", None)
    if "role" not in shown:
        return ChatGeneration(message=cast("BaseMessage", decode(shown)), generation_info=info)
    calls = [
        {"name": call["name"], "args": decode(call["args"]), "id": call["id"], "type": "tool_call"}
        for call in cast("Sequence[_Node]", shown.get("calls") or ())
    ]
    message = AIMessage(
        content=cast("Any", decode(shown["content"])),
        name=cast("str | None", shown.get("name")),
        tool_calls=cast("Any", calls),
        **extra,
    )
    return ChatGeneration(message=message, generation_info=info)


def _dump_chunk(chunk: ChatGenerationChunk) -> Json:
    message = chunk.message
    extra: dict[str, Json] = {}
    if chunk.generation_info:
        extra["generation_info"] = encode(chunk.generation_info)
    if type(message) is not AIMessageChunk:
        node: dict[str, Json] = {"message": encode(message)}
    else:
        node = {"content": encode(message.content)}
        if message.tool_call_chunks:
            node["calls"] = [
                {name: call[name] for name in ("index", "id", "name", "args") if call[name] is not None}
                for call in message.tool_call_chunks
            ]
        extra.update({name: encode(item) for name in _CHUNK_EXTRA if (item := getattr(message, name, None))})
        extra.update({name: encode(item) for name, item in (message.__pydantic_extra__ or {}).items()})
        if not message.tool_call_chunks and message.tool_calls:
            extra["tool_calls"] = encode(message.tool_calls)
        if not extra and len(node) == 1 and isinstance(message.content, str):
            return message.content
    if extra:
        node["extra"] = extra
    return node


def _load_chunk(node: Json) -> ChatGenerationChunk:
    if isinstance(node, str):
        return ChatGenerationChunk(message=AIMessageChunk(content=node))
    chunk = cast("_Node", node)
    extra = cast("dict[str, Any]", decode(chunk.get("extra") or {}))
    info = extra.pop("generation_info", None)
    if "message" in chunk:
        return ChatGenerationChunk(message=cast("BaseMessageChunk", decode(chunk["message"])), generation_info=info)
    calls = [
        {**dict.fromkeys(("name", "args", "id", "index")), **call, "type": "tool_call_chunk"}
        for call in cast("Sequence[_Node]", chunk.get("calls") or ())
    ]
    message = AIMessageChunk(
        content=cast("Any", decode(chunk["content"])), tool_call_chunks=cast("Any", calls), **extra
    )
    return ChatGenerationChunk(message=message, generation_info=info)


def _as_chunk(generation: ChatGeneration) -> ChatGenerationChunk:
    message = generation.message
    if not isinstance(message, AIMessage):
        raise CodecError(
            f"a {type(message).__name__} was recorded as a whole answer and cannot be streamed; "
            "replay it the way it was recorded, or record again"
        )
    calls = [
        {
            "name": call["name"],
            "args": json.dumps(call["args"]),
            "id": call["id"],
            "index": i,
            "type": "tool_call_chunk",
        }
        for i, call in enumerate(message.tool_calls)
    ]
    invalid = [
        {"name": call["name"], "args": call["args"], "id": call["id"], "index": i, "type": "tool_call_chunk"}
        for i, call in enumerate(message.invalid_tool_calls, len(calls))
    ]
    chunk = AIMessageChunk(
        content=message.content,
        name=message.name,
        id=message.id,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        tool_call_chunks=cast("Any", calls + invalid),
    )
    return ChatGenerationChunk(message=chunk, generation_info=generation.generation_info)


def _message_of_events(events: Json) -> BaseMessage:
    from langchain_core.language_models.chat_model_stream import ChatModelStream  # noqa: PLC0415 - not in every version

    stream = ChatModelStream()
    for event in cast("list[Any]", decode(events)):
        stream.dispatch(event)
    return stream.output_message or AIMessage(content="")
