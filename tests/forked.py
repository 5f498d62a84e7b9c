"""`python -m MODULE ...` in a process of its own that begins with what it would import anyway.

A process that has imported pytest, pydantic and the like waits for requests, and forks for each of them: what is begun
is a real process, with its own files, environment, working folder and signals, but has not spent a second on imports.
Nothing of oao's pytest plugin is imported before, and a framework only where `frameworks` says so.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any, cast

import pytest
from _pytest.config import default_plugins

ROOT = Path(__file__).parent.parent
LIGHT = (
    "asyncio", "concurrent.futures.thread", "email.message", "gzip", "hmac", "http.client", "importlib.metadata",
    "json", "sqlite3", "ssl", "urllib.request", "uuid", "zoneinfo", "click", "pluggy", "pydantic", "rfc8785",
    "rich.console", "rich.table", "time_machine", "wrapt", "pytest", *(f"_pytest.{name}" for name in default_plugins),
    "_pytest.pytester",
    "oao_harness.cli", "oao_harness.config", "oao_harness.adapters.registry", "oao_harness.journal.playback",
    "oao_harness.journal.recording", "oao_harness.journal.wire_replay", "oao_harness.plugins.manager",
    "oao_harness.policy.coverage", "oao_harness.policy.named", "oao_harness.policy.prices",
    "oao_harness.runtime.orchestrator", "oao_harness.stores.registry", "oao_harness.schedulers.registry",
)  # fmt: skip
FRAMEWORKS = (
    "aiohttp", "httpx", "requests", "openai", "openai.types.chat", "openai.resources.chat.completions",
    "langchain_core.tools", "langchain_core.language_models.chat_models", "langchain.agents", "langgraph.graph",
    "langgraph.prebuilt", "langchain_openai", "fastapi", "uvicorn", "jinja2", "jwt", "limits", "prometheus_client",
    "redis.asyncio", "docket", "sse_starlette", "fastapi.responses", "multipart",
)  # fmt: skip


class Forked:
    """A process that was forked; the part of `subprocess.Popen` that tests use, with texts."""

    def __init__(self, connection: socket.socket, args: Sequence[str], pid: int, *pipes: int) -> None:
        self.args = args
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = None
        self._pipes: list[IO[str]] = [os.fdopen(pipe, "r", encoding="utf-8", errors="replace") for pipe in pipes]
        self.stdout = self._pipes[0] if pipes else None
        self.stderr = self._pipes[1] if len(pipes) > 1 else None
        self._connection = connection

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            ready, _, _ = select.select([self._connection], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            said = self._connection.recv(64)
            self.returncode = int(said) if said else -signal.SIGKILL
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read to the end; what was read before, or is no pipe, is empty."""
        found: dict[int, str] = {}

        def read(number: int, file: IO[str]) -> None:
            if not file.closed:
                with file:
                    found[number] = file.read()

        threads = [Thread(target=read, args=(n, file)) for n, file in enumerate(self._pipes)]
        for thread in threads:
            thread.start()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            for thread in threads:
                thread.join()
        return found.get(0, ""), found.get(1, "")


def start(
    args: Sequence[str], out: int, err: int, *pipes: int, cwd: str, env: Mapping[str, str], frameworks: bool = False
) -> Forked:
    """Begin `MODULE ARGUMENT...` as `python -m` would, writing to two files; the caller may read from pipes."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server(frameworks))
    body = json.dumps({"args": args, "cwd": cwd, "env": dict(env)}).encode()
    socket.send_fds(connection, [len(body).to_bytes(8, "big")], [out, err])
    connection.sendall(body)
    return Forked(connection, args, int.from_bytes(connection.recv(8), "big"), *pipes)


def run(
    args: Sequence[str],
    *,
    cwd: Path | str,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    frameworks: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run `MODULE ARGUMENT...` to its end, as `subprocess.run` with captured texts."""
    process = popen(args, cwd=cwd, env=env, frameworks=frameworks)
    said = process.communicate(timeout)
    return subprocess.CompletedProcess(args, process.wait(), *said)


