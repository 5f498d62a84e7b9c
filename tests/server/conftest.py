"""A real server in a process of its own, and what its clients need."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import forked

ROOT = Path(__file__).parents[2]

AGENTS = '''
"""Agents of the tests."""
import asyncio
import os
import time
from pathlib import Path

from oao_harness import tool


@tool(effect="once")
def pay(amount: int) -> str:
    """Send money; a line in a file says that it did."""
    with open("paid.txt", "a") as file:
        file.write(f"{amount}\\n")
    return f"paid {amount}"


@tool(effect="pure")
def look(what: str) -> str:
    """Look something up."""
    return f"seen {what}"


async def echo(task):
    return task


def sync_echo(task):
    return task


def noted(task):
    with open("noted.txt", "a") as file:
        file.write(f"{task}\\n")
    return task


def payer(task):
    look("the order")
    return pay(task)


def fails(task):
    raise ValueError("this agent fails")


async def hang(task):
    await asyncio.sleep(3600)


def hang_sync(task):
    time.sleep(3600)


async def block_loop(task):
    time.sleep(3600)


async def stubborn(task):
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass


def gated(task):
    look("before")
    while not Path("gate").exists():
        time.sleep(0.02)
    look("after")
    return "through"


async def slow(task):
    await asyncio.sleep(float(task))
    return "done"


def chatty(task):
    for n in range(1000):
        look("x" * 20_000)
    return "said"


def flaky(task):
    if not Path("mended").exists():
        raise ConnectionError("away")
    return "mended"
'''

PROJECT = """
[tool.oao.agents]
echo = "serving:echo"
sync-echo = "serving:sync_echo"
noted = "serving:noted"
fails = "serving:fails"
hang = "serving:hang"
hang-sync = "serving:hang_sync"
block-loop = "serving:block_loop"
stubborn = "serving:stubborn"
gated = "serving:gated"
slow = "serving:slow"
broken = "no_such_module:agent"

[tool.oao.agents.payer]
agent = "serving:payer"
policy = "desk.toml"

[tool.oao.agents.chatty]
agent = "serving:chatty"
policy = "off"

[tool.oao.agents.flaky]
agent = "serving:flaky"
retries = 0

[tool.oao.agents.one-at-a-time]
agent = "serving:slow"
max_concurrency = 1

[tool.oao.server]
waiting = 2
heartbeat_s = 1
"""

DESK = """
[tools]
allow = ["look"]
ask = ["pay"]
"""


class Server:
    """A server, and a client of it."""

    def __init__(self, folder: Path, process: forked.Forked, url: str) -> None:
        self.folder = folder
        self.process = process
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=30)

    def run(self, agent: str, task: object = None, **more: Any) -> httpx.Response:
        headers = more.pop("headers", None)
        return self.client.post("/run", json={"agent": agent, "task": task, **more}, headers=headers)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 20) -> int:
        self.client.close()
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def wait_for(self, execution_id: str, *statuses: str) -> dict[str, Any]:
        """Follow a run's events until it is over; then return it."""
        with self.client.stream("GET", f"/runs/{execution_id}/events", timeout=20) as stream:
            for line in stream.iter_lines():
                if line == "event: end" or any(f'"{status}"' in line for status in statuses):
                    break
        found: dict[str, Any] = self.client.get(f"/runs/{execution_id}").json()
        return found


Serve = Callable[..., Server]


@contextmanager
def serving(
    folder: Path, *options: str, environ: dict[str, str] | None = None, broken: bool = True
) -> Iterator[Server]:
    """Serve a project in a folder until the end, with an agent that cannot be imported."""
    folder.mkdir(exist_ok=True)
    for name, text in (("serving.py", AGENTS), ("pyproject.toml", PROJECT), ("desk.toml", DESK)):
        (folder / name).write_text(text if broken else text.replace('broken = "no_such_module:agent"', ""))
    command = ["oao_harness", "serve", "--json", "--port", "0", "--store", "runs.db", *options]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    with (folder / "server.log").open("a") as log:
        env = {**os.environ, "PYTHONPATH": paths, **(environ or {})}
        process = forked.popen(command, cwd=folder, env=env, stderr=log, frameworks=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        assert line, (folder / "server.log").read_text()
        server = Server(folder, process, json.loads(line)["url"])
        yield server
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait(10)
        process.stdout.close()
        with suppress(UnboundLocalError):
            server.client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module; they must not depend on its being empty."""
    with serving(tmp_path_factory.mktemp("server"), "--grace", "1") as started:
        yield started
