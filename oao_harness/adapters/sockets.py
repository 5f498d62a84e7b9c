"""Connections to model providers below every HTTP client: an audit hook, and the names behind the addresses.

Blind to libraries that connect without Python's `socket` module: gRPC, libcurl, uvloop.
"""

from __future__ import annotations

import functools
import inspect
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, cast

from oao_harness.adapters.http_clients import ADVICE, RULE, judged
from oao_harness.adapters.providers import is_provider_address, remember_addresses
from oao_harness.errors import RunHalted
from oao_harness.runtime.audit import listen
from oao_harness.runtime.outside import governed_model_call, is_watched, refuse_or_note

__all__ = ["install"]

_EVENTS: Final = ("socket.connect", "socket.sendto", "socket.sendmsg")
# They connect before they send, and what they send is judged with its method and path.
_HTTP: Final = frozenset({"http.client", "urllib3.connection"})


def install() -> None:
    """Watch connections and remember what names resolve to; once."""
    listen(_EVENTS, _connecting)
    for name, addresses in (
        ("getaddrinfo", _of_getaddrinfo),
        ("gethostbyname", _of_gethostbyname),
        ("gethostbyname_ex", _of_gethostbyname_ex),
    ):
        function = getattr(socket, name)
        if not isinstance(function, _LookUp):
            setattr(socket, name, _LookUp(function, addresses))


class _LookUp:
    """A function of `socket` that resolves names; its answers are remembered."""

    def __init__(self, function: Callable[..., Any], addresses: Callable[[Any], list[str]]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._addresses = addresses

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        answer = self._function(*args, **kwargs)
        host = args[0] if args else kwargs.get("host")
        if isinstance(host, bytes):
            host = host.decode("ascii", "replace")
        if isinstance(host, str):
            remember_addresses(host, self._addresses(answer))
        return answer


def _of_getaddrinfo(answer: list[tuple[Any, ...]]) -> list[str]:
    return [str(found[4][0]) for found in answer]


def _of_gethostbyname(answer: str) -> list[str]:
    return [answer]


def _of_gethostbyname_ex(answer: tuple[str, list[str], list[str]]) -> list[str]:
    return answer[2]


def _connecting(event: str, args: tuple[Any, ...]) -> None:
    """Judge a connection to, or a datagram for, a model provider.

    Raises:
        RunHalted: It must not be made.
    """
    if not is_watched() or not isinstance(args[1], tuple):
        return
    address = cast("tuple[object, ...]", args[1])
    if len(address) < 2 or not isinstance(address[0], str) or not isinstance(address[1], int):
        return
    target = is_provider_address(address[0], address[1])
    if target is None or target == judged.get() or governed_model_call() is not None or _is_http():
        return
    try:
        refuse_or_note(RULE, f"connect to {target[0]}:{target[1]} outside of a governed model call", ADVICE)
    except RunHalted:
        if event == "socket.connect":
            # `socket.create_connection` only closes its socket for an OSError.
            args[0].close()
        raise


def _is_http() -> bool:
    """Return True where a client connects whose request is judged when it is sent."""
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name in _HTTP and frame.f_globals is vars(sys.modules[name]):
            return True
        frame = frame.f_back
    return False
