"""The entry point: the adapter, and the patch of Parrot's leaves. Parrot is not imported before somebody uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oao_hookspecs import Adapter, hookimpl
from oao_parrot.adapter import ParrotAdapter

__all__ = ["oao_adapters", "oao_leaves"]


@hookimpl
def oao_adapters() -> Sequence[Adapter]:
    """Offer what drives an agent."""
    return [ParrotAdapter()]


@hookimpl
def oao_leaves() -> Sequence[tuple[str, Callable[[], None]]]:
    """Offer the patch, applied as soon as `parrot` is imported."""
    return [("parrot", _install)]


def _install() -> None:
    from oao_parrot.leaves import install  # noqa: PLC0415 - imports Parrot

    install()
