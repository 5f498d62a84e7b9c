"""What vcrpy takes for a cassette: it holds nothing, and asks the exchange of the context."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any, Final, cast

from oao_harness.journal.http_requests import HttpResponse
from pytest_oao.http_layer import Exchange, HttpLayer, current, unrecordable

__all__ = [
    "Dispatch",
    "Streaming",
    "asked",
    "noting_stream",
    "or_streaming",
    "response_of",
    "set_until",
    "streamed",
]

streamed: Final[ContextVar[bool]] = ContextVar("oao_streamed", default=False)
"""True where the caller asked the client for a stream."""


class Dispatch:
    """What vcrpy takes for a cassette: it holds nothing, and asks the exchange of the context."""

    custom_patches = ()
    inject = False
    record_mode = "none"
    rewound = True
    allow_playback_repeats = False
    skip_patchers = ()
    write_protected = False
    """False: what is not in a recording is refused before vcrpy could."""
    _path = "<oao>"

    def __init__(self, layer: HttpLayer) -> None:
        self.layer = layer

    def filter_request(self, request: Any) -> Any:
        """Return the request: nothing is left out."""
        return request

    def can_play_response_for(self, request: Any) -> bool:
        """Return True where a request is answered from the recording; else it is sent."""
        exchange = current.get()
        found = None if exchange is None else asked(exchange, request)
        request.oao_response = found
        return found is not None

    def play_response(self, request: Any) -> dict[str, Any]:
        """Return the answer that was found."""
        return cast("dict[str, Any]", request.oao_response)

    def append(self, request: Any, response: Mapping[str, Any]) -> None:
        """Record a request that was sent, with its response."""
        exchange = current.get()
        if exchange is not None:
            exchange.also_answered(request.method, request.uri, request.body, response_of(response))

    def find_requests_with_most_matches(self, request: Any) -> list[tuple[Any, list[str], list[str]]]:
        """Return the request itself: asked where aiohttp follows a redirect that was recorded."""
        return [(request, [], [])]

    def __len__(self) -> int:
        return 0


def asked(exchange: Exchange, request: Any) -> dict[str, Any] | None:
    """Return the recorded response as vcrpy has it."""
    kind = request.headers.get("content-type") or ""
    if isinstance(kind, list | tuple):
        kind = cast("list[object]", kind)[0] if kind else ""
    if isinstance(kind, bytes):
        kind = kind.decode("latin-1")
    found = exchange.ask(request.method, request.uri, request.body, str(kind))
    if found is None:
        return None
    return {
        "status": {"code": found.status, "message": found.reason},
        "headers": {name: [value] for name, value in found.headers.items()},
        "body": {"string": found.body},
    }


def response_of(response: Mapping[str, Any]) -> HttpResponse:
    """Read a response as vcrpy has it."""
    headers = {
        str(name): ", ".join(map(str, cast("list[object]", value))) if isinstance(value, list) else str(value)
        for name, value in response["headers"].items()
    }
    return HttpResponse(
        status=int(response["status"]["code"]),
        reason=str(response["status"]["message"] or ""),
        headers=headers,
        body=bytes(response["body"].get("string") or b""),
    )


class Streaming(BaseException):
    """Raised through vcrpy: `response` is handed to the caller as it is."""

    def __init__(self, response: Any) -> None:
        self.response = response


def set_until(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute of a class or module until the stack is closed."""
    before = owner.__dict__[name]
    setattr(owner, name, value)
    stack.callback(setattr, owner, name, before)


def or_streaming(exchange: Exchange, response: Any, status: int) -> Any:
    """Return a response that may be read whole.

    Raises:
        Streaming: It may never end, or nobody wants it: it goes past vcrpy.
    """
    why = unrecordable(status, response.headers, method=exchange.method.upper(), streamed=streamed.get())
    if why:
        exchange.passed(why, status)
    if why or exchange.live:
        raise Streaming(response)
    return response


def noting_stream(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a client's `send` that keeps in mind whether the caller asked for a stream."""

    @functools.wraps(function)
    def send(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = streamed.set(bool(kwargs.get("stream")))
        try:
            return function(self, *args, **kwargs)
        finally:
            streamed.reset(token)

    return send
