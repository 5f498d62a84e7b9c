"""Opens the bundled stores and ledgers by URL: `memory:`, `sqlite:PATH` and `redis://host:port/db`."""

from __future__ import annotations

import re
from typing import Final, Literal, cast

from oao_harness.errors import ConfigError
from oao_hookspecs import Ledger, Store, hookimpl

__all__ = ["oao_open_ledger", "oao_open_store", "split_sqlite"]

_DURABILITY: Final = re.compile(r"(.*)\?durability=(\w*)", re.DOTALL)


def split_sqlite(rest: str) -> tuple[str, str]:
    """Return the path and the durability of what stands behind `sqlite:`, empty where the URL does not say.

    Args:
        rest: `PATH` or `PATH?durability=power`.
    """
    found = _DURABILITY.fullmatch(rest)
    path, durability = found.groups() if found else (rest, "")
    return path.removeprefix("//"), durability


@hookimpl
def oao_open_store(url: str) -> Store | None:
    """Open a bundled store; other schemes are other plugins' business."""
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        from oao_harness.stores.memory import MemoryStore  # noqa: PLC0415 - a bundled plugin, loaded when asked for

        return MemoryStore()
    if scheme == "sqlite":
        from oao_harness.stores.sqlite import SQLiteStore  # noqa: PLC0415

        path, durability = split_sqlite(rest)
        return SQLiteStore(
            path or ".oao/oao.db", durability=cast("Literal['process', 'power']", durability or "process")
        )
    if scheme in {"redis", "rediss"}:
        try:
            from oao_harness.stores.redis import RedisStore  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise _without_redis(error, scheme, "store") from error
        return RedisStore(url)
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
            raise _without_redis(error, scheme, "ledger") from error
        return RedisLedger(url)
    return None


def _without_redis(error: ModuleNotFoundError, scheme: str, what: str) -> Exception:
    if (error.name or "").partition(".")[0] != "redis":
        return error
    return ConfigError(f"a {scheme}: {what} needs the package redis: pip install 'oao-harness[redis]'")
