"""Opens the bundled stores by URL: `memory:` and `sqlite:PATH`."""

from __future__ import annotations

from oao_hookspecs import Store, hookimpl

__all__ = ["oao_open_store"]


@hookimpl
def oao_open_store(url: str) -> Store | None:
    """Open a bundled store; other schemes are other plugins' business."""
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        from oao_harness.stores.memory import MemoryStore  # noqa: PLC0415 - a bundled plugin, loaded when asked for

        return MemoryStore()
    if scheme == "sqlite":
        from oao_harness.stores.sqlite import SQLiteStore  # noqa: PLC0415

        return SQLiteStore(rest.removeprefix("//") or ".oao/oao.db")
    return None
