"""The proxy over streamable HTTP: answers in the place of a server, and asks it.

Headers, bodies and events pass as they are, but for those of one connection. A message that acts is judged; what no
two readers would read alike is refused. No header is journaled.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from oao_harness.errors import UsageError
from oao_harness.mcp.events import TooLongError
from oao_harness.mcp.guard import is_governed
from oao_harness.mcp.messages import INVALID_REQUEST, Message, UnreadableError, dumps, error_message, key_of_id, read
from oao_harness.mcp.relay import Client, Clients, PendingCall
from oao_harness.mcp.sessions import Options, RemoteError, Session
from oao_harness.runtime.orchestrator import Orchestrator

__all__ = ["MOST_BYTES", "create_proxy", "serve"]

MOST_BYTES: Final = 64 * 1024 * 1024
"""How long one message may be."""
_SESSION: Final = "mcp-session-id"
# Source: RFC 9110, section 7.6.1, and what the two clients make of their own.
_OF_ONE_CONNECTION: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host"}
    | {"content-length", "accept-encoding", "proxy-authorization"}
)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")
_GRACE_S: Final = 3


class _Proxy:
    """One server, for all its clients."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        options: Options,
        url: str,
        *,
        host: str,
        hide_denied: bool,
        say: Callable[[str], None],
        most_bytes: int,
    ) -> None:
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._path, self._query = parts.path or "/", parts.query
        self._guarded_hosts = _LOOPBACK if host in _LOOPBACK else None
        self._most_bytes, self._say = most_bytes, say
        self._http = httpx.AsyncClient(
            follow_redirects=False, timeout=httpx.Timeout(None, connect=10.0), limits=httpx.Limits(max_connections=None)
        )
        self._clients = Clients(
            lambda label: Session(orchestrator, options, label), hide_denied=hide_denied, most_bytes=most_bytes
        )

    async def close(self) -> None:
        """End all sessions."""
        await self._clients.close()
        await self._http.aclose()

    async def answer(self, request: Request) -> Response:
        """Answer one HTTP request."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        try:
            body = await self._body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return Response(f"a message has more than {self._most_bytes} bytes", status_code=413)
        is_mcp = request.url.path.rstrip("/") == self._path.rstrip("/")
        try:
            found = read(body) if body and (is_mcp or _may_be_json(body)) else None
        except UnreadableError as error:
            if not is_mcp:
                # A form, for example; what is JSON for whoever reads it kindly is not passed on.
                return Response("this body is not passed on", status_code=400)
            return _json(error_message(error.id, error.code, f"oao: {error.reason}; it was not passed on"), 400)
        if not is_mcp:
            return await self._beside(request, body, found)
        client = self._clients.of(request.headers.get(_SESSION, ""))
        if isinstance(found, Message):
            return await self._message(request, client, found)
        if found is not None and any(is_governed(one) or client.asked(one) for one in found):
            text = "oao: a batch that calls tools is not passed on; send each call by itself"
            first = next((one.id for one in found if one.is_request), None)
            return _json(error_message(first, INVALID_REQUEST, text), 400)
        return await self._pass(request, client, body)

    def _refused(self, request: Request) -> Response | None:
        """Refuse what a page in a browser sends to this machine under a name of its own (DNS rebinding)."""
        if self._guarded_hosts is not None:
            for name, value in (("host", request.headers.get("host")), ("origin", request.headers.get("origin"))):
                host = urlsplit(value if name == "origin" and value else f"//{value or 'localhost'}").hostname
                if host not in self._guarded_hosts:
                    return Response(f"oao: the {name} {value!r:.80} is none of this machine", status_code=403)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            return Response("oao: a body that is encoded cannot be judged; send it as it is", status_code=415)
        return None

    async def _body(self, request: Request) -> bytes | None:
        found = bytearray()
        async for chunk in request.stream():
            found += chunk
            if len(found) > self._most_bytes:
                return None
        return bytes(found)

    async def _beside(self, request: Request, body: bytes, found: Message | list[Message] | None) -> Response:
        """Pass on what is no message of MCP: metadata, OAuth."""
        if isinstance(found, list) or (found is not None and (found.method or "jsonrpc" in found.fields)):
            return Response(f"oao: send messages to {self._path}", status_code=404)
        sent = await self._send(request, body)
        if isinstance(sent, Response):
            return sent
        # An old transport announces here where its messages go.
        if sent.headers.get("content-type", "").startswith("text/event-stream"):
            await sent.aclose()
            return Response(f"oao: streams are passed on from {self._path} alone", status_code=404)
        return _with(
            StreamingResponse(_closing(sent, sent.aiter_raw()), sent.status_code), self._headers(request, sent)
        )

    async def _message(self, request: Request, client: Client, message: Message) -> Response:
        if message.is_response and client.answered(message):
            return Response(status_code=202)
        client.lists.asked(message)
        if message.method == "notifications/cancelled" and client.cancelled(key_of_id(message.params.get("requestId"))):
            return Response(status_code=202)
        if not is_governed(message):
            return await self._pass(request, client, message.raw)
        if message.method != "tools/call" or not message.is_request:
            text = f"oao: {message.method} is no request that a client may send"
            return _json(error_message(message.id, INVALID_REQUEST, text), 400)
        return await self._call(request, client, message)

    async def _call(self, request: Request, client: Client, message: Message) -> Response:
        """Judge a call of a tool, and pass it on where it is allowed."""
        call = client.call(message)
        raw = await call.allowed()
        if raw is None:
            return _answered(await call.answer())
        if raw is not message.raw and any(name.startswith("mcp-param-") for name in request.headers):
            return _answered(await call.give_up("a policy changed the arguments, and headers repeat the old ones"))
        passing = asyncio.create_task(self._passed_call(request, client, call, raw))
        try:
            await asyncio.wait({passing, call.task}, return_when=asyncio.FIRST_COMPLETED)
            if not passing.done() and not call.was_told:
                # It took too long, or the client cancelled it.
                answer = await call.answer()
                with contextlib.suppress(RemoteError):
                    told = {"requestId": message.id, "reason": "the call was given up"}
                    await self._replying(request)(
                        dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": told})
                    )
                return _answered(answer)
            return await passing
        finally:
            if not passing.done():
                passing.cancel()

    async def _passed_call(self, request: Request, client: Client, call: PendingCall, raw: bytes) -> Response:
        sent = await self._send(request, raw)
        if isinstance(sent, Response) or not sent.is_success:
            await call.give_up(f"the MCP server answered with HTTP {sent.status_code}")
            return sent if isinstance(sent, Response) else await self._relayed(request, client, sent)
        response = await self._relayed(request, client, sent, call)
        if not isinstance(response, StreamingResponse) and not call.was_told:
            return _answered(await call.give_up("the MCP server sent no answer that can be judged"))
        return response

    async def _pass(self, request: Request, client: Client, body: bytes) -> Response:
        sent = await self._send(request, body)
        if isinstance(sent, Response):
            return sent
        session_id = sent.headers.get(_SESSION)
        if session_id and sent.is_success and not request.headers.get(_SESSION):
            client = self._clients.opened(session_id, client)
        if request.method == "DELETE" and sent.is_success:
            await self._clients.closed(request.headers.get(_SESSION, ""))
        return await self._relayed(request, client, sent)

    async def _send(self, request: Request, body: bytes) -> httpx.Response | Response:
        """Send a request to the server; an answer of the proxy's own where there is no server."""
        path, query = request.scope["raw_path"].decode("ascii"), request.url.query
        if path.rstrip("/") == self._path.rstrip("/"):
            query = "&".join(part for part in (self._query, query) if part)
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _OF_ONE_CONNECTION]
        url = f"{self._origin}{path}{f'?{query}' if query else ''}"
        outgoing = self._http.build_request(
            request.method, url, headers=[*headers, ("accept-encoding", "identity")], content=body or None
        )
        try:
            return await self._http.send(outgoing, stream=True)
        except httpx.HTTPError as error:
            self._say(f"the MCP server does not answer: {type(error).__name__}")
            return Response(f"oao: the MCP server does not answer: {type(error).__name__}", status_code=502)

    async def _relayed(
        self, request: Request, client: Client, sent: httpx.Response, own: PendingCall | None = None
    ) -> Response:
        """Pass on what the server answers, and look at the messages in it."""
        headers = self._headers(request, sent)
        if sent.headers.get("content-encoding", "identity").lower() != "identity":
            await sent.aclose()
            return Response("oao: the server encoded its answer, which cannot be judged", status_code=502)
        kind = sent.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            events = client.events(sent.aiter_raw(), self._replying(request), own)
            return _with(StreamingResponse(_closing(sent, events), sent.status_code), headers)
        body = bytearray()
        async for chunk in sent.aiter_raw():
            body += chunk
            if len(body) > self._most_bytes:
                await sent.aclose()
                return Response("oao: the server's answer is too long", status_code=502)
        await sent.aclose()
        content = bytes(body)
        if kind == "application/json" and content and sent.is_success and request.method == "POST":
            try:
                content = await client.document(content, own)
            except UnreadableError as error:
                return Response(f"oao: the server's answer cannot be judged: {error.reason}", status_code=502)
        return _with(Response(content, sent.status_code), headers)

    def _replying(self, request: Request) -> Callable[[bytes], Awaitable[None]]:
        """Return what answers the server in the client's place, as the client would."""
        kept = {
            name: value
            for name, value in request.headers.items()
            if name in {"authorization", _SESSION, "mcp-protocol-version", "cookie"}
        }
        fixed = {"content-type": "application/json", "accept": "application/json, text/event-stream"}

        async def reply(raw: bytes) -> None:
            url = f"{self._origin}{self._path}{f'?{self._query}' if self._query else ''}"
            try:
                await self._http.post(url, headers={**kept, **fixed}, content=raw)
            except httpx.HTTPError as error:
                raise RemoteError(f"the MCP server does not answer: {type(error).__name__}") from error

        return reply

    def _headers(self, request: Request, sent: httpx.Response) -> list[tuple[str, str]]:
        here = f"{request.url.scheme}://{request.url.netloc}"

        def passed(name: str, value: str) -> tuple[str, str]:
            # Else the client would go to the server, past the gate.
            away = name == "location" and value.startswith(self._origin)
            return name, f"{here}{value.removeprefix(self._origin)}" if away else value

        pairs = ((name.lower(), value) for name, value in sent.headers.multi_items())
        return [passed(name, value) for name, value in pairs if name not in _OF_ONE_CONNECTION]


