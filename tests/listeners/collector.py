"""A collector of traces for tests: OTLP over HTTP on loopback, decoded, and what a test asks of what came."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A span as it came over the wire."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, Any]
    events: list[tuple[str, Mapping[str, Any]]]
    links: list[tuple[str, str]]
    failed: bool
    message: str
    start_ns: int
    end_ns: int
    service: str
    scope: str
    kind: int


class Collector:
    """What was sent to it, in the order in which it came."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests = 0
        self.raw = b""
        self.spans: list[Sent] = []
        self._changed = threading.Condition()

    def took(self, body: bytes) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        with self._changed:
            self.requests += 1
            self.raw += body
            self.spans += _spans(request)
            self._changed.notify_all()

    def until(self, enough: Callable[[Collector], bool], timeout_s: float = 20.0) -> list[Sent]:
        """Wait until enough has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self), timeout_s), [span.name for span in self.spans]
        return self.spans

    def named(self, name: str) -> list[Sent]:
        return [span for span in self.spans if span.name == name]


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind or "", 0)


def _pairs(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _spans(request: ExportTraceServiceRequest) -> Iterator[Sent]:
    for resource in request.resource_spans:
        service = _pairs(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Sent(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    attributes=_pairs(span.attributes),
                    events=[(event.name, _pairs(event.attributes)) for event in span.events],
                    links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    failed=span.status.code == 2,
                    message=span.status.message,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    service=service,
                    scope=scope.scope.name,
                    kind=span.kind,
                )


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens."""
    collector = Collector("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.headers["Content-Type"] == "application/x-protobuf"
            assert self.path == "/v1/traces", self.path
            collector.took(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def orphans(spans: list[Sent], remote: frozenset[str] = frozenset()) -> list[str]:
    """Return the names of the spans whose parent was neither sent nor is known to be elsewhere."""
    known = {span.span_id for span in spans} | remote | {""}
    return [span.name for span in spans if span.parent_id not in known]


def tree(spans: list[Sent], parent_id: str = "", depth: int = 0) -> list[str]:
    """Return the spans as lines, indented below their parents, in the order in which they began."""
    lines: list[str] = []
    for span in sorted((one for one in spans if one.parent_id == parent_id), key=lambda one: one.start_ns):
        about = span.attributes.get("gen_ai.tool.name") or span.attributes.get("oao.node") or ""
        lines.append("  " * depth + f"{span.name} {about}".rstrip())
        lines += tree(spans, span.span_id, depth + 1)
    return lines


def wait_for(is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)