def popen(
    args: Sequence[str],
    *,
    cwd: Path | str,
    env: Mapping[str, str] | None = None,
    stderr: IO[str] | None = None,
    frameworks: bool = False,
) -> Forked:
    """Begin `MODULE ARGUMENT...`; what it writes is read from pipes, or its errors are written to a file."""
    out, write_out = os.pipe()
    err, write_err = os.pipe() if stderr is None else (None, os.dup(stderr.fileno()))
    pipes = [out] if err is None else [out, err]
    env = os.environ if env is None else env
    try:
        return start(args, write_out, write_err, *pipes, cwd=str(cwd), env=env, frameworks=frameworks)
    finally:
        os.close(write_out)
        os.close(write_err)


class Pytester(pytest.Pytester):
    """A pytester whose sessions in processes of their own are forked; one with a hash seed starts from scratch."""

    frameworks = False
    from_scratch = False

    def popen(self, cmdargs: Any, *args: Any, **options: Any) -> Any:
        """Begin a process."""
        command = list(map(str, cmdargs))
        if command[:2] != [sys.executable, "-mpytest"] or "PYTHONHASHSEED" in os.environ or self.from_scratch:
            return super().popen(cmdargs, *args, **options)
        paths = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))
        out, err = cast("IO[str]", options["stdout"]).fileno(), cast("IO[str]", options["stderr"]).fileno()
        environ = {**os.environ, "PYTHONPATH": paths}
        words = ["pytest", *command[2:]]
        return start(words, out, err, cwd=os.getcwd(), env=environ, frameworks=self.frameworks)


@functools.cache
def _server(frameworks: bool) -> str:
    folder = tempfile.TemporaryDirectory(prefix="oao-forked-", dir="/tmp")  # a socket's path must be short
    path = f"{folder.name}/socket"
    command = [sys.executable, __file__, path, "frameworks" if frameworks else "light"]
    # What it imports before it forks is the project's own, whose byte code may be kept.
    left_out = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    environ = {name: text for name, text in os.environ.items() if name not in left_out}
    process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None

    def end() -> None:
        process.kill()
        process.wait()
        for file in (process.stdin, process.stdout):
            assert file is not None
            file.close()
        folder.cleanup()

    atexit.register(end)
    assert process.stdout.readline() == b"ready\n", "the process that forks did not start"
    return path


def _serve(path: str, which: str) -> dict[str, Any]:
    """Fork for every request, and return in the process that is to do it."""
    sys.path[:0] = [str(ROOT), str(ROOT / "hookspecs")]
    for name in (*LIGHT, *(FRAMEWORKS if which == "frameworks" else ())):
        with suppress(ImportError):
            importlib.import_module(name)
    del sys.path[:2]
    # Nobody who is forked looks through it for garbage, nor copies it by looking.
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            os._exit(0)  # whoever started it is gone
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size, fds, _, _ = socket.recv_fds(connection, 8, 2)
        wanted: dict[str, Any] = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        child = os.fork()
        if not child:
            connection.close()
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, fd in enumerate(fds, 1):
                os.dup2(fd, number)
                os.close(fd)
            return wanted
        # Whoever only waits keeps no pipe open.
        for fd in (0, 1, 2, *fds):
            os.close(fd)
        connection.sendall(child.to_bytes(8, "big"))
        _, status = os.waitpid(child, 0)
        with suppress(OSError):
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)


def _become(wanted: dict[str, Any]) -> None:
    """Be `python -m MODULE ARGUMENT...`."""
    os.environ.clear()
    os.environ.update(wanted["env"])
    os.chdir(wanted["cwd"])
    # Those there are know what kind of file they were opened for.
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    out, err = (open(number, "wb", 0 if at_once else -1, closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(cast("Any", out), write_through=at_once)
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(cast("Any", err), errors="backslashreplace", line_buffering=True)
    # The first is the folder of this file.
    paths = [wanted["cwd"], *filter(None, wanted["env"].get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
    sys.path[:] = dict.fromkeys(paths)
    importlib.invalidate_caches()
    sys.dont_write_bytecode = bool(wanted["env"].get("PYTHONDONTWRITEBYTECODE"))
    sys.argv[:] = wanted["args"]
    runpy.run_module(wanted["args"][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _become(_serve(sys.argv[1], sys.argv[2]))
