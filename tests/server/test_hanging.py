"""Agents that hang: they block nobody, are reported at their deadline, and the server stops all the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.server.conftest import serving

if TYPE_CHECKING:
    from tests.server.conftest import Server

HANGING = ["hang", "hang-sync", "block-loop", "stubborn", "block-loop", "hang-sync"]


def test_hanging_agents_block_nobody(server: Server) -> None:
    """100 good runs beside 6 hanging ones answer quickly; the hanging ones are reported at their deadline."""
    with ThreadPoolExecutor(30) as pool:
        bad = [pool.submit(server.run, agent, deadline_s=4) for agent in HANGING]
        time.sleep(0.5)
        began = time.monotonic()
        good = list(pool.map(lambda n: server.run("echo" if n % 2 else "sync-echo", n), range(100)))
        took_s = time.monotonic() - began
        assert not any(one.done() for one in bad)
        reports = [one.result(20).json() for one in bad]

    assert [answer.json()["final_output"] for answer in good] == list(range(100))
    assert took_s < 3.5
    assert {report["status"] for report in reports} == {"FAILED"}
    assert {report["violation"]["rule"] for report in reports} == {"deadline"}
    stored = server.client.get(f"/runs/{reports[2]['execution_id']}").json()
    assert (stored["status"], stored["report"]["error"]) == ("FAILED", "deadline: 4 s are over")


def test_an_agent_that_blocks_its_loop_is_asked_again_on_another(tmp_path: Path) -> None:
    """What has not begun on a blocked loop moves to a fresh one: only its own run is lost."""
    with serving(tmp_path) as server:
        (tmp_path / "serving.py").read_text()
        with ThreadPoolExecutor(4) as pool:
            blocked = pool.submit(server.run, "block-loop", deadline_s=6)
            time.sleep(0.3)
            second = pool.submit(server.run, "block-loop", deadline_s=3)
            assert second.result(10).json()["violation"]["rule"] == "deadline"
            assert not blocked.done()
            assert blocked.result(10).json()["violation"]["rule"] == "deadline"
        assert "blocks its event loop" in (tmp_path / "server.log").read_text()


def test_too_many_are_told_to_come_again(server: Server) -> None:
    """An agent with one slot and two places to wait refuses the fourth at once with 429 and Retry-After."""
    with ThreadPoolExecutor(8) as pool:
        first = [pool.submit(server.run, "one-at-a-time", 1.0) for _ in range(6)]
        answers = [one.result(20) for one in first]

    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200, 200, 200, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert server.run("one-at-a-time", 0).status_code == 200


def test_a_client_that_leaves_does_not_end_its_run(server: Server) -> None:
    """The run goes on, and its report is at its id."""
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/run", json={"agent": "slow", "task": 1.2}, timeout=0.3)

    [row] = server.client.get("/runs", params={"agent": "slow", "limit": 1}).json()["runs"]
    assert row["status"] == "RUNNING"
    assert server.wait_for(row["execution_id"])["report"]["final_output"] == "done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_stops_while_agents_hang(tmp_path: Path, number: int) -> None:
    """It ends in a bounded time, streams end too, and what was at work can be resumed."""
    with serving(tmp_path, "--grace", "2") as server:
        answers: list[httpx.Response | Exception] = []

        def call(agent: str) -> None:
            try:
                answers.append(httpx.post(f"{server.url}/run", json={"agent": agent}, timeout=60))
            except httpx.HTTPError as error:
                answers.append(error)

        def watch() -> None:
            with httpx.Client(timeout=60) as client, client.stream("GET", f"{server.url}/events") as stream:
                stream.read()

        threads = [threading.Thread(target=call, args=(one,)) for one in ("hang", "hang-sync", "block-loop", "gated")]
        threads.append(threading.Thread(target=watch))
        for thread in threads:
            thread.start()
        while len(server.client.get("/runs", params={"status": "RUNNING"}).json()["runs"]) < 4:
            time.sleep(0.05)
        began = time.monotonic()
        assert server.stop(number, 15) in {0, -number}
        assert time.monotonic() - began < 6
        for thread in threads:
            thread.join(5)
        assert not any(thread.is_alive() for thread in threads)
        assert all(isinstance(answer, httpx.Response) for answer in answers), answers
    (tmp_path / "gate").touch()
    with serving(tmp_path) as server:
        [row] = server.client.get("/runs", params={"agent": "gated"}).json()["runs"]
        assert row["status"] in {"SUSPENDED", "RUNNING"}
        assert server.client.post(f"/runs/{row['execution_id']}/resume").json()["final_output"] == "through"
        rest = server.client.get("/runs").json()["runs"]
        assert {one["status"] for one in rest if one["agent"] != "gated"} <= {"SUSPENDED", "RUNNING"}


def test_a_port_that_is_taken_is_one_line(server: Server) -> None:
    """`oao serve` says so without a traceback, and exits with 2."""
    port = server.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "oao_harness", "serve", "--port", port],
        cwd=server.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 2
    assert "is in use" in done.stderr
    assert "Traceback" not in done.stderr
