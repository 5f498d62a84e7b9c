"""The HTTP choke points: where `httpx`, `httpx2`, `http.client` and `aiohttp` send a request.

A request to a model provider that is not made by the body of a governed model call is `ungoverned-call`. Only the
decision is taken here; no request is changed, and outside of runs nothing is looked at.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlsplit

from oao_harness.adapters.patching import require, set_method
from oao_harness.adapters.providers import canonical, is_provider_request, learn
from oao_harness.runtime.outside import governed_model_call, is_watched, refuse_or_note

__all__ = ["ADVICE", "RULE", "install_aiohttp", "install_http_client", "install_httpx", "is_model_traffic", "judged"]

RULE: Final = "ungoverned-call"
ADVICE: Final = (
    "a model provider may only be asked by a governed model call: use a LangChain model, or a function marked "
    "@oao_harness.model"
)
judged: Final[ContextVar[tuple[str, int] | None]] = ContextVar("oao_judged", default=None)
"""Host and port of the request that is being sent in this context; it was judged with its path."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_LONGEST_PATH: Final = 200


def _judge(method: str, scheme: str, host: str, port: int | None, path: str) -> tuple[str, int]:
    """Judge a request before it is sent; return host and port.

    Raises:
        RunHalted: It must not be sent.
    """
    number = port or _DEFAULT_PORTS.get(scheme, 80)
    method, name = method.upper(), canonical(host)
    if governed_model_call() is not None:
        learn(method, name, number, path)
    elif is_provider_request(method, name, number, path):
        shown = host if number in {80, 443} else f"{host}:{number}"
        refuse_or_note(RULE, f"{method} {shown}{path[:_LONGEST_PATH]} outside of a governed model call", ADVICE)
    return name, number


def is_model_traffic(method: str, url: str) -> bool:
    """Judge a request that nobody sends yet; return True where it goes to a model provider.

    Raises:
        RunHalted: It must not be sent.
    """
    parts = urlsplit(url)
    host, number = _judge(method, parts.scheme, parts.hostname or "", parts.port, parts.path)
    return is_provider_request(method.upper(), host, number, parts.path)


def install_httpx(package: str) -> None:
    """Watch what the transports of `httpx` or `httpx2` send; once.

    Args:
        package: The name of either.

    Raises:
        FrameworkError: The installed version has no such transports.
    """
    module = sys.modules[package]
    for cls, name, watch in (
        (module.HTTPTransport, "handle_request", _httpx),
        (module.AsyncHTTPTransport, "handle_async_request", _async_httpx),
    ):
        require(cls, (name,), package)
        set_method(cls, name, watch)


def _judge_httpx(request: Any) -> tuple[str, int]:
    url = request.url
    return _judge(request.method, url.scheme, url.host, url.port, url.path)


def _httpx(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def handle_request(self: Any, request: Any) -> Any:
        if not is_watched():
            return function(self, request)
        token = judged.set(_judge_httpx(request))
        try:
            return function(self, request)
        finally:
            judged.reset(token)

    return handle_request


def _async_httpx(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def handle_async_request(self: Any, request: Any) -> Any:
        if not is_watched():
            return await function(self, request)
        token = judged.set(_judge_httpx(request))
        try:
            return await function(self, request)
        finally:
            judged.reset(token)

    return handle_async_request


def install_http_client() -> None:
    """Watch what `http.client` sends, and with it `urllib.request`, `urllib3`, `requests` and `botocore`; once.

    Raises:
        FrameworkError: This Python has no such method.
    """
    connection = sys.modules["http.client"].HTTPConnection
    require(connection, ("putrequest",), "python")
    set_method(connection, "putrequest", _putrequest)


def _putrequest(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def putrequest(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        if is_watched():
            parts = urlsplit(url)
            scheme = "https" if self.default_port == _DEFAULT_PORTS["https"] else "http"
            if parts.hostname:
                # To a proxy, the whole URL is the target.
                target = (parts.scheme, parts.hostname, parts.port)
            elif getattr(self, "_tunnel_host", None):
                target = (scheme, self._tunnel_host, self._tunnel_port)
            else:
                target = (scheme, self.host, self.port)
            _judge(method, *target, parts.path)
        return function(self, method, url, *args, **kwargs)

    return putrequest


def install_aiohttp() -> None:
    """Watch what `aiohttp` sends; once. A redirect to a provider is seen by the audit hook, not here.

    Raises:
        FrameworkError: The installed version has no such method.
    """
    session = sys.modules["aiohttp"].ClientSession
    require(session, ("_request", "_build_url"), "aiohttp")
    set_method(session, "_request", _aiohttp)


def _aiohttp(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def request(self: Any, method: str, str_or_url: Any, **kwargs: Any) -> Any:
        if not is_watched():
            return await function(self, method, str_or_url, **kwargs)
        try:
            parts = urlsplit(str(self._build_url(str_or_url)))
        except (ValueError, TypeError):  # no URL: aiohttp says so itself
            return await function(self, method, str_or_url, **kwargs)
        token = judged.set(_judge(method, parts.scheme, parts.hostname or "", parts.port, parts.path))
        try:
            return await function(self, method, str_or_url, **kwargs)
        finally:
            judged.reset(token)

    return request
