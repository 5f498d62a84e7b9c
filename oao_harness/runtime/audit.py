"""The one audit hook of this process: hands the events that somebody listens to on, and costs the others a look-up.

An audit hook cannot be removed, and each one costs every audited operation of the process; so there is one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

__all__ = ["Listener", "listen"]

Listener: TypeAlias = "Callable[[str, tuple[Any, ...]], None]"
"""Is told the event and its arguments; what it raises ends the operation."""


class _Ear:
    """Who listens to what. One for the process, as audit hooks are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self._installed = False

    def listen(self, events: Iterable[str], listener: Listener) -> None:
        with self._lock:
            for event in events:
                known = self._listeners.get(event, ())
                if listener not in known:
                    self._listeners[event] = (*known, listener)
            if self._installed:
                return
            self._installed = True
        find = self._listeners.get

        def hook(event: str, args: tuple[Any, ...]) -> None:
            listeners = find(event)
            if listeners is not None:
                for told in listeners:
                    told(event, args)

        sys.addaudithook(hook)


_ear: Final = _Ear()


def listen(events: Iterable[str], listener: Listener) -> None:
    """Tell a function of every audit event of some names, for good.

    Args:
        events: Names of audit events. Source: the audit events table of the Python library reference.
        listener: Should return at once where it has nothing to do. Asked twice, it listens once.
    """
    _ear.listen(events, listener)
