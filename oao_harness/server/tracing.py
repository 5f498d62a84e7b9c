"""How requests are traced: by FastAPI itself, and sent to where the runs' spans go. It decides what is left out."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any, Final

from fastapi.telemetry import TelemetryConfig

from oao_harness.listeners.registry import bundled_tracing

__all__ = ["REQUESTS", "begin_tracing", "is_untraced"]

# Asked for all the time, or open for hours: neither tells anything about a run.
_UNTRACED: Final = re.compile(r"/(?:healthz|readyz|metrics|events|live)$|^/(?:static|ws)/")


def is_untraced(scope: MutableMapping[str, Any]) -> bool:
    """Return True for a request that becomes no span."""
    return _UNTRACED.search(str(scope["path"])) is not None


REQUESTS: Final[TelemetryConfig] = {
    # One span for each request: those of its parts would stand between it and the run. What goes wrong is logged by
    # the server's own records, which are scrubbed.
    "operation_spans": False,
    "logs": False,
    "auto_configure": False,
    "exclude": is_untraced,
}
"""What FastAPI is told. Without a tracer provider it traces nothing."""


def begin_tracing() -> None:
    """Set up where spans go, where the environment says so: the first request is traced before the first run is."""
    if bundled_tracing() is not None:
        from oao_harness.listeners.exporting import tracer_provider  # noqa: PLC0415 - optional

        tracer_provider()
