"""http.client through vcrpy's connections, and what is built on it: urllib.request, urllib3, requests, botocore.

A connection whose request is none of ours is the real one in all but name. Which connection is real is not decided by
vcrpy's process-wide window, through which requests of other threads reach the network, but for each one.
"""

from __future__ import annotations

import functools
import http.client
import importlib
import json
import sys
import types
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from typing import Any, cast

from oao_harness.journal.http_requests import decompressed
from pytest_oao.http_dispatch import Dispatch, asked, noting_stream, response_of, set_until, streamed
from pytest_oao.http_layer import Exchange, unrecordable

__all__ = ["enter_connections", "group_of"]


def group_of(builder: Any, method: str) -> Callable[[ExitStack], None]:
    """Return what patches one library until a stack is closed.

    Made for all libraries before the first one is patched: vcrpy's stubs are classes below what is patched.

    Args:
        builder: vcrpy's.
        method: Of the builder: makes the patches.
    """
    patchers: list[Any] = list(getattr(builder, method)())

    def enter(stack: ExitStack) -> None:
        for patcher in patchers:
            stack.enter_context(patcher)
        if method == "_requests" and "requests.adapters" in sys.modules:
            adapter = cast("Any", sys.modules["requests.adapters"]).HTTPAdapter
            set_until(stack, adapter, "send", noting_stream(adapter.send))

    return enter


def enter_connections(stack: ExitStack) -> None:
    """Let vcrpy's connections ask us, until the stack is closed."""
    connection: Any = importlib.import_module("vcr.stubs").VCRConnection
    for name, ours in (
        ("request", _request),
        ("putrequest", _putrequest),
        ("putheader", _putheader),
        ("send", _send),
        ("endheaders", _endheaders),
        ("connect", _connect),
        ("getresponse", _getresponse),
    ):
        set_until(stack, connection, name, _for_dispatch(connection.__dict__[name], ours))
    # The window in which vcrpy takes its patches back is open to all threads. Only this constructor needs it, and
    # only because it looks its own class up by name.
    set_until(stack, importlib.import_module("vcr.patch"), "force_reset", nullcontext)
    made: Any = http.client.HTTPSConnection.__init__
    if isinstance(made, types.FunctionType) and made.__module__ == "http.client":
        names = {**made.__globals__, "HTTPSConnection": http.client.HTTPSConnection}
        again = types.FunctionType(made.__code__, names, made.__name__, made.__defaults__, made.__closure__)
        again.__kwdefaults__ = made.__kwdefaults__
        set_until(stack, http.client.HTTPSConnection, "__init__", again)


def _for_dispatch(theirs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that is ours where the cassette is ours: a user may have a real one beside it."""

    @functools.wraps(theirs)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self.cassette, Dispatch):
            return theirs(self, *args, **kwargs)
        return ours(theirs, self, *args, **kwargs)

    return method


def _is_left_alone(connection: Any) -> bool:
    """Return True where the connection's request is none of ours: then the real one does everything."""
    return connection.__dict__.get("oao_exchange", connection) is None


def _begin(
    connection: Any, method: str, url: str, headers: Mapping[str, object] | None, options: dict[str, Any]
) -> bool:
    exchange = connection.cassette.layer.begin(method, connection._uri(url), headers)
    connection.__dict__.update(oao_exchange=exchange, oao_options=options)
    return exchange is not None


def _request(  # noqa: PLR0917 - as http.client has them
    theirs: Callable[..., Any],
    self: Any,
    method: str,
    url: str,
    body: Any = None,
    headers: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    if _begin(self, method, url, headers, kwargs):
        theirs(self, method, url, body, headers)
        # Now, not when the response is asked for: who catches what a connection raises expects it here.
        self.__dict__["oao_recorded"] = _answer_or_send(self)
        return None
    return self.real_connection.request(method, url, body, headers or {}, *args, **kwargs)


def _putrequest(theirs: Callable[..., Any], self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
    if _begin(self, method, url, None, {}):
        return theirs(self, method, url, *args, **kwargs)
    return self.real_connection.putrequest(method, url, *args, **kwargs)


def _putheader(theirs: Callable[..., Any], self: Any, header: str, *values: Any) -> Any:
    return self.real_connection.putheader(header, *values) if _is_left_alone(self) else theirs(self, header, *values)


def _send(theirs: Callable[..., Any], self: Any, data: Any) -> Any:
    return self.real_connection.send(data) if _is_left_alone(self) else theirs(self, data)


def _endheaders(theirs: Callable[..., Any], self: Any, message_body: Any = None, **kwargs: Any) -> Any:
    if _is_left_alone(self):
        return self.real_connection.endheaders(message_body, **kwargs)
    return theirs(self, message_body)


def _connect(theirs: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> None:
    """Do nothing: the real connection connects when something is sent, and in a replay nothing is."""


def _getresponse(theirs: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    exchange = cast("Exchange | None", self.__dict__.get("oao_exchange"))
    if exchange is None:
        return self.real_connection.getresponse(*args, **kwargs)
    stubs: Any = importlib.import_module("vcr.stubs")
    request = self._vcr_request
    recorded = self.__dict__.pop("oao_recorded", exchange)
    if recorded is exchange:
        recorded = _answer_or_send(self)
    with exchange.watched():
        if isinstance(recorded, Exception):
            raise recorded
        if recorded is None:
            response = self.real_connection.getresponse()
            why = unrecordable(
                response.status, response.headers, method=exchange.method.upper(), streamed=streamed.get()
            )
            if why:
                exchange.passed(why, response.status)
            if why or exchange.live:
                return response
            recorded = {
                "status": {"code": response.status, "message": response.reason},
                "headers": stubs.serialize_headers(response),
                "body": {"string": response.read()},
            }
            exchange.answered(response_of(recorded))
            if "preload_content" in self.__dict__["oao_options"]:
                _decompress(recorded)
    response = stubs.VCRHTTPResponse(recorded, request.uri)
    if not hasattr(response, "json"):
        # vcrpy 8 knows only what urllib3's first version had.
        content = recorded["body"]["string"]
        response.json = lambda: json.loads(content)
    return response


def _decompress(response: dict[str, Any]) -> None:
    """Decompress a body for urllib3: vcrpy's response would not."""
    names = [name for name in response["headers"] if name.lower() == "content-encoding"]
    encoding = ", ".join(value for name in names for value in response["headers"][name])
    body, plain = decompressed(response["body"]["string"], encoding)
    if names and plain:
        response["body"]["string"] = body
        for name in names:
            del response["headers"][name]


def _answer_or_send(connection: Any) -> dict[str, Any] | Exception | None:
    """Return the recorded response, or the recorded error of waiting for it; None where the request is sent now."""
    exchange, request = cast("Exchange", connection.__dict__["oao_exchange"]), connection._vcr_request
    with exchange.watched():
        try:
            recorded = asked(exchange, request)
        except (http.client.HTTPException, ConnectionResetError, BrokenPipeError) as error:
            return error
        if recorded is None:
            _send_really(connection, request)
        return recorded


def _send_really(connection: Any, request: Any) -> None:
    options: dict[str, Any] = dict(connection.__dict__["oao_options"])
    if "preload_content" in options:
        # urllib3 would read a stream that never ends.
        options["preload_content"] = False
    real, body = connection.real_connection, request.body
    headers = request.headers
    if hasattr(body, "read"):
        body = body.read()
    if hasattr(body, "__next__"):
        chunks: Any = body
        body = b"".join(one.encode() if isinstance(one, str) else one for one in chunks)
    real.request(request.method, connection._url(request.uri), body, headers, **options)
