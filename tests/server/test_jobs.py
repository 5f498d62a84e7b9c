"""Jobs over HTTP: a queue in this process, and one in Redis."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.conftest import Server


def submit(server: Server, agent: str, task: object = None, **more: object) -> str:
    answer = server.client.post("/jobs", json={"agent": agent, "task": task, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["execution_id"])


def test_a_job_is_done_and_its_report_waited_for(server: Server) -> None:
    """A job is queued at once, and a long poll answers with its report."""
    id_ = submit(server, "slow", 0.5)

    first = server.client.get(f"/jobs/{id_}").json()
    found = server.client.get(f"/jobs/{id_}", params={"wait_s": 20}).json()

    assert first["report"] is None
    assert (found["status"], found["report"]["final_output"]) == ("SUCCESS", "done")


def test_waiting_has_an_end(server: Server) -> None:
    """A long poll answers after its time with how far the job is."""
    id_ = submit(server, "slow", 30)
    began = time.monotonic()

    found = server.client.get(f"/jobs/{id_}", params={"wait_s": 0.5}).json()

    assert 0.4 < time.monotonic() - began < 5
    assert (found["status"], found["report"]) == ("RUNNING", None)
    assert server.client.post(f"/jobs/{id_}/cancel").json()["status"] == "FAILED"
    assert server.client.post(f"/jobs/{id_}/cancel").status_code == 409


def test_an_approved_job_goes_back_to_its_queue(server: Server) -> None:
    """A job that is held is driven again after the answer."""
    id_ = submit(server, "payer", 41)
    held = server.client.get(f"/jobs/{id_}", params={"wait_s": 20}).json()
    assert held["status"] == "SUSPENDED"

    answer = server.client.post(f"/approvals/{held['report']['approvals'][0]['id']}/approve").json()

    assert answer["goes_on"] is True
    for _ in range(20):
        found = server.client.get(f"/jobs/{id_}", params={"wait_s": 5}).json()
        if found["status"] == "SUCCESS":
            break
        time.sleep(0.1)
    assert found["report"]["final_output"] == "paid 41"


def test_a_dead_letter_is_driven_again(server: Server) -> None:
    """What failed too often is listed as dead, and succeeds when its cause is gone."""
    id_ = submit(server, "flaky", retries=0)
    dead = server.client.get(f"/jobs/{id_}", params={"wait_s": 20}).json()
    assert dead["status"] == "DEAD"
    assert id_ in [row["execution_id"] for row in server.client.get("/jobs", params={"status": "DEAD"}).json()]
    (server.folder / "mended").touch()

    assert server.client.post(f"/jobs/{id_}/retry").status_code == 200

    for _ in range(50):
        found = server.client.get(f"/jobs/{id_}", params={"wait_s": 5}).json()
        if found["status"] == "SUCCESS":
            break
        time.sleep(0.1)
    assert found["report"]["final_output"] == "mended"


def test_a_run_that_nobody_queued_is_no_job(server: Server) -> None:
    """What is asked of a job that is none, or not there, is a 404."""
    id_ = server.run("echo", 1).json()["execution_id"]

    for path in (f"/jobs/{id_}", "/jobs/nothing"):
        assert server.client.get(path).status_code == 404
        assert server.client.post(f"{path}/cancel").status_code == 404
        assert server.client.post(f"{path}/retry").status_code == 404
    assert server.client.post("/jobs", json={"agent": "nobody"}).status_code == 404


@pytest.mark.parametrize("body", [{"priority": "urgent"}, {"delay_s": -1}, {"retries": -1}, {"agent": 1}])
def test_a_wrong_job_is_refused(server: Server, body: dict[str, object]) -> None:
    """A 422, and nothing is queued."""
    assert server.client.post("/jobs", json={"agent": "echo", **body}).status_code == 422


def test_the_queue_says_who_works(server: Server) -> None:
    """With `local:` the server does the jobs itself."""
    found = server.client.get("/queue").json()

    assert len(found["workers"]) == 1