def _with(response: Response, headers: list[tuple[str, str]]) -> Response:
    """Return a response with the server's headers, those that come twice too."""
    own = [pair for pair in response.raw_headers if pair[0] == b"content-length"]
    response.raw_headers = [*own, *((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)]
    return response


def _answered(content: bytes | None) -> Response:
    return Response(status_code=202) if content is None else _json(content)


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


def _may_be_json(body: bytes) -> bool:
    """Return True for what some reader takes for a JSON object or list, in whatever encoding."""
    return body.lstrip(b" \t\r\n\x00\xef\xbb\xbf\xff\xfe")[:1] in {b"{", b"["}


async def _closing(sent: httpx.Response, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield chunks; a server that goes away ends the stream, as it would end the client's own."""
    try:
        with contextlib.suppress(httpx.HTTPError, TooLongError):
            async for chunk in chunks:
                yield chunk
    finally:
        await sent.aclose()


def create_proxy(
    orchestrator: Orchestrator,
    options: Options,
    url: str,
    *,
    host: str = "127.0.0.1",
    hide_denied: bool = False,
    say: Callable[[str], None] = lambda _: None,
    most_bytes: int = MOST_BYTES,
) -> Starlette:
    """Return the proxy of one server as an ASGI application.

    Args:
        orchestrator: Its policies judge; its store keeps the journals.
        options: How sessions are governed.
        url: Of the server's MCP endpoint; the proxy has the same path.
        host: Where it will listen; on this machine alone, other names for it are refused.
        hide_denied: True leaves tools that are denied by their name out of `tools/list`.
        say: Tells a person something, one line.
        most_bytes: How long one message may be.
    """
    proxy = _Proxy(orchestrator, options, url, host=host, hide_denied=hide_denied, say=say, most_bytes=most_bytes)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[Mapping[str, Any]]:
        try:
            yield {}
        finally:
            await proxy.close()

    return Starlette(routes=[Route("/{path:path}", proxy.answer, methods=list(_METHODS))], lifespan=lifespan)


def serve(
    orchestrator: Orchestrator,
    options: Options,
    url: str,
    *,
    host: str,
    port: int,
    hide_denied: bool,
    say: Callable[[str], None],
) -> None:
    """Listen until told to stop.

    Raises:
        UsageError: The port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}; check --host, --port") from error
    listening.listen(2048)
    app = create_proxy(orchestrator, options, url, host=host, hide_denied=hide_denied, say=say)
    shown = f"[{host}]" if ":" in host else host
    say(f"listens on http://{shown}:{listening.getsockname()[1]}{urlsplit(url).path or '/'} for {url}")
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, log_config=None, timeout_graceful_shutdown=_GRACE_S
    )
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        uvicorn.Server(config).run(sockets=[listening])
