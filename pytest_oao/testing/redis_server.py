"""A real Redis or Valkey on a free port of loopback, in a folder of its own, for tests. Standard library only."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Final

__all__ = ["RedisServer"]

_PROGRAMS: Final = ("redis-server", "valkey-server")
_START_S: Final = 10.0


class RedisServer:
    """A server that is started by `with` and gone after it.

    Args:
        options: Further arguments of the program, for example `--appendonly yes`.
        program: Name on the PATH, or path, of the program; None takes `redis-server`, else `valkey-server`.

    Raises:
        FileNotFoundError: There is no such program.
    """

    def __init__(self, *options: str, program: str | None = None) -> None:
        wanted = _PROGRAMS if program is None else (program,)
        program = next(filter(None, map(shutil.which, wanted)), None)
        if program is None:
            raise FileNotFoundError(f"none of {', '.join(wanted)} is on the PATH; install one (Debian: redis-server)")
        self._program = program
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="oao-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server, on the port it had where it ran before; wait until it answers.

        Raises:
            RuntimeError: It did not answer within 10 seconds.
        """
        give_up = time.monotonic() + _START_S
        while time.monotonic() < give_up:
            port = self.port or _free_port()
            self._process = subprocess.Popen(  # noqa: S603 - found on the PATH
                [
                    self._program, "--bind", "127.0.0.1", "--port", str(port), "--dir", self._folder.name,
                    "--save", "", *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            # It ends at once where somebody else was given the port in between.
            while self._process.poll() is None and time.monotonic() < give_up:
                if _answers(port):
                    self.port = port
                    return
                time.sleep(0.01)
            self.kill()
        raise RuntimeError(f"{self._program} did not answer on a free port within {_START_S:g} s")

    def kill(self) -> None:
        """Kill the server as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
