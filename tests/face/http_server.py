"""A real HTTP server on this machine, in a thread, for what agents and tools fetch."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ALL_BYTES = bytes(range(256))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hits: list[str]

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hits.append(f"{self.command} {path}")
        body = self._body()
        if path == "/redirect":
            self._out(302, b"", location="/weather?city=Oslo")
        elif path == "/empty":
            self._out(204, b"")
        elif path == "/gzip":
            packed = gzip.compress(b'{"packed": true}')
            self._out(200, packed, **{"content-encoding": "gzip", "content-type": "application/json"})
        elif path == "/bytes":
            self._out(200, ALL_BYTES, **{"content-type": "application/octet-stream"})
        elif path == "/stream":
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            try:
                while not self.server.over.wait(0.02):  # type: ignore[attr-defined]
                    self.wfile.write(b"data: tick\n\n")
                    self.wfile.flush()
            except OSError:
                return
        elif path == "/busy":
            self._out(503 if self.hits.count("GET /busy") == 1 else 200, b"busy")
        else:
            answer = {"path": path, "hit": len(self.hits), "got": len(body)}
            kept = {"content-type": "application/json", "set-cookie": "session=very-private", "x-internal": "private"}
            self._out(200, json.dumps(answer).encode(), **kept)

    do_GET = do_POST = do_HEAD = _answer

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _out(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(hits: list[str]) -> Iterator[str]:
    """Serve until the block ends; yield the URL. `hits` are the requests that came."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"hits": hits}))
    server.daemon_threads = True
    server.over = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join(5)
