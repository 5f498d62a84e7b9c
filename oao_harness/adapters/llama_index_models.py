"""Requests of LlamaIndex's LLMs as model calls: what is asked, what is answered, whole and as a stream."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, TextBlock, ToolCallBlock

from oao_harness.adapters.families import Wrapped
from oao_harness.adapters.framework_models import AnswerShape, Said, arguments_of, asked_once, model_request, plain
from oao_harness.adapters.patching import Arguments, Kind, Request
from oao_harness.journal.codec import decode, encode, holds_opaque
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Json, ModelCall, ProposedCall, Usage

__all__ = ["LEAVES"]

# Settings of a model that its provider is sent, as most of them are called.
_SETTINGS: Final = (
    "additional_kwargs",
    "max_tokens",
    "modalities",
    "reasoning_effort",
    "reasoning_options",
    "stop",
    "temperature",
    "top_k",
    "top_p",
)
_Response = ChatResponse | CompletionResponse


# What is asked


def _prepare_chat(model: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    (*positional,), named = arguments
    messages = positional[0] if positional else named["messages"]
    asked = [cast("Mapping[str, Json]", plain(_plain_message(message))) for message in messages]
    return _request(model, arguments, asked, {key: value for key, value in named.items() if key != "messages"})


def _prepare_complete(model: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    (*positional,), named = arguments
    prompt = positional[0] if positional else named["prompt"]
    asked: list[Mapping[str, Json]] = [{"role": "user", "content": str(prompt)}]
    return _request(
        model, arguments, asked, {key: value for key, value in named.items() if key not in {"formatted", "prompt"}}
    )


def _request(
    model: Any, arguments: Arguments, messages: Sequence[Mapping[str, Json]], named: Mapping[str, Any]
) -> Request:
    tools = named.get("tools") or ()
    settings = {name: found for name in _SETTINGS if (found := getattr(model, name, None)) not in (None, {}, [])}
    params = {**settings, **{key: value for key, value in named.items() if key != "tools"}}
    call = ModelCall(
        name=str(getattr(model, "model", None) or model.metadata.model_name),
        messages=messages,
        tools=[cast("Mapping[str, Json]", plain(tool)) for tool in tools],
        params=dict(sorted(cast("dict[str, Json]", plain(params)).items())),
    )
    return model_request(call, _Shape(call), model, arguments, name_field="model")


def _plain_message(message: ChatMessage) -> Mapping[str, object]:
    if len(message.blocks) == 1 and isinstance(message.blocks[0], TextBlock):
        said: object = message.blocks[0].text
    else:
        said = [plain(block) for block in message.blocks]
    return {"role": message.role.value, "content": said, **message.additional_kwargs}


# What is answered


class _Shape(AnswerShape):
    """Answers of an LLM. Each piece of a stream repeats all of the text so far, which is not journaled each time."""

    __slots__ = ("_text",)

    def __init__(self, call: ModelCall) -> None:
        super().__init__(call, _read, dump=_dump, load=_load, merge=_merged, split=_split)
        self._text = ""

    def snapshot(self, chunk: Any) -> Json:
        """Return a piece as JSON: what it adds, where it only adds text."""
        before, self._text = self._text, _text(chunk)
        added = chunk.delta or ""
        if self._text != before + added or not _is_text(chunk):
            return _dump(chunk)
        bare: dict[str, object] = {"delta": None, "raw": None, "text": ""}
        if isinstance(chunk, ChatResponse):
            bare = {"delta": None, "raw": None, "message": ChatMessage(role=chunk.message.role, blocks=[])}
        rest = _dump(type(chunk).model_construct(**{**_fields(chunk), **bare}))
        return {"added": added, "was": chunk.delta is not None, "raw": _readable(chunk.raw), "to": rest}

    def load_chunks(self, value: Json) -> Iterable[Any]:
        """Yield the pieces, each with all of the text so far."""
        text = ""
        for chunk in super().load_chunks(value):
            if isinstance(chunk, _Added):
                text += chunk.text
                yield chunk.onto(text)
            else:
                text = _text(chunk)
                yield chunk

    def load(self, value: Json) -> Any:
        """Return the whole answer, which is the last piece of a stream."""
        if "answer" in cast("Mapping[str, Json]", value):
            return super().load(value)
        return _merged(list(self.load_chunks(value)))


class _Added:
    """A piece as it was journaled: what it adds."""

    def __init__(self, node: Mapping[str, Any]) -> None:
        self.text: str = node["added"]
        self._delta = self.text if node["was"] else None
        self._raw, self._to = decode(node["raw"]), _load(node["to"])

    def onto(self, text: str) -> Any:
        """Return the piece with all of the text so far."""
        self._to.delta, self._to.raw = self._delta, self._raw
        if isinstance(self._to, ChatResponse):
            self._to.message.blocks = [TextBlock(text=text)]
        else:
            self._to.text = text
        return self._to


def _fields(response: Any) -> dict[str, Any]:
    return {name: getattr(response, name) for name in type(response).model_fields}


def _text(response: Any) -> str:
    if isinstance(response, CompletionResponse):
        return str(response.text)
    return "".join(block.text for block in response.message.blocks if isinstance(block, TextBlock))


def _is_text(response: Any) -> bool:
    if isinstance(response, CompletionResponse):
        return True
    message = response.message
    return len(message.blocks) == 1 and isinstance(message.blocks[0], TextBlock) and not message.additional_kwargs


def _dump(response: Any) -> Json:
    return encode(type(response).model_construct(**{**_fields(response), "raw": decode(_readable(response.raw))}))


def _readable(raw: object) -> Json:
    """Return the provider's own answer as JSON; None where it is something that only its client can make."""
    found = encode(raw)
    return None if holds_opaque(found) is not None else found


