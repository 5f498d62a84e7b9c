"""What a request may be and take: its body, how often, how long. Pure ASGI, before anything else looks at it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oao_harness.server.quotas import Quota, Quotas, group_of

__all__ = ["BodyDeadline", "BodyLimit", "RateLimit", "send_problem"]

_CLOSE: Final = {"Connection": "close"}


async def send_problem(
    send: Send, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> None:
    """Answer with a problem. Source: RFC 9457.

    Args:
        send: Of ASGI.
        status: Of HTTP.
        title: What kind of problem it is.
        detail: One line for a person.
        headers: What the answer says besides.
    """
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
    said = MutableHeaders(headers=dict(headers or {}))
    said["Content-Type"] = "application/problem+json"
    said["Content-Length"] = str(len(body))
    await send({"type": "http.response.start", "status": status, "headers": said.raw})
    await send({"type": "http.response.body", "body": body})


class _TooLarge(Exception):  # noqa: N818 - never leaves this module
    """The body has more bytes than are allowed."""


class BodyLimit:
    """Refuses bodies that are too large: by what they say of themselves, and by what comes, whatever they said.

    Args:
        app: What answers.
        most_bytes: How many a body may have, > 0.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int = 1024 * 1024) -> None:
        self._app = app
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = [value for name, value in scope["headers"] if name == b"content-length"]
        if any(not value.isdigit() or len(value) > 18 or int(value) > self._most for value in said):
            await self._refuse(send)
            return
        got, too_large, started = 0, False, False

        async def received() -> Message:
            nonlocal got, too_large
            if too_large:
                raise _TooLarge
            message = await receive()
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                if got > self._most:
                    too_large = True
                    raise _TooLarge
            return message

        async def sent(message: Message) -> None:
            nonlocal started
            # What reads the body may take the error for one of its own, and answer with another status.
            if not too_large or started:
                started = True
                await send(message)

        try:
            await self._app(scope, received, sent)
        except BaseException:
            if not too_large or started:
                raise
        if too_large and not started:
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        detail = f"the body may have {self._most:,} bytes at most"
        await send_problem(send, 413, "Content Too Large", detail, _CLOSE)


class RateLimit:
    """Counts the requests of each address, before anybody asks who it is; see `Authenticator` for those of a caller.

    Args:
        app: What answers.
        quotas: How many.
        exempt: Paths that are not counted, for example those that a load balancer asks.
        applies: Returns False while nothing is counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        quotas: Quotas,
        exempt: Collection[str] = (),
        applies: Callable[[], bool] = lambda: True,
    ) -> None:
        self._app = app
        self._quotas = quotas
        self._exempt = frozenset(exempt)
        self._applies = applies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see ASGI."""
        if scope["type"] not in {"http", "websocket"} or scope["path"] in self._exempt or not self._applies():
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        quota = self._quotas.hit(group_of(client[0] if client else None))
        if not quota.allowed:
            await self._refuse(scope, receive, send, quota)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _rate_headers(quota).items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sent)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, quota: Quota) -> None:
        if scope["type"] == "websocket":
            await receive()
            # Before it was accepted this is a 403: ASGI knows no other without an extension.
            await send({"type": "websocket.close", "code": 1013, "reason": "too many requests"})
            return
        wait_s = max(1, math.ceil(quota.resets_in_s))
        detail = f"{quota.limit} requests in {quota.window_s} s are allowed; try again in {wait_s} s"
        headers = {"Retry-After": str(wait_s), **_rate_headers(quota)}
        await send_problem(send, 429, "Too Many Requests", detail, headers)


def _rate_headers(quota: Quota) -> dict[str, str]:
    """Return what is left to a client. Source: draft-ietf-httpapi-ratelimit-headers-10, section 3."""
    left_s = math.ceil(quota.resets_in_s)
    return {
        "RateLimit-Policy": f'"address";q={quota.limit};w={quota.window_s}',
        "RateLimit": f'"address";r={quota.remaining};t={left_s}',
    }


class BodyDeadline:
    """Ends a request whose body does not come in time: whoever sends a byte now and then holds nothing for long.

    What a run may take is the run's own deadline.

    Args:
        app: What answers.
        deadline_s: Seconds until the body must have come, > 0.
    """

    def __init__(self, app: ASGIApp, *, deadline_s: float) -> None:
        self._app = app
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = waiting = False
        limit = asyncio.timeout(None)

        def in_time() -> None:
            if limit.when() is not None:
                limit.reschedule(None)

        async def received() -> Message:
            nonlocal waiting
            if not waiting and not started:
                # Who reads no body is not hurried.
                waiting = True
                limit.reschedule(asyncio.get_running_loop().time() + self._deadline_s)
            message = await receive()
            if not message.get("more_body", False):
                in_time()
            return message

        async def sent(message: Message) -> None:
            nonlocal started
            started = True
            in_time()
            await send(message)

        try:
            async with limit:
                await self._app(scope, received, sent)
        except TimeoutError:
            if started or not limit.expired():
                raise
            await send_problem(send, 408, "Request Timeout", f"the body did not come in {self._deadline_s:g} s", _CLOSE)
