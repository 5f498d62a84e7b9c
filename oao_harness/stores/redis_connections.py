"""Connections to a Redis server that stay at hand between two commands. Owns which one is used, not what is sent."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import redis

__all__ = ["Connections"]


class Connections:
    """Lends connections of a pool, and hands back to it only what is broken, or what another thread waits for.

    The pool looks at the socket and counts each time that it lends: of what an append costs that is a third.

    Args:
        pool: A blocking pool; it says how many may be open at once.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._ready: list[Any] = []
        self._waiting = 0
        """Threads that ask the pool: what comes back goes there."""
        self._process = os.getpid()

    @contextmanager
    def lent(self) -> Generator[Any, None, None]:
        """Lend a connection for one command and its answer.

        Raises:
            redis.ConnectionError: There is none, or none was free in time.
        """
        connection = self._take()
        try:
            yield connection
        except redis.ResponseError:
            # An answer like any other.
            self._put(connection)
            raise
        except BaseException:
            # Its answer may still come: nobody must take it for his own.
            connection.disconnect()
            self._pool.release(connection)
            self.forget()
            raise
        self._put(connection)

    def _take(self) -> Any:
        if self._process != os.getpid():
            # A fork: the sockets are the parent's.
            self._lock, self._ready, self._waiting, self._process = threading.Lock(), [], 0, os.getpid()
        with self._lock:
            if self._ready:
                return self._ready.pop()
            self._waiting += 1
        try:
            return self._pool.get_connection()
        finally:
            with self._lock:
                self._waiting -= 1

    def _put(self, connection: Any) -> None:
        with self._lock:
            if not self._waiting:
                self._ready.append(connection)
                return
        self._pool.release(connection)

    def forget(self) -> None:
        """Hand all back: the pool looks at a connection before it lends it, and these may be as broken as the last."""
        with self._lock:
            found, self._ready = self._ready, []
        for connection in found:
            self._pool.release(connection)
