"""Requests of Pydantic AI's models as model calls: what is asked, what is answered, whole and as a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, cast

from pydantic import TypeAdapter
from pydantic_ai.embeddings import EmbeddingResult
from pydantic_ai.messages import FinalResultEvent, ModelMessagesTypeAdapter, ModelResponse, ModelResponseStreamEvent
from pydantic_ai.models import CompletedStreamedResponse, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import merge_model_settings

from oao_harness.adapters.framework_models import AnswerShape, Said, arguments_of, model_request, plain
from oao_harness.adapters.patching import Arguments, Request, govern, set_method
from oao_harness.runtime.context import is_possible
from oao_harness.runtime.outside import governed_model_call
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Json, ModelCall, ProposedCall

__all__ = ["prepare_compaction", "prepare_embedding", "prepare_request", "streamed"]

_PARAMETERS: Final = ("messages", "model_settings", "model_request_parameters", "run_context")
_ROLES: Final = {"system-prompt": "system", "tool-return": "tool"}
# What a message says about itself and no provider is sent, or what is made anew by each process.
_NO_PART: Final = frozenset({"metadata", "part_kind", "provider_details", "timestamp"})
# What of the settings says nothing about the answer.
_NO_SETTINGS: Final = frozenset({"extra_headers", "first_event_timeout", "request_timeout", "timeout"})
_EVENT: Final[TypeAdapter[Any]] = TypeAdapter(ModelResponseStreamEvent)
_EMBEDDED: Final = TypeAdapter(EmbeddingResult)


# What is asked


def prepare_request(model: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    """Return `Model.request`, or `Model.request_stream`, as a model call."""
    positional, named = arguments
    given: dict[str, Any] = {**dict(zip(_PARAMETERS, positional, strict=False)), **named}
    asked = given["model_request_parameters"]
    return _request(model, arguments, messages=given["messages"], settings=given["model_settings"], asked=asked)


def prepare_compaction(
    model: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None
) -> Request:
    """Return `Model.compact_messages` as a model call."""
    positional, named = arguments
    context = positional[0] if positional else named["request_context"]
    more: dict[str, Json] = {"compact": named.get("instructions") or True}
    settings, asked = context.model_settings, context.model_request_parameters
    return _request(model, arguments, messages=context.messages, settings=settings, asked=asked, more=more)


def _request(
    model: Any,
    arguments: Arguments,
    *,
    messages: Sequence[Any],
    settings: Any,
    asked: ModelRequestParameters,
    more: Mapping[str, Json] = MappingProxyType({}),
) -> Request:
    call = ModelCall(
        name=str(model.model_name),
        messages=[*_instructions(messages, asked), *(said for message in messages for said in _described(message))],
        tools=[*map(_tool, asked.function_tools), *map(_tool, asked.output_tools), *_native(asked)],
        params=_params(merge_model_settings(model.settings, settings), asked, more),
    )
    hidden = {tool.name for tool in asked.output_tools}
    shape = AnswerShape(
        call,
        lambda values: _read(values, hidden),
        dump=_dump,
        load=_load,
        is_last=lambda chunk: isinstance(chunk, ModelResponse),
        merge=lambda chunks: chunks[-1],
        split=lambda response: (_Opened(None, response), response),
    )
    return model_request(call, shape, model, arguments, name_field="_model_name")


def _instructions(messages: Sequence[Any], asked: ModelRequestParameters) -> list[Mapping[str, Json]]:
    texts = [part.content for part in asked.instruction_parts or ()]
    if asked.instruction_parts is None:
        found = (message.instructions for message in reversed(messages) if message.kind == "request")
        texts = [text for text in found if text][:1]
    return [{"role": "system", "content": "\n\n".join(texts)}] if texts else []


def _described(message: Any) -> list[Mapping[str, Json]]:
    parts = [_part(part) for part in _nodes(message)["parts"]]
    if message.kind == "response":
        return [{"role": "assistant", "parts": [{"kind": kind, **part} for kind, part in parts]}]
    return [{"role": _ROLES.get(kind, "user"), **part} for kind, part in parts]


def _nodes(message: Any) -> dict[str, Any]:
    dumped: list[dict[str, Any]] = ModelMessagesTypeAdapter.dump_python([message], mode="json", warnings=False)
    return dumped[0]


def _part(node: Mapping[str, Json]) -> tuple[str, dict[str, Json]]:
    found = plain({key: value for key, value in node.items() if key not in _NO_PART})
    return str(node["part_kind"]), cast("dict[str, Json]", _timeless(found))


def _timeless(value: Json) -> Json:
    """Return what a part says without when it said so: parts of parts, such as files, have times too."""
    if isinstance(value, Mapping):
        return {key: _timeless(item) for key, item in value.items() if key != "timestamp"}
    return [_timeless(item) for item in value] if isinstance(value, list | tuple) else value


def _tool(tool: Any) -> Mapping[str, Json]:
    return {"name": tool.name, "description": tool.description, "parameters": plain(tool.parameters_json_schema)}


def _native(asked: ModelRequestParameters) -> list[Mapping[str, Json]]:
    found = [{"type": tool.kind, **vars(tool)} for tool in asked.native_tools]
    return [cast("Mapping[str, Json]", plain(tool)) for tool in found]


def _params(settings: Any, asked: ModelRequestParameters, more: Mapping[str, Json]) -> dict[str, Json]:
    chosen: dict[str, object] = {**(settings or {}), **more}
    found = cast("dict[str, Json]", plain(chosen))
    params = {key: value for key, value in found.items() if key not in _NO_SETTINGS}
    if asked.output_object is not None and asked.output_mode != "tool":
        params["output_schema"] = plain(asked.output_object.json_schema)
    return dict(sorted(params.items()))


# What is answered


@dataclass(frozen=True, slots=True)
class _Opened:
    """The first piece of a stream: the provider has begun to answer."""

    live: StreamedResponse | None
    """None in a replay."""
    head: ModelResponse
    """Who answers; it says nothing yet."""


def _dump(value: Any) -> Json:
    if isinstance(value, _Opened):
        return {"opened": _dump(value.head)}
    if isinstance(value, ModelResponse):
        return _nodes(value)
    return cast("Json", _EVENT.dump_python(value, mode="json", warnings=False))


def _load(value: Json) -> Any:
    node = cast("dict[str, Any]", value)
    if "opened" in node:
        return _Opened(None, _load(node["opened"]))
    if "event_kind" in node:
        return _EVENT.validate_python(node)
    return ModelMessagesTypeAdapter.validate_python([node])[0]


def _read(values: Sequence[Any], hidden: set[str]) -> Said:
    """Read a whole answer, or the last piece of a stream: it is all of the answer.

    Args:
        values: One answer, or the pieces.
        hidden: Tools by which the model only says its final answer; nobody runs those.
    """
    last = values[-1] if values else None
    if not isinstance(last, ModelResponse):
        return Said(usage=None, texts=[_dump(value) for value in values if not isinstance(value, _Opened)])
    calls = [call for call in last.tool_calls if call.tool_name not in hidden]
    return Said(
        usage=read_usage(last),
        texts=[part for _, part in map(_part, _nodes(last)["parts"])],
        proposed=[
            ProposedCall(name=call.tool_name, arguments=arguments_of(call.args), call_id=call.tool_call_id)
            for call in calls
        ],
    )


# Streams


def streamed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `request_stream` whose stream passes the gate.

    The model's own context is left by who entered it, as it is without oao: its events may be read by other tasks.
    """

    @asynccontextmanager
    async def request_stream(self: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[StreamedResponse]:
        if not is_possible() or governed_model_call() is not None:
            async with function(self, *args, **kwargs) as stream:
                yield stream
            return
        given: dict[str, Any] = {**dict(zip(_PARAMETERS, args, strict=False)), **kwargs}
        async with AsyncExitStack() as stack:

            async def pieces(model: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                live = await stack.enter_async_context(function(model, *args, **kwargs))
                yield _Opened(live, live.get())
                async for event in _Source.of(live):
                    yield event
                yield live.get()

            passing = govern(pieces, "astream", prepare_request)(self, *args, **kwargs)
            try:
                first: _Opened = await anext(passing)
                if first.live is None:
                    yield _Played(first.head, passing, given["model_request_parameters"])
                else:
                    _Source.of(first.live).governed = _events(passing)
                    yield first.live
            finally:
                await passing.aclose()

    return _like(request_stream, function)


def _like(wrapper: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(wrapper, name, getattr(function, name))
    vars(wrapper)["__wrapped__"] = function
    return wrapper


async def _events(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for piece in pieces:
        if not isinstance(piece, ModelResponse):
            yield piece


class _Source:
    """Where the events of a live stream come from: it is read through the gate, and the gate reads it."""

    __slots__ = ("_live", "_own", "governed")

    def __init__(self, live: Any, own: Callable[[Any], AsyncIterator[Any]]) -> None:
        self._live, self._own = live, own
        self.governed: AsyncIterator[Any] | None = None

    @classmethod
    def of(cls, live: Any) -> _Source:
        """Return that of a stream, which is read through it from now on."""
        kept: _Source | None = cast("dict[str, Any]", vars(live)).get("_oao_source")
        if kept is None:
            owner = next(base for base in type(live).__mro__ if "__aiter__" in vars(base))
            set_method(owner, "__aiter__", _read_through)
            own: Any = vars(owner)["__aiter__"].__wrapped__
            kept = vars(live)["_oao_source"] = cls(live, own)
        return kept

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._own(self._live)


def _read_through(function: Callable[..., Any]) -> Callable[..., Any]:
    def __aiter__(self: Any) -> AsyncIterator[Any]:  # noqa: N807 - it is one
        source: _Source | None = cast("dict[str, Any]", vars(self)).get("_oao_source")
        own: AsyncIterator[Any] | None = None if source is None else source.governed
        return cast("AsyncIterator[Any]", function(self)) if own is None else own

    vars(__aiter__)["__wrapped__"] = function
    return __aiter__


class _Played(CompletedStreamedResponse):
    """A recorded stream, read through the gate as a live one is."""

    def __init__(self, head: ModelResponse, pieces: AsyncIterator[Any], asked: ModelRequestParameters) -> None:
        super().__init__(head, model_request_parameters=asked, replay_events=[])
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._event_iterator is None:
            self._event_iterator = self._played()
        return self._event_iterator

    async def _played(self) -> AsyncIterator[Any]:
        begun = False
        async for piece in self._pieces:
            if not isinstance(piece, ModelResponse):
                begun = True
                yield self._applied(piece)
                continue
            self.response = piece
            if not begun:
                # Recorded whole: its parts are its events.
                asked = self.model_request_parameters
                async for event in CompletedStreamedResponse(piece, model_request_parameters=asked, replay_events=True):
                    yield self._applied(event)
        self._finished = True

    def _applied(self, event: Any) -> Any:
        self._parts_manager.apply_event(event)
        if isinstance(event, FinalResultEvent):
            self.final_result_event = event
        return event


# Embeddings


def prepare_embedding(model: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    """Return `EmbeddingModel.embed` as a model call: whom it asks is a provider's model too."""
    positional, named = arguments
    inputs = positional[0] if positional else named["inputs"]
    texts = [inputs] if isinstance(inputs, str) else list(inputs)
    settings: dict[str, Any] = {**(model.settings or {}), **(named.get("settings") or {})}
    call = ModelCall(
        name=str(model.model_name),
        messages=[{"role": "user", "content": text} for text in texts],
        params=_params(settings, ModelRequestParameters(), {"input_type": named.get("input_type")}),
    )
    shape = AnswerShape(
        call,
        lambda values: Said(usage=read_usage(values[-1])),
        dump=lambda value: _EMBEDDED.dump_python(value, mode="json", warnings=False),
        load=_EMBEDDED.validate_python,
    )
    return model_request(call, shape, model, arguments, name_field="_model_name")
