"""Where spans go: the tracer provider that the user set up, else one that the environment describes.

The end of the process waits a bounded time for spans that are not sent yet.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Final, cast

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from oao_harness.listeners.registry import is_traced

__all__ = ["flush_where_nobody_else_does", "tracer_provider"]

_log = logging.getLogger("oao")
# How long the end of the process may wait for a collector that does not answer.
_LAST_S: Final = 2.0
_SERVICE: Final = "oao"
# It ends without the functions that a process runs at its end, see `oao_harness.fleet.child`.
_ENDS_AT_ONCE: Final = "oao_harness.fleet.child"
_EXPORTERS: Final = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
}


class _Made:
    """The provider that oao made for this process, if it had to. One instance: OpenTelemetry's is global too."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked = False
        self.provider: TracerProvider | None = None


_made: Final = _Made()


def tracer_provider() -> trace.TracerProvider:
    """Return the global tracer provider; where nobody set one up and the environment names a collector, set one up.

    Nothing is added to a provider of the user's.
    """
    found = trace.get_tracer_provider()
    if isinstance(found, trace.ProxyTracerProvider) and is_traced():
        with _made.lock:
            if not _made.asked:
                _made.asked = True
                _made.provider = _make()
                if _made.provider is not None:
                    trace.set_tracer_provider(_made.provider)
        found = trace.get_tracer_provider()
    return found


def flush_where_nobody_else_does() -> None:
    """Send what is not sent yet, in a process that ends without telling anybody; bounded in time."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if _made.provider is not None and getattr(spec, "name", "") == _ENDS_AT_ONCE:
        _Ending(_made.provider.force_flush)()


def _make() -> TracerProvider | None:
    exporter = _exporter()
    if exporter is None:
        return None
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: _SERVICE}))
    # Its own function for the end of the process would wait 30 seconds for a collector that hangs.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    atexit.register(_Ending(provider.shutdown))
    return provider


class _Ending:
    """Does something in a thread that was started before it is too late for that, and waits a bounded time for it."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        self._asked, self._done = threading.Event(), threading.Event()
        threading.Thread(target=self._work, name="oao-tracing-end", daemon=True).start()

    def __call__(self) -> None:
        self._asked.set()
        if not self._done.wait(_LAST_S):
            _log.warning("the collector of traces took longer than %g s; its last spans may be lost", _LAST_S)

    def _work(self) -> None:
        self._asked.wait()
        try:
            self._act()
        finally:
            self._done.set()


def _exporter() -> SpanExporter | None:
    wanted = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = (wanted or "http/protobuf").strip().lower()
    module = _EXPORTERS.get(protocol)
    if module is None:
        _log.warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL is %r, and oao can send traces by %s; runs go on without traces",
            protocol,
            " or ".join(sorted(_EXPORTERS)),
        )
        return None
    try:
        return cast("SpanExporter", import_module(module).OTLPSpanExporter())
    except ImportError as error:
        package = module.removesuffix(".trace_exporter").replace(".", "-")
        _log.warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL is %r, but its exporter cannot be imported (%s); runs go on without traces: "
            "install %s, or use http/protobuf",
            protocol,
            error,
            package,
        )
    except Exception as error:  # noqa: BLE001 - a wrong endpoint or certificate must not stop a run
        _log.warning("traces cannot be sent: %s; runs go on without them, check OTEL_EXPORTER_OTLP_*", error)
    return None
