"""The connection to a Redis or Valkey server. Owns retries, scripts and messages, not what is kept there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple, TypeAlias, cast

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import NoPermissionError, NoScriptError
from redis.retry import Retry

from oao_harness.errors import ConfigError, StoreError
from oao_harness.stores.redis_connections import Connections

__all__ = ["Asked", "RedisClient", "Value"]

Value: TypeAlias = str | bytes | int
"""What a script is given."""

_log: Final = logging.getLogger(__name__)


class Asked(NamedTuple):
    """A script to run; see `RedisClient.run`."""

    script: str
    keys: Sequence[Value]
    args: Sequence[Value]
    lost: Callable[[], Sequence[Value]]


class RedisClient:
    """A server, and the scripts that are run on it.

    A broken connection is tried again for half a second; a server that does not answer in time is an error at once.

    Args:
        url: `redis://[[user]:password@]host[:port][/db]`, `rediss://` for TLS, with the options of redis-py.
        what: What is kept there, for a message: `store` or `ledger`.
        loss: What a server does that loses it, for a message.
        scripts: Folder of the scripts beside this file, and their names; `common.lua` stands before each.
        timeout_s: Seconds to wait for a connection or an answer.
        connections: How many may be open at once, unless the URL says; further threads wait for one.
        zero_loss: True refuses a server that may lose what it was given when it dies, or when memory is full.

    Raises:
        ConfigError: The URL is wrong, or the server would lose what it is to keep.
        StoreError: The server cannot be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        what: str,
        loss: str,
        scripts: tuple[str, Sequence[str]],
        timeout_s: float,
        connections: int,
        zero_loss: bool = False,
    ) -> None:
        self._what = what
        self._loss = loss
        options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "timeout": timeout_s,
            "max_connections": connections,
            # Not the client's own: it tries again to connect within each try to send, 16 times in all.
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 30,
        }
        try:
            pool: Any = cast("Any", redis.BlockingConnectionPool).from_url(url, **options)
            self._redis: Any = redis.Redis(connection_pool=pool)
            self._connections = Connections(pool)
        except ValueError as error:
            raise ConfigError(f"the {what}'s URL is wrong: {error}; give redis://host:port/db") from error
        self._retry = Retry(ExponentialBackoff(cap=0.4, base=0.05), 3, (redis.ConnectionError,))
        self.name = _without_secrets(pool)
        """How a message names the server: without user and password."""
        self._closed = False
        folder, names = files("oao_harness.stores") / scripts[0], scripts[1]
        common = (folder / "common.lua").read_text("utf-8")
        self._scripts: dict[str, Any] = {
            name: self._redis.register_script(f"{common}\n{(folder / f'{name}.lua').read_text('utf-8')}")
            for name in names
        }
        try:
            self._inspect(zero_loss)
        except BaseException:
            self._redis.close()
            raise

    def _inspect(self, zero_loss: bool) -> None:
        """Refuse a server that would forget while it runs; refuse it, or warn, where it forgets when it dies."""
        what = f"the {self._what} {self.name}"
        try:
            found: dict[str, Any] = self._redis.info()
        except NoPermissionError as error:
            if zero_loss:
                raise ConfigError(
                    f"{what} does not let this user ask what it keeps (INFO); allow it, or leave zero_loss out"
                ) from error
            return
        except (redis.RedisError, OSError) as error:
            raise self.failure(error) from error
        policy = str(found.get("maxmemory_policy", "noeviction"))
        if (found.get("maxmemory") and policy.startswith("allkeys")) or (zero_loss and policy != "noeviction"):
            raise ConfigError(
                f"{what} evicts keys when memory is full (maxmemory-policy {policy}), and {self._loss}; "
                "set it to noeviction"
            )
        if found.get("aof_enabled") == 1:
            return
        if zero_loss:
            raise ConfigError(
                f"{what} has no append-only file, and {self._loss} when it dies; set appendonly yes, or leave "
                "zero_loss out"
            )
        _log.warning("%s has no append-only file: %s when it dies; set appendonly yes", what, self._loss)

    def failure(self, error: Exception) -> StoreError:
        """Return what to say where the server failed."""
        if isinstance(error, redis.AuthenticationError) or str(error).startswith(("NOAUTH", "WRONGPASS")):
            return StoreError(
                f"the {self._what} {self.name} wants another password ({error}); give redis://:PASSWORD@host:port/db"
            )
        return StoreError(f"the {self._what} {self.name} failed: {error}")

    def run(
        self,
        script: str,
        keys: Sequence[Value],
        args: Sequence[Value],
        *,
        lost: Callable[[], Sequence[Value]] | None = None,
    ) -> Any:
        """Run a script, again where its connection broke.

        Args:
            script: Its name.
            keys: The keys it touches.
            args: Its arguments.
            lost: Returns the arguments for the time after an answer may have got lost; None where they are the same.

        Raises:
            StoreError: The server failed; whether the script ran is not known where the connection broke.
        """
        tried = args

        def failed(_error: Exception) -> None:
            nonlocal tried
            tried = lost() if lost is not None else args

        def ask() -> Any:
            try:
                return self._send_packed(self._packed(script, keys, tried))
            except NoScriptError:
                # The server is new, or has forgotten it.
                self._send("SCRIPT LOAD", self._scripts[script].script)
                return self._send_packed(self._packed(script, keys, tried))

        return self._ask(ask, failed)

    def run_many(self, asked: Sequence[Asked]) -> list[Any]:
        """Run scripts in one round trip; each as `run` does where the connection broke.

        Args:
            asked: What to run.

        Returns:
            For each its answer, or the error that `run` raises.
        """
        if self._closed:
            raise StoreError(f"the {self._what} {self.name} is closed")
        found: list[Any] = []
        try:
            with self._connections.lent() as connection:
                # In one piece: the client sends each element of the list by itself.
                sent = b"".join(self._packed(one.script, one.keys, one.args) for one in asked)
                connection.send_packed_command([sent])
                for _ in asked:
                    try:
                        found.append(connection.read_response())
                    except redis.ResponseError as error:
                        found.append(error)
        except (redis.RedisError, OSError):
            # What was not answered may have run.
            _log.debug("the %s %s was lost amid %s scripts", self._what, self.name, len(asked), exc_info=True)
        for place, one in enumerate(asked):
            if place >= len(found):
                found.append(self._run_or_error(one, lost=True))
            elif isinstance(found[place], Exception):
                # The server may be new, and know no script.
                found[place] = self._run_or_error(one, lost=False)
        return found

    def _run_or_error(self, one: Asked, *, lost: bool) -> Any:
        try:
            return self.run(one.script, one.keys, one.lost() if lost else one.args, lost=one.lost)
        except StoreError as error:
            return error

    def command(self, *parts: Value) -> Any:
        """Return what the server answers to a command, asked again where the connection broke.

        Args:
            parts: Its name and arguments.

        Raises:
            StoreError: The server failed.
        """
        return self._ask(lambda: self._send(*parts))

    def _packed(self, script: str, keys: Sequence[Value], args: Sequence[Value]) -> bytes:
        return packed(("EVALSHA", self._scripts[script].sha, len(keys), *keys, *args))

    def _send(self, *parts: Value) -> Any:
        return self._send_packed(packed((*parts[0].split(), *parts[1:]) if isinstance(parts[0], str) else parts))

    def _send_packed(self, command: bytes) -> Any:
        # Not by the client: what it does around a command costs three times the command.
        with self._connections.lent() as connection:
            connection.send_packed_command([command])
            return connection.read_response()

    def _ask(self, question: Callable[[], Any], failed: Callable[[Exception], None] | None = None) -> Any:
        if self._closed:
            raise StoreError(f"the {self._what} {self.name} is closed")
        try:
            return self._retry.call_with_retry(question, failed or _nothing)
        except (redis.RedisError, OSError) as error:
            raise self.failure(error) from error

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        self._redis.close()
        self._redis.connection_pool.disconnect()


def packed(parts: Sequence[Value]) -> bytes:
    """Return a command as the server reads it. The client's own way costs four times as much."""
    sent = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data = part if type(part) is bytes else str(part).encode()
        sent.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(sent)


def _nothing(_error: Exception) -> None:
    """Nothing to do between two tries: the connection was closed by the one that failed."""


def _without_secrets(pool: Any) -> str:
    found: Mapping[str, Any] = pool.connection_kwargs
    place = found.get("path") or f"{found.get('host', 'localhost')}:{found.get('port', 6379)}"
    return f"redis://{place}/{found.get('db') or 0}"
