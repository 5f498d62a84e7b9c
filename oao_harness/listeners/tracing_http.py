"""Traces the requests of an ASGI application, where traces are switched on. `oao serve` needs it not: see FastAPI."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeVar, cast

from oao_harness.listeners.registry import bundled_tracing

__all__ = ["traced_app"]

_log = logging.getLogger("oao")
App = TypeVar("App", bound=Callable[..., Any])
# Asked for all the time, or open for hours: neither tells anything about a run.
_EXCLUDED: Final = ("/healthz$", "/readyz$", "/metrics$", "/static/", "/events$", "/live$", "/ws/")


def traced_app(app: App) -> App:
    """Return an ASGI application whose requests are traced; the same one where traces are not switched on.

    A request that comes with a W3C `traceparent` is a part of that trace. Health checks, metrics, static files and
    event streams are left out, and what the variable `OTEL_PYTHON_ASGI_EXCLUDED_URLS` names.

    Args:
        app: The application.
    """
    if bundled_tracing() is None:
        return app
    try:
        middleware = import_module("opentelemetry.instrumentation.asgi").OpenTelemetryMiddleware
    except ImportError as error:
        _log.warning(
            "requests are not traced, because %s cannot be imported; install oao-harness[otel]", error.name or error
        )
        return app
    from oao_harness.listeners.exporting import tracer_provider  # noqa: PLC0415 - optional

    own = os.environ.get("OTEL_PYTHON_ASGI_EXCLUDED_URLS", "")
    excluded = ",".join(filter(None, (*_EXCLUDED, own)))
    traced = middleware(
        app, excluded_urls=excluded, tracer_provider=tracer_provider(), exclude_spans=["receive", "send"]
    )
    return cast("App", traced)
