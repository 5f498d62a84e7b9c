"""Runs over HTTP: begin them, look at them, go on with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.conftest import Server


@pytest.mark.parametrize("agent", ["echo", "sync-echo"])
def test_a_run_answers_with_its_report(server: Server, agent: str) -> None:
    """POST /run runs a registered agent, and its answer is what `ExecutionReport` says."""
    answer = server.run(agent, {"question": "Why?"})

    assert answer.status_code == 200
    report = answer.json()
    assert (report["status"], report["agent_name"], report["final_output"]) == ("SUCCESS", agent, {"question": "Why?"})
    stored = server.client.get(f"/runs/{report['execution_id']}").json()
    assert (stored["status"], stored["task"]) == ("SUCCESS", {"question": "Why?"})
    assert stored["report"]["final_output"] == {"question": "Why?"}
    assert stored["principal"]["id"] == "local"


def test_a_failed_run_is_a_report_that_says_why(server: Server) -> None:
    """A run that fails is a 200 with FAILED and the reason."""
    answer = server.run("fails")

    assert answer.status_code == 200
    assert answer.json()["status"] == "FAILED"
    assert "this agent fails" in answer.json()["error"]


@pytest.mark.parametrize("agent", ["nobody", "serving:echo", "serving.echo", "os:getcwd", "../serving"])
def test_a_name_never_imports_code(server: Server, agent: str) -> None:
    """An agent that is not registered is a 404, whatever it looks like."""
    answer = server.run(agent)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert "there is no agent" in answer.json()["detail"]


@pytest.mark.parametrize("policy", ["desk.toml", "./desk.toml", "serving:echo", "nothing", "/etc/passwd"])
def test_a_request_names_policies_and_never_files_or_code(server: Server, policy: str) -> None:
    """A policy that is a path, code or unknown is a 422; one that an agent is registered with is no secret."""
    answer = server.run("echo", policy=[policy])

    assert (answer.status_code == 200) is (policy == "desk.toml")
    assert policy == "desk.toml" or "there is no policy" in answer.json()["detail"]


def test_what_is_asked_for_cannot_weaken_what_holds(server: Server) -> None:
    """`off` takes nothing away: neither an agent's own policy nor the standard one."""
    held = server.run("payer", 5, policy=["off"]).json()
    plain = server.run("echo", policy=["off"]).json()

    assert held["status"] == "SUSPENDED"
    journal = server.client.get(f"/runs/{plain['execution_id']}/journal").text.splitlines()
    origin = json.loads(journal[0])["origin"]
    assert origin["policy"] == ["standard", "off"]


def test_an_agent_that_cannot_be_imported_is_unavailable(server: Server) -> None:
    """A broken registration is a 503 for its own runs, and no other agent's trouble."""
    answer = server.run("broken")

    assert answer.status_code == 503
    assert "cannot be used" in answer.json()["detail"]
    # What names modules and folders is the log's business.
    assert "no_such_module" not in answer.text
    assert "no_such_module" in (server.folder / "server.log").read_text()
    assert server.run("echo", 1).status_code == 200


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.agent"),
        ({"agent": ""}, "body.agent"),
        ({"agent": "echo", "what": 1}, "body.what"),
        ({"agent": "echo", "deadline_s": 0}, "body.deadline_s"),
        ({"agent": "echo", "policy": "strict"}, "body.policy"),
        ([], "body"),
    ],
)
def test_a_wrong_request_says_where(server: Server, body: object, where: str) -> None:
    """A 422 names the field, and repeats nothing of what was sent."""
    answer = server.client.post("/run", json=body)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["where"] == where


