"""Agents that end what is around them: their loop, their tasks, their thread. Others, and their own next run, go on."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oao_harness import tool
from oao_harness.fleet.agents import Agents, Registered
from oao_harness.server import Settings, create_app
from tests.server.conftest import serving as serving_process
from tests.server.serving import serving

LATE: dict[str, BaseException] = {}


@tool(effect="once")
def pay(amount: int) -> int:
    """Send money."""
    raise AssertionError("nobody may pay here")


async def stops_loop(task: object) -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(3600)


async def ends_loop(task: object) -> str:
    asyncio.get_running_loop().call_soon(_exit)
    await asyncio.sleep(0.2)
    return "still here"


def _exit() -> None:
    raise SystemExit(3)


async def interrupts(task: object) -> None:
    raise KeyboardInterrupt


async def exits(task: object) -> None:
    raise SystemExit(7)


async def cancels_all(task: object) -> str:
    for one in asyncio.all_tasks():
        if one is not asyncio.current_task():
            one.cancel()
    await asyncio.sleep(0)
    return "done"


def forks(task: object) -> str:
    # Not os.fork itself: the test's own threads would be warned of.
    done = subprocess.run([sys.executable, "-c", "import os; os.fork() or os._exit(0)"], check=True, timeout=20)
    return f"forked {done.returncode}"


def leaves_a_thread(task: object) -> str:
    import contextvars

    inside = contextvars.copy_context()

    def later() -> None:
        time.sleep(0.3)
        try:
            inside.run(pay, 1)
        except BaseException as error:
            LATE["pay"] = error

    threading.Thread(target=later, daemon=True).start()
    return "left"


AGENTS: dict[str, Callable[[Any], Any]] = {
    "stops-loop": stops_loop, "ends-loop": ends_loop, "interrupts": interrupts, "exits": exits,
    "cancels-all": cancels_all, "forks": forks, "leaves-a-thread": leaves_a_thread,
}  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("rude")
    agents = [
        Registered(name=name, source="tests", load=lambda agent=agent: agent, policy=("off",))  # type: ignore[misc]
        for name, agent in AGENTS.items()
    ]
    settings = Settings(store=f"sqlite:{folder / 'oao.db'}", keys=str(folder / "keys.json"), grace_s=1.0)
    with serving(create_app(settings, Agents(agents))) as url, httpx.Client(base_url=url, timeout=30) as made:
        yield made


@pytest.mark.parametrize(
    ("agent", "ends"),
    [
        ("stops-loop", "deadline"),
        ("ends-loop", "SUCCESS"),
        ("interrupts", "SUSPENDED"),
        ("exits", "SystemExit"),
        ("cancels-all", "FAILED"),
    ],
)
def test_an_agent_that_ends_its_loop_is_run_again(client: httpx.Client, agent: str, ends: str) -> None:
    """Three times in a row it is reported as what it did, and nothing of it is left open in the store."""
    for _ in range(3):
        answer = client.post("/run", json={"agent": agent, "deadline_s": 1.0})
        assert answer.status_code == 200, answer.text
        assert ends in f"{answer.json()['status']} {answer.json()['error']}"
    rows = client.get("/runs", params={"agent": agent}).json()["runs"]
    assert {row["status"] for row in rows} <= {"SUCCESS", "FAILED", "SUSPENDED"}
    assert len(rows) == 3


def test_what_an_agent_leaves_behind_may_do_nothing(client: httpx.Client) -> None:
    """A thread that calls a tool after the end of its run is refused; a child process takes nothing with it."""
    assert client.post("/run", json={"agent": "leaves-a-thread"}).json()["status"] == "SUCCESS"
    give_up = time.monotonic() + 10
    while "pay" not in LATE:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    assert "is over" in str(LATE["pay"])
    assert client.post("/run", json={"agent": "forks"}).json()["final_output"] == "forked 0"


def test_a_server_that_is_stopped_under_load_loses_nothing(tmp_path: Path) -> None:
    """After SIGTERM every run that anybody asked for is over, or is gone on with over HTTP by the next server."""
    answers: list[tuple[str, int, str]] = []
    agents = ("echo", "gated", "slow", "hang", "hang-sync", "payer")

    def load(url: str, agent: str) -> None:
        with httpx.Client(base_url=url, timeout=40) as asking:
            while True:
                try:
                    answer = asking.post("/run", json={"agent": agent, "task": 1})
                except httpx.HTTPError:
                    return
                answers.append((agent, answer.status_code, answer.json().get("status")))
                if answer.status_code >= 500:
                    return

    with serving_process(tmp_path, "--grace", "1") as server:
        jobs = [
            server.client.post("/jobs", json={"agent": "slow", "task": 1.0}).json()["execution_id"] for _ in range(4)
        ]
        threads = [threading.Thread(target=load, args=(server.url, agents[n % 6]), daemon=True) for n in range(12)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        began = time.monotonic()
        server.stop(signal.SIGTERM)
        assert time.monotonic() - began < 10
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    # Whoever was not turned away was given a report, also of what was put down.
    assert {code for _, code, _ in answers} <= {200, 429, 503}
    assert ("hang-sync", 200, "SUSPENDED") in answers
    (tmp_path / "gate").touch()
    with serving_process(tmp_path, "--grace", "1") as again:
        put_down = again.client.get("/runs", params={"status": "SUSPENDED", "limit": 500}).json()["runs"]
        for row in put_down:
            if row["agent"] in {"gated", "slow"} and row["execution_id"] not in jobs:
                found = again.client.post(f"/runs/{row['execution_id']}/resume", json={"deadline_s": 20})
                assert found.json()["status"] == "SUCCESS", found.text
        for id_ in jobs:
            assert again.client.get(f"/jobs/{id_}", params={"wait_s": 20}).json()["status"] == "SUCCESS"
        left = again.client.get("/runs", params={"status": "RUNNING"}).json()["runs"]
        assert [row["agent"] for row in left] == []