def _load(node: Json) -> Any:
    if isinstance(node, Mapping) and "added" in node:
        return _Added(node)
    return decode(node)


def _merged(chunks: list[Any]) -> Any:
    return chunks[-1].model_copy(update={"delta": None})


def _split(response: Any) -> Iterable[Any]:
    yield response.model_copy(update={"delta": _text(response)})


def _read(values: Sequence[Any]) -> Said:
    """Read a whole answer, or the last piece of a stream: it holds all of the answer."""
    last = values[-1] if values else None
    if last is None:
        return Said(usage=None)
    usages = (_usage(value) for value in reversed(values))
    return Said(
        usage=next((usage for usage in usages if usage is not None), None),
        texts=[_text(last)],
        proposed=_proposed(last),
    )


def _usage(response: Any) -> Usage | None:
    return read_usage(response.additional_kwargs) or read_usage(response.raw)


def _proposed(response: Any) -> list[ProposedCall]:
    message = getattr(response, "message", None)
    if message is None:
        return []
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if calls:
        return [
            ProposedCall(name=call.tool_name, arguments=arguments_of(call.tool_kwargs), call_id=call.tool_call_id)
            for call in calls
        ]
    found = message.additional_kwargs.get("tool_calls") or ()
    functions = [(getattr(call, "function", None), getattr(call, "id", None)) for call in found]
    return [
        ProposedCall(name=function.name, arguments=arguments_of(function.arguments), call_id=call_id)
        for function, call_id in functions
        if function is not None
    ]


# The leaves


def _astream(prepare: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what wraps a coroutine function that returns a stream."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        async def pieces(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async for piece in await function(self, *args, **kwargs):
                yield piece

        governed = asked_once(pieces, "astream", prepare)

        @functools.wraps(function)
        async def astream(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            return cast("AsyncIterator[Any]", governed(self, *args, **kwargs))

        return astream

    return wrap


def _leaf(name: str, kind: Kind, prepare: Any) -> Wrapped:
    if kind == "astream":
        return Wrapped(name=name, wrap=_astream(prepare))
    return Wrapped(name=name, wrap=functools.partial(asked_once, kind=kind, prepare=prepare))


_WAYS: Final[tuple[tuple[str, Kind], ...]] = (
    ("", "sync"),
    ("a", "async"),
    ("stream_", "stream"),
    ("astream_", "astream"),
)
LEAVES: Final = tuple(
    _leaf(f"{prefix}{what}", kind, prepare)
    for what, prepare in (("chat", _prepare_chat), ("complete", _prepare_complete))
    for prefix, kind in _WAYS
)
"""The methods by which an LLM is asked."""
