"""What Python does after a script: waits for its threads, calls its exit functions. Here both are still of its run."""

from __future__ import annotations

import atexit
import functools
import sys
import threading
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["Exits", "collected_exits", "wait_for_threads"]


def wait_for_threads(before: Collection[threading.Thread]) -> None:
    """Wait for the threads that a script left behind, executors included.

    Args:
        before: Those that were there before the script.
    """
    left = [one for one in threading.enumerate() if one not in before and not one.daemon and one.is_alive()]
    if left:
        # Only it ends the idle threads of executors; `multiprocessing` calls it for the same reason. This process runs
        # nothing but the script.
        shutdown: Callable[[], None] = vars(threading)["_shutdown"]
        shutdown()


class Exits:
    """The functions that a script registered with `atexit`.

    Args:
        show: Shows what one of them raised.
    """

    def __init__(self, show: Callable[[BaseException], None]) -> None:
        self._show = show
        self._found: list[tuple[Callable[..., object], Callable[[], object]]] = []

    def add(self, function: Callable[..., object], *args: Any, **keywords: Any) -> None:
        """Keep a function."""
        self._found.append((function, functools.partial(function, *args, **keywords)))

    def remove(self, function: Callable[..., object]) -> None:
        """Forget a function."""
        self._found = [one for one in self._found if one[0] != function]

    def run(self) -> None:
        """Call them, the last one first."""
        while self._found:
            _, call = self._found.pop()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - the others are called all the same, as Python does
                self._show(error)


@contextmanager
def collected_exits(show: Callable[[BaseException], None]) -> Generator[Exits]:
    """Keep what a script registers with `atexit`; what the standard library registers for itself stays Python's.

    Args:
        show: Shows what one of the functions raised.
    """
    register, unregister = atexit.register, atexit.unregister
    exits = Exits(show)

    def register_here(function: Any, /, *args: Any, **keywords: Any) -> Any:
        home = str(getattr(function, "__module__", "") or "").partition(".")[0]
        if home in sys.stdlib_module_names or home == "oao_harness":
            return register(function, *args, **keywords)
        exits.add(function, *args, **keywords)
        return function

    def unregister_here(function: Any, /) -> None:
        exits.remove(function)
        unregister(function)

    atexit.register, atexit.unregister = register_here, unregister_here
    try:
        yield exits
    finally:
        atexit.register, atexit.unregister = register, unregister
