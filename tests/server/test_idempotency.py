"""Idempotency-Key: the same request twice is one run, in one process and over a restart."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.server.conftest import serving

if TYPE_CHECKING:
    from tests.server.conftest import Server


def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def test_the_same_request_is_answered_once(server: Server) -> None:
    """The second answer is the first one's report; another request with that key is a 422."""
    mine = key()

    first, second = (server.run("sync-echo", {"a": 1}, headers=mine).json() for _ in range(2))
    other = server.run("sync-echo", {"a": 2}, headers=mine)

    assert first["execution_id"] == second["execution_id"]
    assert second["final_output"] == first["final_output"] == {"a": 1}
    assert other.status_code == 422
    assert "Idempotency-Key" in other.json()["detail"]


def test_a_request_that_is_at_work_is_told_to_come_again(server: Server) -> None:
    """Of two at the same time one is a 409 with Retry-After, and is given the answer when it comes again."""
    mine = key()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(server.run, "slow", 2.5, headers=mine) for _ in range(2)]
        answers = sorted((one.result(30) for one in both), key=lambda answer: answer.status_code)

    assert [answer.status_code for answer in answers] == [200, 409]
    assert int(answers[1].headers["Retry-After"]) >= 1
    assert server.run("slow", 2.5, headers=mine).json()["execution_id"] == answers[0].json()["execution_id"]


def test_every_post_that_starts_work_takes_a_key(server: Server) -> None:
    """/run-multi, /jobs, fork, resume and replay give the same answer again."""
    paths: list[tuple[str, object]] = [
        ("/run-multi", {"agents": ["echo", "sync-echo"], "task": 1}),
        ("/jobs", {"agent": "echo", "task": 1}),
    ]
    done = server.run("payer", 51).json()["execution_id"]
    paths += [(f"/runs/{done}/fork", {"at": 1, "result": "x"}), (f"/runs/{done}/replay", {})]
    for path, body in paths:
        mine = key()
        first, second = (server.client.post(path, json=body, headers=mine) for _ in range(2))
        assert first.status_code == second.status_code, (path, second.text)
        assert ids(first.json()) == ids(second.json()), path
    assert server.client.post("/jobs", json={"agent": "echo"}, headers={"Idempotency-Key": ""}).status_code == 422


def ids(answer: dict[str, object]) -> list[object]:
    if "execution_id" in answer:
        return [answer["execution_id"]]
    return [one["execution_id"] for one in answer.values() if isinstance(one, dict)]


def test_a_key_holds_over_a_restart(tmp_path: Path) -> None:
    """Another process gives the same answer, and goes on with what the first one was killed in."""
    done, cut = key(), key()
    with serving(tmp_path) as one:
        first = one.run("echo", "once", headers=done).json()
        caller = threading.Thread(target=lambda: _ignored(one, cut))
        caller.start()
        while "gated" not in one.client.get("/runs", params={"status": "RUNNING"}).text:
            pass
        one.process.kill()
        caller.join(10)
    (tmp_path / "gate").touch()
    with serving(tmp_path) as two:
        assert two.run("echo", "once", headers=done).json()["execution_id"] == first["execution_id"]
        again = two.run("gated", 1, headers=cut)
        assert again.json()["final_output"] == "through", again.text
        rows = two.client.get("/runs", params={"agent": "gated"}).json()["runs"]
        assert [row["status"] for row in rows] == ["SUCCESS"]


def test_a_new_key_at_the_same_instant_in_two_processes_is_one_run(tmp_path: Path) -> None:
    """Whoever comes second is told to come again or given the report; the agent's code runs once, and a job is one."""
    rounds = 25
    with serving(tmp_path) as one, serving(tmp_path) as two, ThreadPoolExecutor(4) as pool:
        (tmp_path / "noted.txt").touch()
        for n in range(rounds):
            mine = key()
            both = [pool.submit(server.run, "noted", n, headers=mine) for server in (one, two, one, two)]
            answers = [done.result(30) for done in both]
            assert {answer.status_code for answer in answers} <= {200, 409}, [answer.text for answer in answers]
            reports = [answer.json() for answer in answers if answer.status_code == 200]
            assert {(report["status"], report["final_output"]) for report in reports} == {("SUCCESS", n)}
            assert len({report["execution_id"] for report in reports}) == 1
            jobs = [
                pool.submit(server.client.post, "/jobs", json={"agent": "echo", "task": n}, headers=mine)
                for server in (one, two, one, two)
            ]
            ids = {done.result(30).json()["execution_id"] for done in jobs}
            assert len(ids) == 1
        rows = one.client.get("/runs", params={"limit": 500}).json()["runs"]

    lines = (tmp_path / "noted.txt").read_text().split()
    assert lines == [str(n) for n in range(rounds)]
    assert [row["status"] for row in rows if row["agent"] == "noted"] == ["SUCCESS"] * rounds


def _ignored(server: Server, headers: dict[str, str]) -> None:
    try:
        server.run("gated", 1, headers=headers)
    except httpx.HTTPError:
        return
