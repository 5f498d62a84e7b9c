"""Gives back what a store's file still holds of what was deleted or replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.status import Status
from rich.text import Text

from oao_harness.cli.console import console
from oao_hookspecs import Store

__all__ = ["Compacting", "compact_store", "waiting"]


@runtime_checkable
class Compacting(Protocol):
    """A store that keeps what was deleted until it is told to let go of it."""

    def compact(self) -> bool:
        """Write anew what the store holds, so that nothing else is left; False where a reader keeps an old copy."""
        ...


def compact_store(store: Store, on: Console) -> None:
    """Let a store forget what was deleted or replaced in it; says so where it cannot.

    Args:
        store: Where runs were deleted or redacted.
        on: Where to say it.
    """
    if not isinstance(store, Compacting):
        return
    if not waiting("writing the store anew", store.compact):
        told = "another process reads the store, so its file still holds what was there; then: oao runs compact"
        on.print(Text(told, style="yellow"), soft_wrap=True)


def waiting(what: str, work: Callable[[], bool]) -> bool:
    """Do something that may take a while, and say so on a terminal meanwhile.

    Args:
        what: Is being done.
        work: Does it.
    """
    err = console(stderr=True)
    if not err.file.isatty():
        return work()
    with Status(Text(what), console=err):
        return work()
