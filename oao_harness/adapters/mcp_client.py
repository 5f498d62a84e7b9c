"""Governs the client of the MCP SDK: a `tools/call` is a tool call, whatever framework brings it.

The leaf is `send_request`, below `call_tool`. What a framework's own tool has passed the gate for is that same call
when its body sends it, once, and only with the same tool and the same arguments. What a client sends beside, such as
its handshake and its lists, is journaled and not judged, so that a replay needs no server.

What a server says of its tools (`readOnlyHint` and the like) is not believed: a hint would let a server that lies past
a policy. A policy that knows a tool declares it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from mcp.client.session import ClientSession
from pydantic import BaseModel

from oao_harness.adapters.mcp_exchanges import exchange, is_played
from oao_harness.adapters.patching import require, set_method
from oao_harness.journal.codec import alike, decode, encode
from oao_harness.runtime import gate
from oao_harness.runtime.context import Frame, current, frame, in_plugin, is_possible
from oao_harness.runtime.run import Run
from oao_hookspecs import Call, Json, ToolCall

__all__ = ["install"]

_TOOL: Final = "tools/call"
# How frameworks put the server's name before that of its tool.
_SEPARATORS: Final = "_-./:"
# The names that servers gave themselves, by session. Not an attribute: the session is the user's.
_servers: Final[WeakKeyDictionary[Any, str]] = WeakKeyDictionary()


def install() -> None:
    """Patch the leaf of the MCP client; once.

    Raises:
        FrameworkError: The installed SDK has no such leaf.
    """
    require(ClientSession, ("send_request", "send_notification", "call_tool", "initialize"), "mcp")
    set_method(ClientSession, "send_request", _sending)
    set_method(ClientSession, "send_notification", _notifying)
    if hasattr(ClientSession, "send_discover"):
        # Since mcp 2: the handshake of protocol 2026-07-28, which goes past `send_request`.
        set_method(ClientSession, "send_discover", _discovering)


class _Shape:
    """Results as the protocol writes them, in the class that the caller asked for."""

    __slots__ = ("_result_type",)

    def __init__(self, result_type: Any) -> None:
        self._result_type = result_type

    def dump(self, value: Any) -> gate.Answer:
        """Return a result as JSON."""
        return gate.Answer(value=cast("Json", value.model_dump(by_alias=True, mode="json", exclude_none=True)))

    def load(self, value: Json) -> Any:
        """Return the result that the SDK would have read."""
        validate = getattr(self._result_type, "validate_python", None) or self._result_type.model_validate
        return validate(value)

    def load_chunks(self, value: Json) -> list[Any]:
        """Return the result alone: nothing of it is streamed."""
        return [self.load(value)]


def _sending(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def send_request(self: Any, request: Any, result_type: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_possible() or in_plugin.get():
            return await function(self, request, result_type, *args, **kwargs)
        run = current()
        if run is None:
            return await function(self, request, result_type, *args, **kwargs)
        # Read once: what is judged is what is sent, whatever becomes of the request meanwhile.
        data = cast("dict[str, Any]", request.model_dump(by_alias=True, mode="json", exclude_none=True))
        shape = _Shape(result_type)

        async def send(message: Mapping[str, Any]) -> Any:
            return await function(self, _rebuilt(request, message), result_type, *args, **kwargs)

        if data.get("method") == _TOOL:
            return await _govern(self, run, data, send, shape)
        found = await exchange(run, data, _name_of(self), lambda: send(data), shape)
        _remember(self, found)
        return found

    return send_request


class _PlainShape(_Shape):
    """Results that are JSON already."""

    __slots__ = ()

    def dump(self, value: Any) -> gate.Answer:
        """Return a result as it is."""
        return gate.Answer(value=value)

    def load(self, value: Json) -> Any:
        """Return a result of the caller's own."""
        return decode(value)


def _discovering(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def send_discover(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = current() if is_possible() and not in_plugin.get() else None
        if run is None:
            return await function(self, *args, **kwargs)
        data = {"method": "server/discover"}
        return await exchange(run, data, "", lambda: function(self, *args, **kwargs), _PlainShape(None))

    return send_discover


def _notifying(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def send_notification(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = current() if is_possible() and not in_plugin.get() else None
        if run is not None and is_played(run):
            # There is nobody to tell.
            return None
        return await function(self, *args, **kwargs)

    return send_notification


async def _govern(session: Any, run: Run, data: dict[str, Any], send: Callable[..., Any], shape: _Shape) -> Any:
    params: dict[str, Any] = data.get("params") or {}
    given: Any = params.get("arguments")
    arguments = cast("dict[str, Json]", encode(cast("object", given) if isinstance(given, dict) else {}))
    call = ToolCall(name=str(params.get("name")), arguments=arguments, scope=_scope(session))
    inside = frame.get()
    if inside is not None and inside.run is run and _is_carried_out(inside, call, params):
        run.refuse_if_over()
        return await send(data)

    async def act(judged: Call) -> Any:
        if judged is call:
            return await send(data)
        changed = decode(_plain(cast("ToolCall", judged).arguments))
        return await send({**data, "params": {**params, "arguments": changed}})

    return await gate.acall(run, call, act, shape)


def _is_carried_out(inside: Frame, call: ToolCall, params: Mapping[str, Any]) -> bool:
    """Return True where a request is what the governed call around it asks for, and not a second one.

    A round that a server asked for (`inputResponses`) belongs to the request that was it.
    """
    outer = inside.call
    if not isinstance(outer, ToolCall) or not _is_named(outer.name, call.name):
        return False
    if not _has_same_arguments(outer, call.arguments):
        return False
    if inside.carried == inside.attempts:
        return "requestState" in params or "inputResponses" in params
    inside.carried = inside.attempts
    return True


def _is_named(outer: str, name: str) -> bool:
    head = outer.removesuffix(name)
    return outer == name or (bool(name) and head != outer and head[-1:] in _SEPARATORS)


def _has_same_arguments(outer: ToolCall, arguments: Mapping[str, Json]) -> bool:
    """Return True where arguments are the judged ones; what is None, or a declared default, may be left out."""
    judged = outer.arguments
    if not arguments.keys() <= judged.keys():
        return False
    left_out = judged.keys() - arguments.keys()
    if any(judged[name] is not None and name not in outer.defaulted for name in left_out):
        return False
    return alike(_plain({name: judged[name] for name in arguments}), _plain(arguments))


def _plain(value: Any) -> Any:
    """Return JSON in dicts and lists: policies leave frozen ones."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value


def _rebuilt(request: BaseModel, data: Mapping[str, Any]) -> Any:
    return type(request).model_validate(data)


def _remember(session: Any, result: Any) -> None:
    """Keep what a server calls itself. It may call itself what it likes: a name to tell servers apart, no proof."""
    found = getattr(result, "server_info", None) or getattr(result, "serverInfo", None)
    name = getattr(found, "name", None)
    if isinstance(name, str):
        _servers[session] = name


def _name_of(session: Any) -> str:
    name = getattr(getattr(session, "server_info", None), "name", None)
    return name if isinstance(name, str) else _servers.get(session, "")


def _scope(session: Any) -> str:
    name = _name_of(session)
    return f"mcp:{name}" if name else "mcp"
