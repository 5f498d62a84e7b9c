"""What one connection may take before a request of it is known: the head in time, and of a size. Judges no request.

The web server has no limit of its own for either: whoever sends the beginning of a head holds a connection for ever,
and one header without end holds as much memory as is sent. Source: uvicorn 0.54, `HttpToolsProtocol`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["connections", "most_connections"]

_MOST_HEAD_BYTES: Final = 64 * 1024
_PER_BODY_BYTE: Final = 8
"""Bytes around one byte of a body that comes in chunks: its length, line ends, what follows the body."""
_KEPT_FILES: Final = 256
"""Files that are left for the store, for agents and for logs."""
_FEWEST: Final = 64


class _Connection(HttpToolsProtocol):
    """A connection whose heads come in time, or that is closed."""

    def __init__(self, *args: Any, head_s: float, **more: Any) -> None:
        super().__init__(*args, **more)
        self._head_s = head_s
        self._timer: asyncio.TimerHandle | None = None
        self._around = 0
        """Bytes of the request that are none of its body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._around = 0
        self._begin()

    def on_headers_complete(self) -> None:
        self._end()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._around -= _PER_BODY_BYTE * len(body)
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        self._around += len(data)
        super().data_received(data)
        if self._around > _MOST_HEAD_BYTES and not self.transport.is_closing():
            self._end()
            # There is no cycle before the first request.
            if getattr(self.cycle, "response_complete", True):
                self.send_400_response("The head of the request is too large.")
            else:
                self.transport.close()

    def _begin(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._head_s, self._late)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()


def connections(head_s: float) -> Any:
    """Return what uvicorn is given as `http`.

    Args:
        head_s: Seconds in which the head of a request must have come, from its first byte; of the first one of a
            connection from its beginning.
    """
    made: Callable[..., _Connection] = functools.partial(_Connection, head_s=head_s)
    return made


def most_connections() -> int | None:
    """Return how many connections this process may have at once, so that files are left; None where nobody knows."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return None
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return None
    return max(_FEWEST, allowed - _KEPT_FILES)
