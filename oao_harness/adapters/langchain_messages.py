"""LangChain's messages: as the provider sees them, for requests; and without loss, for the journal."""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import pydantic
from langchain_core import messages as lc
from langchain_core.documents import Document

from oao_harness.journal.codec import decode, encode, register
from oao_hookspecs import Json

__all__ = ["canonical_message", "plain", "register_values", "tool_schema"]

_ROLES: Final = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "function"}
# Said elsewhere in the canonical message, or the model's own thoughts, which the provider ties to its answer.
_DERIVED_BLOCKS: Final = frozenset(
    {
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "tool_use",
        "input_json_delta",
        "function_call",
        "reasoning",
        "thinking",
        "redacted_thinking",
    }
)
_DERIVED_KEYS: Final = frozenset({"id", "index", "cache_control"})
_SECRET_KEYS: Final = frozenset({"headers", "authorization", "authorization_token", "api_key"})


def canonical_message(message: lc.BaseMessage) -> dict[str, Json]:
    """Return what the provider sees of a message: an allow-list, equal for equal meaning.

    A text and a list of text blocks are the same; ids, usage, metadata and other leftovers of a run are not in it.
    """
    # Not `getattr`: asking a pydantic model for what it lacks costs microseconds, and this is done for every message.
    fields = vars(message)
    kind = message.type.removesuffix("MessageChunk").lower() if message.type.endswith("Chunk") else message.type
    role = fields.get("role") or _ROLES.get(kind, kind)
    node: dict[str, Json] = {"role": str(role), "content": _canonical_content(message.content)}
    if message.name:
        node["name"] = message.name
    calls = [
        {"id": call.get("id"), "name": call.get("name"), "args": encode(call.get("args"))}
        for field in ("tool_calls", "invalid_tool_calls")
        for call in cast("Sequence[Mapping[str, Any]]", fields.get(field) or ())
    ]
    if calls:
        node["calls"] = cast("Json", calls)
    call_id = fields.get("tool_call_id")
    if call_id:
        node["call_id"] = str(call_id)
    return node


def _canonical_content(content: str | Sequence[str | Mapping[str, Any]]) -> Json:
    if isinstance(content, str):
        return content
    blocks = [block for item in content if (block := _canonical_block(item)) is not None]
    if all(isinstance(block, str) for block in blocks):
        return "".join(cast("list[str]", blocks))
    return [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks]


def _canonical_block(block: str | Mapping[str, Any]) -> Json:
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind in _DERIVED_BLOCKS:
        return None
    if kind == "text" or (kind is None and "text" in block):
        return str(block.get("text", ""))
    return {key: plain(item) for key, item in block.items() if key not in _DERIVED_KEYS}


def plain(value: object) -> Json:
    """Return a value of a request as JSON; a class of pydantic becomes its schema, never a text with an address."""
    if value is None or isinstance(value, str | bool | int | float):
        return cast("Json", value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in cast("Iterable[object]", value)]
    if inspect.isclass(value):
        return _schema(value)
    if isinstance(value, pydantic.BaseModel):
        return cast("Json", value.model_dump(mode="json", exclude_none=True, fallback=_class_name))
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return _class_name(value)


def _schema(cls: type) -> Json:
    try:
        return cast("Json", pydantic.TypeAdapter(cls).json_schema())
    except pydantic.PydanticUserError:
        return f"{cls.__module__}:{cls.__qualname__}"


def _class_name(value: object) -> str:
    name = getattr(value, "__qualname__", None)
    owner = value if name else type(value)
    return f"{owner.__module__}:{name or type(value).__qualname__}"


def tool_schema(offered: object) -> dict[str, Json]:
    """Return the schema of a tool that is offered to a model, without credentials.

    Args:
        offered: A provider's schema, or what LangChain can make one of.
    """
    if not isinstance(offered, Mapping):
        # Late: in some versions it imports the tools, whose import may have led here.
        from langchain_core.utils.function_calling import convert_to_openai_tool  # noqa: PLC0415

        offered = convert_to_openai_tool(cast("Any", offered))
    shown = cast("Mapping[str, object]", offered)
    return {key: plain(item) for key, item in shown.items() if key not in _SECRET_KEYS}


_MESSAGES: Final[Mapping[str, type[lc.BaseMessage]]] = {
    cls.__name__: cls
    for cls in (
        lc.AIMessage,
        lc.AIMessageChunk,
        lc.ChatMessage,
        lc.ChatMessageChunk,
        lc.FunctionMessage,
        lc.FunctionMessageChunk,
        lc.HumanMessage,
        lc.HumanMessageChunk,
        lc.RemoveMessage,
        lc.SystemMessage,
        lc.SystemMessageChunk,
        lc.ToolMessage,
        lc.ToolMessageChunk,
    )
}


def register_values() -> None:
    """Teach the codec what LangChain's tools return."""
    for cls in _MESSAGES.values():
        register(f"lc.{cls.__name__}", cls, _dump_fields(cls), _load_fields(cls))
    register("lc.Document", Document, _dump_fields(Document), _load_fields(Document))


def _dump_fields(cls: type[pydantic.BaseModel]) -> Callable[[Any], Json]:
    def dump(value: pydantic.BaseModel) -> Json:
        fields: dict[str, Json] = {}
        for name, field in cls.model_fields.items():
            item = getattr(value, name)
            if name != "type" and (field.is_required() or item != field.get_default(call_default_factory=True)):
                fields[name] = encode(item)
        if fields.get("tool_call_chunks"):
            # Made from the chunks when the message is built.
            fields.pop("tool_calls", None)
            fields.pop("invalid_tool_calls", None)
        for name, item in (value.__pydantic_extra__ or {}).items():
            fields[name] = encode(item)
        return fields

    return dump


def _load_fields(cls: type[pydantic.BaseModel]) -> Callable[[Any], object]:
    def load(node: Mapping[str, Json]) -> object:
        return cls(**cast("dict[str, Any]", decode(node)))

    return load
