"""Patches the leaves of frameworks as soon as they are imported: once per process, inert outside of runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

import wrapt

__all__ = ["install_when_imported"]

_lock: Final = threading.Lock()
# Process-wide, because what it remembers is: patched classes stay patched.
_registered: Final[set[tuple[str, str]]] = set()


def install_when_imported(leaves: Iterable[tuple[str, Callable[[], None]]]) -> None:
    """Call each function when its module is imported, now or later.

    Args:
        leaves: Module names and functions, from `oao_leaves`.

    Raises:
        FrameworkError: An imported framework lacks the methods that oao governs.
    """
    for trigger, install in leaves:
        key = (trigger, repr(getattr(install, "args", install)))
        with _lock:
            if key in _registered:
                continue
            _registered.add(key)
        wrapt.register_post_import_hook(_calling(install, key), trigger)


def _calling(install: Callable[[], None], key: tuple[str, str]) -> Callable[[object], None]:
    def imported(_module: object) -> None:
        try:
            install()
        except BaseException:
            # Tried, and refused, again by whoever comes next: a framework that cannot be governed must not slip by.
            with _lock:
                _registered.discard(key)
            raise

    return imported
