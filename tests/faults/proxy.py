"""A TCP proxy that cuts connections in the middle of what somebody writes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Final

__all__ = ["CuttingProxy"]

_MARK: Final = b"outcome"


class CuttingProxy:
    """Stands between workers and their server, on loopback.

    Args:
        port: Of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cuts = 0
        """How many connections were cut."""
        self._mode = ""
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cut_next(self, mode: str) -> None:
        """Cut the next connection on which the outcome of a call is written.

        Args:
            mode: `request`: the server gets the first half of it. `answer`: it gets all, and its answer is lost.
        """
        with self._lock:
            self._mode = mode

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        with self._lock:
            left = list(self._sockets)
        for one in left:
            _close(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port), timeout=5)
            except OSError:
                if self._listener.fileno() == -1:
                    return
                continue
            server.settimeout(None)
            with self._lock:
                self._sockets |= {client, server}
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                mode = self._mode_for(data)
                if mode:
                    # First, so that no byte of an answer comes back.
                    _shut(client)
                server.sendall(data[: data.index(_MARK)] if mode == "request" else data)
                if mode == "answer":
                    # The server does what it was told before it notices.
                    time.sleep(0.05)
                if mode:
                    break
        self._drop(client)
        self._drop(server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        self._drop(server)
        self._drop(client)

    def _mode_for(self, data: bytes) -> str:
        if _MARK not in data:
            return ""
        with self._lock:
            mode, self._mode = self._mode, ""
            self.cuts += bool(mode)
        return mode

    def _drop(self, one: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(one)
        _close(one)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def _close(one: socket.socket) -> None:
    _shut(one)
    with contextlib.suppress(OSError):
        one.close()
