"""Offers the bundled listeners that the environment asks for. None of them is imported before."""

from __future__ import annotations

from collections.abc import Sequence

from oao_hookspecs import hookimpl

__all__ = ["oao_listeners"]


@hookimpl
def oao_listeners() -> Sequence[object]:
    """Return the listeners that are switched on."""
    return ()
