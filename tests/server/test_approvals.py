"""What waits for a person, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.server.conftest import Server


def test_after_an_approval_the_run_goes_on_by_itself(server: Server) -> None:
    """A held call is listed, approved by its id, made once, and the run ends."""
    held = server.run("payer", 21).json()
    assert held["status"] == "SUSPENDED"
    [row] = [one for one in server.client.get("/approvals").json() if one["execution_id"] == held["execution_id"]]
    assert (row["tool"], row["arguments"], row["state"]) == ("pay", {"amount": 21}, "pending")

    answer = server.client.post(f"/approvals/{row['id']}/approve", json={"note": "fine"})

    assert answer.json() == {"execution_id": held["execution_id"], "goes_on": True, "why": ""}
    assert server.wait_for(held["execution_id"])["report"]["final_output"] == "paid 21"
    assert (server.folder / "paid.txt").read_text().count("21\n") == 1
    assert server.client.get(f"/approvals/{row['id']}").json()["state"] == "approved"
    again = server.client.post(f"/approvals/{row['id']}/approve")
    assert again.status_code == 409


def test_an_approval_may_change_the_arguments(server: Server) -> None:
    """What is approved with other arguments is made with those."""
    held = server.run("payer", 22).json()

    server.client.post(f"/approvals/{held['approvals'][0]['id']}/approve", json={"arguments": {"amount": 2}})

    assert server.wait_for(held["execution_id"])["report"]["final_output"] == "paid 2"


def test_a_rejected_call_fails_its_run(server: Server) -> None:
    """A refusal ends the run, and nothing is paid."""
    held = server.run("payer", 23).json()

    server.client.post(f"/approvals/{held['approvals'][0]['id']}/reject", json={"note": "too much"})

    ended = server.wait_for(held["execution_id"])
    assert ended["status"] == "FAILED"
    assert "too much" in ended["report"]["error"]
    assert "23\n" not in (server.folder / "paid.txt").read_text() if (server.folder / "paid.txt").exists() else True


def test_an_unknown_question_is_not_found(server: Server) -> None:
    """A question that is not there is a 404, whatever its id looks like."""
    for id_ in ("x", "x-1", "-1", "0-0-0"):
        assert server.client.get(f"/approvals/{id_}").status_code == 404
        assert server.client.post(f"/approvals/{id_}/approve").status_code == 404


def test_a_call_in_doubt_is_named_by_its_number(server: Server) -> None:
    """Nothing is in doubt here; a call that is not is a 404."""
    id_ = server.run("echo", 1).json()["execution_id"]

    assert server.client.get("/doubts").json() == []
    assert server.client.post(f"/doubts/{id_}/1/resolve", json={"landed": True}).status_code == 404
    assert server.client.post(f"/doubts/{id_}/1/resolve", json={}).status_code == 422


def test_policies_are_named_and_laid_beside_runs(server: Server) -> None:
    """/policies, /policies/coverage and /policy/diff judge stored runs and run nothing."""
    server.run("payer", 24)
    named = {one["name"]: one for one in server.client.get("/policies").json()}
    assert named["desk.toml"]["agents"] == ["payer"]

    covered = server.client.get("/policies/coverage", params={"policy": "desk.toml"}).json()
    assert {row["name"]: row["matched"] > 0 for row in covered["rules"]} == {"look": True, "pay": True}

    body = {"before": ["off"], "document": '[tools]\ndeny = ["look"]\n', "agent": "payer"}
    changed = server.client.post("/policy/diff", json=body).json()
    assert changed["changes"]["denied"] > 0
    for wrong in ({"before": ["off"]}, {"before": ["desk2.toml"], "after": ["off"]}):
        assert server.client.post("/policy/diff", json=wrong).status_code == 422
    for text in ('extends = "/etc/passwd"', 'extends = "desk.toml"', "not toml", 'x = "1"'):
        answer = server.client.post("/policy/diff", json={"before": ["off"], "document": text})
        assert answer.status_code == 422, text
    assert server.client.get("/policies/coverage", params={"policy": "standard"}).status_code == 422
