"""httpx, httpx2 and aiohttp through vcrpy's stubs: what is sent, and not what is in this process only."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

from pytest_oao.http_dispatch import Dispatch, Streaming, noting_stream, or_streaming, set_until, streamed
from pytest_oao.http_layer import Exchange, current

__all__ = ["enter_aiohttp", "enter_httpx"]

# httpx and httpx2: the transports that reach a network; those in this process are the test's own business


def enter_httpx(dispatch: Dispatch, package: str, stack: ExitStack) -> None:
    """Patch `httpx` or `httpx2` until the stack is closed; nothing where it is not installed."""
    if importlib.util.find_spec(package) is None:
        return
    module: Any = importlib.import_module(package)
    stubs: Any = importlib.import_module("vcr.stubs.httpx_stubs")
    real, real_async = module.HTTPTransport.handle_request, module.AsyncHTTPTransport.handle_async_request

    def send(self: Any, request: Any) -> Any:
        response = real(self, request)
        return or_streaming(cast("Exchange", current.get()), response, response.status_code)

    async def send_async(self: Any, request: Any) -> Any:
        response = await real_async(self, request)
        return or_streaming(cast("Exchange", current.get()), response, response.status_code)

    play = stubs.vcr_handle_request(dispatch, send, module)
    play_async = stubs.vcr_handle_async_request(dispatch, send_async, module)

    @functools.wraps(real)
    def handle_request(self: Any, request: Any) -> Any:
        exchange = dispatch.layer.begin(request.method, str(request.url), request.headers)
        if exchange is None:
            return real(self, request)
        try:
            with exchange.watched():
                return play(self, request)
        except Streaming as passed:
            return passed.response

    @functools.wraps(real_async)
    async def handle_async_request(self: Any, request: Any) -> Any:
        exchange = dispatch.layer.begin(request.method, str(request.url), request.headers)
        if exchange is None:
            return await real_async(self, request)
        try:
            with exchange.watched():
                return await play_async(self, request)
        except Streaming as passed:
            return passed.response

    set_until(stack, module.HTTPTransport, "handle_request", handle_request)
    set_until(stack, module.AsyncHTTPTransport, "handle_async_request", handle_async_request)
    set_until(stack, module.Client, "send", noting_stream(module.Client.send))
    set_until(stack, module.AsyncClient, "send", noting_stream_async(module.AsyncClient.send))


def noting_stream_async(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def send(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = streamed.set(bool(kwargs.get("stream")))
        try:
            return await function(self, *args, **kwargs)
        finally:
            streamed.reset(token)

    return send


# aiohttp


def enter_aiohttp(dispatch: Dispatch, stack: ExitStack) -> None:
    """Patch `aiohttp` until the stack is closed; nothing where it is not installed."""
    if importlib.util.find_spec("aiohttp") is None:
        return
    client: Any = importlib.import_module("aiohttp").ClientSession
    stubs: Any = importlib.import_module("vcr.stubs.aiohttp_stubs")
    real = client._request

    async def send(self: Any, method: str, url: Any, **kwargs: Any) -> Any:
        response = await real(self, method, url, **kwargs)
        return or_streaming(cast("Exchange", current.get()), response, response.status)

    play = stubs.vcr_request(dispatch, send)

    @functools.wraps(real)
    async def request(self: Any, method: str, str_or_url: Any, **kwargs: Any) -> Any:
        url = self._build_url(str_or_url)
        exchange = dispatch.layer.begin(method, str(url), kwargs.get("headers"))
        if exchange is None:
            return await real(self, method, str_or_url, **kwargs)
        raise_for_status: Any = kwargs.get("raise_for_status")
        try:
            with exchange.watched():
                return await play(self, method, url, **kwargs)
        except Streaming as passed:
            # vcrpy put its own in place of it.
            if raise_for_status is None:
                raise_for_status = self._raise_for_status
            if callable(raise_for_status):
                await cast("Any", raise_for_status(passed.response))
            elif raise_for_status:
                passed.response.raise_for_status()
            return passed.response

    set_until(stack, client, "_request", request)
