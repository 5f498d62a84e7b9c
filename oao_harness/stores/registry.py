"""Opens the bundled stores and ledgers by URL: `memory:`, `sqlite:PATH` and, for ledgers, `redis://host:port/db`."""

from __future__ import annotations

from oao_harness.errors import ConfigError
from oao_hookspecs import Ledger, Store, hookimpl

__all__ = ["oao_open_ledger", "oao_open_store"]


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


@hookimpl
def oao_open_ledger(url: str) -> Ledger | None:
    """Open a bundled ledger; other schemes are other plugins' business."""
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        from oao_harness.stores.memory_ledger import shared_memory_ledger  # noqa: PLC0415

        return shared_memory_ledger(rest)
    if scheme == "sqlite":
        from oao_harness.stores.sqlite_ledger import SQLiteLedger  # noqa: PLC0415

        return SQLiteLedger(rest.removeprefix("//") or ".oao/oao.db")
    if scheme in {"redis", "rediss"}:
        try:
            from oao_harness.stores.redis_ledger import RedisLedger  # noqa: PLC0415
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "redis":
                raise
            raise ConfigError(
                f"a {scheme}: ledger needs the package redis: pip install 'oao-harness[redis]'"
            ) from error
        return RedisLedger(url)
    return None