@pytest.mark.parametrize(
    "content",
    [
        b'{"agent": "echo", "task": "\\ud800"}',
        b'{"agent": "echo", "task": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"agent": "echo", "task": ' + b"9" * 5000 + b"}",
        b'{"agent": "echo", "task": NaN}',
        b'{"agent": "echo", "task": Infinity}',
        b'{"agent": "echo", "task": "\xff"}',
        b'{"agent": "echo"',
        b"\x00",
    ],
    ids=["surrogate", "nested", "digits", "nan", "infinity", "bytes", "cut", "nul"],
)
def test_what_is_no_json_is_refused(server: Server, content: bytes) -> None:
    """Lone surrogates, endless nesting and numbers, and what is no JSON, are a 422 and never a 500."""
    answer = server.client.post("/run", content=content, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("task", ["a\x00b", "💥", 2**300, -0.0, 1e308, [[[[[]]]]], {"": None}, "x" * 100_000])
def test_odd_json_arrives_as_it_was_sent(server: Server, task: object) -> None:
    """NUL, large numbers and deep but bounded values are tasks like any other."""
    report = server.run("echo", task).json()

    assert (report["status"], report["final_output"]) == ("SUCCESS", task)


def test_several_agents_run_side_by_side(server: Server) -> None:
    """POST /run-multi gives a report for each, what each is asked, and one failure stops none."""
    answer = server.client.post(
        "/run-multi",
        json={"agents": {"echo": "own", "sync-echo": None, "fails": None}, "task": "all", "max_concurrency": 2},
    )

    found = answer.json()
    assert answer.status_code == 200
    assert {name: report["status"] for name, report in found.items()} == {
        "echo": "SUCCESS",
        "sync-echo": "SUCCESS",
        "fails": "FAILED",
    }
    assert (found["echo"]["final_output"], found["sync-echo"]["final_output"]) == ("own", "all")


@pytest.mark.parametrize(
    "body",
    [
        {"agents": []},
        {"agents": ["echo", "echo"]},
        {"agents": ["echo"], "max_concurrency": 0},
        {"agents": {}},
        {"agents": "echo"},
    ],
)
def test_a_wrong_request_for_several_is_refused(server: Server, body: object) -> None:
    """No agent, one twice, and a concurrency of zero are a 422."""
    assert server.client.post("/run-multi", json=body).status_code == 422


def test_an_unknown_agent_among_several_starts_none(server: Server) -> None:
    """Nothing is begun where one of the names is unknown."""
    before = server.client.get("/runs", params={"agent": "echo", "limit": 500}).json()["runs"]

    answer = server.client.post("/run-multi", json={"agents": ["echo", "nobody"]})

    assert answer.status_code == 404
    assert server.client.get("/runs", params={"agent": "echo", "limit": 500}).json()["runs"] == before


def test_runs_are_listed_by_page(server: Server) -> None:
    """GET /runs goes through all runs of an agent by its `next` links, the newest first, each once."""
    made = [server.run("sync-echo", n).json()["execution_id"] for n in range(5)]

    found: list[str] = []
    path = "/runs?agent=sync-echo&limit=2&status=SUCCESS"
    while path:
        page = server.client.get(path).json()
        assert len(page["runs"]) <= 2
        found += [row["execution_id"] for row in page["runs"]]
        path = page["next"]

    assert found[:5] == made[::-1]
    assert len(found) == len(set(found))
    one = server.client.get("/runs", params={"starts_with": made[0]}).json()["runs"]
    assert [row["execution_id"] for row in one] == [made[0]]


@pytest.mark.parametrize("path", ["", "/journal", "/events", "/diff/other"])
def test_an_unknown_run_is_not_found(server: Server, path: str) -> None:
    """Everything about a run that is not there is a 404."""
    answer = server.client.get(f"/runs/00000000-none{path}")

    assert answer.status_code == 404
    assert answer.json()["status"] == 404


def test_a_journal_is_read_from_a_record_on(server: Server) -> None:
    """`after` leaves out what is known."""
    id_ = server.run("echo", 1).json()["execution_id"]

    whole = [json.loads(line) for line in server.client.get(f"/runs/{id_}/journal").text.splitlines()]
    rest = [json.loads(line) for line in server.client.get(f"/runs/{id_}/journal?after=3").text.splitlines()]

    assert [record["seq"] for record in whole] == list(range(1, len(whole) + 1))
    assert rest == whole[3:]


def test_a_replay_makes_no_call(server: Server) -> None:
    """POST /runs/{id}/replay plays a run again, what a person approved included, and pays nothing again."""
    first = server.run("payer", 11).json()
    server.client.post(f"/approvals/{first['approvals'][0]['id']}/approve")
    server.wait_for(first["execution_id"])
    paid = (server.folder / "paid.txt").read_text()

    played = server.client.post(f"/runs/{first['execution_id']}/replay").json()

    assert (played["status"], played["final_output"]) == ("SUCCESS", "paid 11")
    assert (server.folder / "paid.txt").read_text() == paid
    assert server.client.get(f"/runs/{played['execution_id']}").status_code == 404


def test_a_fork_begins_in_the_middle_of_a_run(server: Server) -> None:
    """POST /runs/{id}/fork makes a new run with another result of a call; the diff says so."""
    first = server.run("payer", 12).json()["execution_id"]
    server.client.post(f"/runs/{first}/cancel")

    answer = server.client.post(f"/runs/{first}/fork", json={"at": 1, "result": "seen otherwise"})

    fork = answer.json()
    assert fork["status"] == "SUSPENDED"
    assert server.client.get(f"/runs/{fork['execution_id']}").json()["forked"]["run"] == first
    told = server.client.get(f"/runs/{first}/diff/{fork['execution_id']}").json()
    assert any("otherwise" in line for step in told["steps"] for line in step["lines"])
    assert server.client.post(f"/runs/{first}/fork", json={"at": 99}).status_code == 422


def test_a_run_that_waits_is_cancelled(server: Server) -> None:
    """POST /runs/{id}/cancel ends it; a second time is a 409."""
    held = server.run("payer", 13).json()["execution_id"]

    answer = server.client.post(f"/runs/{held}/cancel")

    assert (answer.status_code, answer.json()["status"]) == (200, "FAILED")
    assert "cancelled by local" in answer.json()["error"]
    again = server.client.post(f"/runs/{held}/cancel")
    assert (again.status_code, again.json()["title"]) == (409, "Not possible in this state")


def test_a_run_that_is_over_is_not_resumed(server: Server) -> None:
    """POST /runs/{id}/resume of a run that is over is a 409 that says what to do."""
    id_ = server.run("echo", 1).json()["execution_id"]

    answer = server.client.post(f"/runs/{id_}/resume")

    assert answer.status_code == 409
    assert "fork" in answer.json()["detail"]
