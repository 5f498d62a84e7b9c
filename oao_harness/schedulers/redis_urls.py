"""The server of a fleet: its URL, its connections, and what must be right there. Owns the messages about it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from oao_harness.errors import ConfigError, OaoError, StoreError

__all__ = ["Place", "failure", "inspect", "make_client", "read_url"]

_log: Final = logging.getLogger(__name__)

PREFIX: Final = "oao:jobs"
_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_OLDEST: Final = (6, 2)
"""Of XAUTOCLAIM, by which jobs of a dead worker are found. Source: redis.io/commands/xautoclaim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the jobs of a fleet are."""

    url: str
    """For the client: without our own options."""
    prefix: str
    """What all keys of the fleet begin with."""
    name: str
    """How a message names it: without user and password."""


def read_url(url: str) -> Place:
    """Return what a scheduler's URL says.

    Args:
        url: `redis://[[user]:password@]host[:port][/db][?prefix=NAME]`, `rediss://` for TLS, with redis-py's options.

    Raises:
        ConfigError: It is wrong.
    """
    what = "the scheduler's URL is wrong"
    ask = "give redis://host:port/db?prefix=NAME"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or 6379
    except ValueError as error:
        raise ConfigError(f"{what}: {error}; {ask}") from error
    if parts.scheme not in {"redis", "rediss"}:
        raise ConfigError(f"{what}: it begins with {parts.scheme!r}; {ask}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = options.pop("prefix", PREFIX)
    for of_the_store in ("keep", "zero_loss"):
        # One URL may name both; the store looks at what the server keeps.
        options.pop(of_the_store, None)
    if _NAME.fullmatch(prefix) is None:
        raise ConfigError(f"{what}: the prefix {prefix!r} is no name of letters, digits and . _ : -; {ask}")
    place = Place(
        url=urlunsplit(parts._replace(query=urlencode(options))),
        prefix=prefix,
        name=f"{parts.scheme}://{host}:{port}/{parts.path.strip('/') or 0}",
    )
    try:
        pool: Any = cast("Any", redis.asyncio.ConnectionPool).from_url(place.url)
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{what}: {error}; {ask}") from error
    return place


def make_client(kind: type[Any], place: Place, *, connections: int, tries: int) -> Any:
    """Return a client with connections of its own.

    Args:
        kind: The class of the client.
        place: The server.
        connections: How many may be open at once, unless the URL says more.
        tries: How often a command is sent again where the connection broke; 0.05 s to 1 s lie between.
    """
    pool: Any = cast("Any", redis.asyncio.ConnectionPool).from_url(
        place.url,
        protocol=2,
        socket_timeout=10.0,
        socket_connect_timeout=5.0,
        health_check_interval=30,
        max_connections=connections,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), tries) if tries else Retry(NoBackoff(), 0),
    )
    pool.max_connections = max(pool.max_connections, connections)
    return kind(connection_pool=pool)


def failure(place: Place, error: Exception) -> OaoError:
    """Return what to say where the server failed."""
    where = f"the scheduler {place.name}"
    text = str(error)
    if isinstance(error, AuthenticationError) or "NOAUTH" in text or "WRONGPASS" in text:
        return ConfigError(
            f"{where} wants another password ({text}); give redis://:PASSWORD@host:port/db, or "
            "redis://USER:PASSWORD@host:port/db"
        )
    if isinstance(error, NoPermissionError):
        return ConfigError(f"{where} does not let this user do that ({text}); widen its ACL")
    return StoreError(f"{where} failed: {text or type(error).__name__}; is it running, and can it be reached?")


async def inspect(place: Place, client: Any) -> None:
    """Refuse a server that is too old, or forgets while it runs; warn where it forgets when it dies.

    Args:
        place: The server.
        client: Of it.

    Raises:
        ConfigError: It cannot be used.
        StoreError: It cannot be reached.
    """
    where = f"the scheduler {place.name}"
    try:
        found: dict[str, Any] = await client.info()
    except NoPermissionError:
        return
    except (RedisError, OSError) as error:
        raise failure(place, error) from error
    check(where, found)


def check(where: str, found: dict[str, Any]) -> None:
    """Judge a server by its answer to INFO.

    Args:
        where: The server, for a message.
        found: The answer.

    Raises:
        ConfigError: It cannot be used.
    """
    version = str(found.get("redis_version", "0"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _OLDEST:
        raise ConfigError(f"{where} is Redis {version}, and jobs need 6.2 or newer (the store: 7.0); upgrade it")
    policy = str(found.get("maxmemory_policy", "noeviction"))
    if found.get("maxmemory") and policy.startswith("allkeys"):
        raise ConfigError(
            f"{where} evicts keys when memory is full (maxmemory-policy {policy}), and jobs would be lost; "
            "set it to noeviction"
        )
    if found.get("aof_enabled") != 1:
        _log.warning("%s has no append-only file: jobs are lost when it dies; set appendonly yes", where)
