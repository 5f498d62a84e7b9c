"""Offers the bundled listeners that the environment asks for. None of them is imported before."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from oao_hookspecs import hookimpl

if TYPE_CHECKING:
    from oao_harness.listeners.tracing import Tracing

__all__ = ["bundled_tracing", "is_traced", "oao_listeners"]

_log = logging.getLogger("oao")
# Source: OpenTelemetry, "Environment variable specification" and "OTLP exporter configuration".
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def is_traced() -> bool:
    """Return True where the environment asks for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporters and "otlp" not in exporters.replace(" ", "").split(","):
        return False
    return any(os.environ.get(name, "").strip() for name in _ENDPOINTS)


def bundled_tracing() -> Tracing | None:
    """Return the listener of this process that traces; None where the environment does not ask for it."""
    return _tracing() if is_traced() else None


@functools.cache
def _tracing() -> Tracing | None:
    try:
        from oao_harness.listeners.tracing import Tracing  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        _log.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, but %s cannot be imported (%s); runs go on without traces: "
            "install oao-harness[otel], or unset the variable",
            error.name or "opentelemetry",
            error,
        )
        return None
    return Tracing()


@hookimpl
def oao_listeners() -> Sequence[object]:
    """Return the listeners that are switched on."""
    found = bundled_tracing()
    return () if found is None else (found,)
