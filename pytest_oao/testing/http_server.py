"""One HTTP server on a free loopback port: the plumbing of the scripted and the recorded server.

It owns sockets, threads and framing. It must not know any provider's API.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import socket
import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self, TypeAlias

    _Connection: TypeAlias = socket.socket | tuple[bytes, socket.socket]

__all__ = ["Answer", "LoopbackServer", "Request", "error_answer", "json_answer"]

_logger = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_STOP_TIMEOUT_S = 5.0
_BODYLESS_STATUSES = (204, 304)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client sent.

    Attributes:
        method: The HTTP method, upper case.
        path: The path without the query, such as `/v1/chat/completions`.
        content: The body as it came; empty for none.
    """

    method: str
    path: str
    content: bytes

    def json_object(self) -> dict[str, object] | None:
        """Return the body as a JSON object, or None when it is anything else."""
        try:
            parsed: object = json.loads(self.content)
        except ValueError:
            return None
        return cast("dict[str, object]", parsed) if isinstance(parsed, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server sends back.

    Attributes:
        status: The HTTP status code.
        headers: Name and value pairs, without those that frame the body.
        chunks: The body. One chunk is sent with its length; more are sent one by one, as a chunked transfer.
        delay_s: Seconds to wait before the status line.
        chunk_delay_s: Seconds to wait before each chunk.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    chunks: tuple[bytes, ...] = ()
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0


def json_answer(
    body: object, *, status: int = 200, headers: tuple[tuple[str, str], ...] = (), delay_s: float = 0.0
) -> Answer:
    """Return an answer with one JSON document as its body."""
    return Answer(
        status=status,
        headers=(("content-type", "application/json"), *headers),
        chunks=(json.dumps(body).encode(),),
        delay_s=delay_s,
    )


def error_answer(message: str, *, status: int = 500, kind: str = "test_server_error") -> Answer:
    """Return an error about the test itself, in the shape the OpenAI and Anthropic clients print.

    It asks the client not to retry: a mistake in a test must be seen at once, not after three back-offs.
    """
    body = {"type": "error", "error": {"message": message, "type": kind, "param": None, "code": None}}
    return json_answer(body, status=status, headers=(("x-should-retry", "false"),))


class LoopbackServer(ABC):
    """A server on loopback that can be taken down and brought back at the same address.

    Use it as a context manager, or call `start()` and `stop()`. Each connection has its own thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._requests: list[dict[str, object]] = []
        self._listener: _Listener | None = None
        self._port = 0

    @abstractmethod
    def _answer(self, request: Request) -> Answer:
        """Return the answer to one request; called on the thread of its connection."""

    @property
    def requests(self) -> list[dict[str, object]]:
        """The request bodies so far, parsed, in the order of arrival: a copy, safe to keep and to change."""
        with self._lock:
            return copy.deepcopy(self._requests)

    def start(self) -> None:
        """Listen: on a free port the first time, on the same port ever after. Started already: no effect.

        Raises:
            OSError: The port was taken by another process while the server was down.
        """
        if self._listener is None:
            self._listener = _Listener(self._port, self._answer)
            self._port = self._listener.server_address[1]

    def stop(self) -> None:
        """Close the port and every connection, also in the middle of an answer. Stopped already: no effect.

        Connection attempts are refused from here until `start()`. Requests and scripted answers are kept.
        """
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def wait_for_requests(self, count: int, *, timeout_s: float = 10.0) -> None:
        """Block until at least `count` requests have arrived: how a test meets a request that hangs.

        Raises:
            TimeoutError: Fewer arrived within `timeout_s` seconds.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self._requests) >= count, timeout_s):
                raise TimeoutError(f"{len(self._requests)} of {count} requests arrived within {timeout_s} s")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _root_url(self) -> str:
        if not self._port:
            raise RuntimeError(f"{type(self).__name__} has no address before its first start(); use `with`")
        return f"http://{_HOST}:{self._port}"

    def _record(self, body: dict[str, object]) -> None:
        """Note a request; the caller holds the lock, so that order of arrival and order of answers agree."""
        self._requests.append(copy.deepcopy(body))
        self._arrived.notify_all()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the default of 5 makes the sixth of many concurrent connections wait a second

    def __init__(self, port: int, respond: Callable[[Request], Answer]) -> None:
        super().__init__((_HOST, port), _Handler)
        self.respond = respond
        self.closing = threading.Event()
        self._connections: dict[_Connection, threading.Thread | None] = {}
        self._changed = threading.Condition()
        # The short poll bounds what every stop() costs: shutdown() waits for the next one.
        self._loop = threading.Thread(target=self.serve_forever, args=(0.01,), name="oao-loopback", daemon=True)
        self._loop.start()

    def server_bind(self) -> None:
        # Not HTTPServer's own: it looks up the host's name, which takes seconds where reverse DNS is broken.
        TCPServer.server_bind(self)

    def process_request(self, request: _Connection, client_address: object) -> None:
        # Noted here, on the accepting thread: close() joins it, so it can miss no connection.
        with self._changed:
            self._connections[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request: _Connection, client_address: object) -> None:
        with self._changed:
            self._connections[request] = threading.current_thread()
        super().process_request_thread(request, client_address)

    def shutdown_request(self, request: _Connection) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._connections.pop(request, None)
            self._changed.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:
        lost = isinstance(sys.exc_info()[1], OSError)
        level = logging.DEBUG if lost else logging.ERROR
        _logger.log(level, "connection from %s ended early", client_address, exc_info=True)

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self._loop.join()
        self.server_close()
        with self._changed:
            # A pooled keep-alive connection would go on serving a client after the port is closed.
            for connection in self._others():
                with contextlib.suppress(OSError):  # the client was faster
                    cast("socket.socket", connection).shutdown(socket.SHUT_RDWR)
            if not self._changed.wait_for(lambda: not self._others(), _STOP_TIMEOUT_S):
                _logger.warning("%d connections busy %s s after stop", len(self._others()), _STOP_TIMEOUT_S)

    def _others(self) -> list[_Connection]:
        """Return the open connections but the caller's own: a scripted reply may stop its server."""
        me = threading.current_thread()
        return [connection for connection, thread in self._connections.items() if thread is not me]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Small writes without this wait for the client's delayed acknowledgement: 40 ms a chunk.
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        listener = cast("_Listener", self.server)
        if "transfer-encoding" in self.headers:
            self.close_connection = True
            answer = error_answer("send the body with a content-length, not as a chunked transfer", status=411)
        else:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = urlsplit(self.path).path
            answer = listener.respond(Request(method=self.command, path=path, content=content))
        if listener.closing.wait(answer.delay_s):
            self.close_connection = True
            return
        self._send(answer, listener.closing)

    # The names are http.server's.
    do_DELETE = do_GET = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = _serve  # noqa: N815

    def _send(self, answer: Answer, closing: threading.Event) -> None:
        # Without send_response: it would add a Date and a Server beside the recorded ones.
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status in _BODYLESS_STATUSES:
            self.end_headers()
            return
        streamed = len(answer.chunks) > 1
        if streamed:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", str(sum(map(len, answer.chunks))))
        self.end_headers()
        if self.command == "HEAD":
            return
        for chunk in answer.chunks:
            if closing.wait(answer.chunk_delay_s):
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if streamed else chunk)
        if streamed:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        _logger.debug(format, *args)
