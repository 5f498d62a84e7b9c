"""JSON-RPC messages of MCP: read strictly, so that no server reads another message out of the same bytes. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

from oao_hookspecs import Json

__all__ = [
    "INVALID_REQUEST",
    "PARSE_ERROR",
    "REJECTED",
    "SERVER_GONE",
    "Message",
    "UnreadableError",
    "dumps",
    "error_message",
    "is_modern",
    "key_of_id",
    "read",
    "result_message",
]

# Source: JSON-RPC 2.0, section 5.1; the last two are in the range left to implementations, and that of MCP's sampling.
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
SERVER_GONE: Final = -32000
REJECTED: Final = -1

_ENVELOPE: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_PARAMS: Final = frozenset({"name", "arguments", "_meta", "task"})
_GOVERNED: Final = frozenset({"tools/call", "sampling/createMessage"})
_VERSION: Final = "io.modelcontextprotocol/protocolVersion"


class UnreadableError(Exception):
    """Bytes that are no message that two readers would read alike.

    Args:
        code: Of JSON-RPC.
        reason: One line for a person.
        id: Of the request, where it could be read.
    """

    def __init__(self, code: int, reason: str, id: Json = None) -> None:
        super().__init__(reason)
        self.code, self.reason, self.id = code, reason, id


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One JSON-RPC message."""

    raw: bytes
    """As it came, without the line's end."""
    fields: Mapping[str, Any]

    @property
    def method(self) -> str:
        """Of a request or a notification; empty for a response."""
        return str(self.fields.get("method", ""))

    @property
    def params(self) -> Mapping[str, Any]:
        """By name; empty where there are none."""
        found = self.fields.get("params")
        return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}

    @property
    def id(self) -> Json:
        """Of a request or a response; None for a notification."""
        return cast("Json", self.fields.get("id"))

    @property
    def is_request(self) -> bool:
        """True where an answer is owed."""
        return "method" in self.fields and self.fields.get("id") is not None

    @property
    def is_response(self) -> bool:
        """True for a result or an error."""
        return "method" not in self.fields and ("result" in self.fields or "error" in self.fields)

    def with_arguments(self, arguments: Mapping[str, Json]) -> bytes:
        """Return the message with other arguments for its tool."""
        return dumps({**self.fields, "params": {**self.params, "arguments": arguments}})

    def with_result(self, result: Json) -> bytes:
        """Return the response with another result."""
        return dumps({**self.fields, "result": result})


def read(raw: bytes) -> Message | list[Message]:
    """Read one message, or a batch of them.

    Refused is what lenient readers would take for something else: a name twice in one object, an envelope's name in
    other capitals (Go's `encoding/json` takes them), a carriage return between tokens (a line's end to who reads text).

    Args:
        raw: One line, or the body of one HTTP request.

    Raises:
        UnreadableError: It is no message that passes.
    """
    raw = raw.rstrip(b"\r\n")
    try:
        text = raw.decode("utf-8")
        found: object = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except UnreadableError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnreadableError(PARSE_ERROR, f"this is no JSON text in UTF-8: {type(error).__name__}") from error
    if "\r" in text:
        raise UnreadableError(INVALID_REQUEST, "a carriage return stands inside of a message", _id_of(found))
    if isinstance(found, list):
        return [_message(dumps(one), one) for one in cast("list[object]", found)]
    return _message(raw, found)


def _message(raw: bytes, found: object) -> Message:
    if not isinstance(found, dict):
        raise UnreadableError(INVALID_REQUEST, "a message is a JSON object")
    fields = cast("dict[str, Any]", found)
    _require_exact(fields, _ENVELOPE, fields)
    if "method" in fields and not isinstance(fields["method"], str):
        raise UnreadableError(INVALID_REQUEST, "`method` is a text", _id_of(fields))
    if fields.get("method") in _GOVERNED:
        params = fields.get("params", {})
        if not isinstance(params, dict):
            raise UnreadableError(INVALID_REQUEST, "`params` is an object", _id_of(fields))
        _require_exact(cast("dict[str, Any]", params), _PARAMS, fields)
    return Message(raw=raw, fields=fields)


def _require_exact(found: Mapping[str, Any], names: frozenset[str], whole: Mapping[str, Any]) -> None:
    for name in found:
        if name not in names and name.casefold() in names:
            raise UnreadableError(INVALID_REQUEST, f"{name!r} is not {name.casefold()!r}", _id_of(whole))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UnreadableError(INVALID_REQUEST, "an object has one name twice")
    return found


def _constant(name: str) -> NoReturn:
    raise UnreadableError(PARSE_ERROR, f"{name} is no JSON")


def _id_of(found: object) -> Json:
    id_ = cast("dict[str, Any]", found).get("id") if isinstance(found, dict) else None
    return id_ if isinstance(id_, str | int) and not isinstance(id_, bool) else None


def key_of_id(id: Json) -> str:
    """Return what a request is found by: 1 and "1" are two ids."""
    return json.dumps(id)


def is_modern(message: Message) -> bool:
    """Return True for a request of protocol 2026-07-28 or later, which say their version in each."""
    meta: Any = message.params.get("_meta")
    return isinstance(meta, Mapping) and _VERSION in meta


def dumps(value: object) -> bytes:
    """Return JSON in one line of UTF-8."""
    # Lone surrogates, which JSON may hold and UTF-8 may not, stay escaped.
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=_thawed).encode()


def _thawed(value: object) -> object:
    """Return as JSON what policies are handed frozen."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    raise TypeError(f"{value!r:.80} is no JSON")


def result_message(id: Json, result: Mapping[str, Any]) -> bytes:
    """Return the response to a request."""
    return dumps({"jsonrpc": "2.0", "id": id, "result": result})


def error_message(id: Json, code: int, text: str) -> bytes:
    """Return the response to a request that failed."""
    return dumps({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}})
