"""What is said over a protocol beside calls, such as the handshake of an MCP client: journaled, never judged.

It stands in the journal as an `http` record whose name begins with the protocol. A replay serves it from here: a run
plays with no server at all. Other than calls, an exchange may be asked for more often than it was recorded: clients
look up lists again as they please, and nothing happens by it.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from oao_harness.journal.events import HTTP, RecordedEvent
from oao_hookspecs import Json

__all__ = ["PROTOCOL", "Exchanges", "is_exchange"]

PROTOCOL: Final = "mcp "
"""How the name of an exchange begins; the method follows."""


def is_exchange(event: RecordedEvent) -> bool:
    """Return True for what was said over a protocol, and is no HTTP request."""
    return event.kind == HTTP and event.name.startswith(PROTOCOL)


class Exchanges:
    """Answers exchanges from a recording. Safe to use from many threads.

    Args:
        events: Of the recording.
    """

    def __init__(self, events: Iterable[RecordedEvent]) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, list[RecordedEvent]] = defaultdict(list)
        for event in events:
            if is_exchange(event) and event.outcome is not None:
                self._left[_key(event.name, event.request)].append(event)

    def take(self, name: str, request: Mapping[str, Json]) -> RecordedEvent | None:
        """Return the next recorded exchange that is equal, the last one again where all were served, or None."""
        with self._lock:
            left = self._left.get(_key(name, request), [])
            return left.pop(0) if len(left) > 1 else next(iter(left), None)


def _key(name: str, request: Mapping[str, Json]) -> str:
    return json.dumps([name, request], sort_keys=True)
