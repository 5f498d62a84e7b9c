"""What a caller shows to be let in is nowhere afterwards; and what it is, its roles, policies and approvals hear."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from oao_harness.server.keys import KeyFile
from tests.server.conftest import Server, serving

DESK = """
[tools]
allow = ["look", "pay"]

[approvals]
approvers = ["finance"]
needed = 2

[[rule]]
name = "only-desk"
tools = ["pay"]
when = '!run.principal.roles.exists(r, r == "desk")'
then = "deny"

[[rule]]
name = "two-of-finance"
tools = ["pay"]
then = "ask"
"""
PLANTED = "sk-planted-0123456789abcdef"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, KeyFile]]:
    folder = tmp_path_factory.mktemp("secrets")
    keys = KeyFile(folder / "keys.json")
    keys.create("first", ["viewer"])
    environ = {"OAO_SERVER_KEYS": str(folder / "keys.json")}
    with serving(folder, "--grace", "1", environ=environ) as server:
        (folder / "desk.toml").write_text(DESK)
        yield server, keys


def client_of(server: Server, keys: KeyFile, name: str, *roles: str) -> tuple[httpx.Client, str]:
    text = keys.create(name, roles).text
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {text}"}, timeout=20), text


def test_the_roles_of_a_key_are_judged_by_policies_and_approvals(guarded: tuple[Server, KeyFile]) -> None:
    """A rule hears them; who may answer is asked of them; nobody is the second of two that approve what they asked."""
    server, keys = guarded
    who = {
        name: client_of(server, keys, name, *roles)[0]
        for name, roles in {
            "ann": ("operator",),
            "bea": ("operator", "approver", "finance", "desk"),
            "cyd": ("approver",),
            "dan": ("approver", "finance"),
            "eva": ("approver", "finance"),
        }.items()
    }
    try:
        refused = who["ann"].post("/run", json={"agent": "payer", "task": 1}).json()
        assert (refused["status"], refused["violation"]["rule"]) == ("FAILED", "only-desk")

        held = who["bea"].post("/run", json={"agent": "payer", "task": 1}).json()
        path = f"/approvals/{held['approvals'][0]['id']}/approve"
        assert who["ann"].post(path).status_code == 403
        no_role = who["cyd"].post(path)
        assert (no_role.status_code, "finance" in no_role.json()["detail"]) == (403, True)
        own = who["bea"].post(path)
        assert (own.status_code, "other people" in own.json()["detail"]) == (403, True)
        first = who["dan"].post(path)
        assert (first.status_code, first.json()["goes_on"]) == (200, False)
        assert who["dan"].post(path).status_code == 409
        assert who["eva"].post(path).json()["goes_on"] is True
        give_up = time.monotonic() + 20
        while who["bea"].get(f"/runs/{held['execution_id']}").json()["status"] != "SUCCESS":
            assert time.monotonic() < give_up
        [*answers] = [
            one
            for one in map(json.loads, who["bea"].get(f"/runs/{held['execution_id']}/journal").text.splitlines())
            if one["type"] == "approval.answered"
        ]
        assert [one["by"]["id"] for one in answers] == ["dan", "eva"]
        assert answers[0]["by"]["roles"] == ["approver", "finance"]
    finally:
        for client in who.values():
            client.close()


def test_no_credential_is_kept_or_told(guarded: tuple[Server, KeyFile]) -> None:
    """A key in each place where one can be sent is in no file, no event, no answer; not the wrong one either."""
    server, keys = guarded
    client, key = client_of(server, keys, "root", "admin")
    wrong = f"oao_{'0' * 12}_{'f' * 64}"
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJlLW9mLW5vYm9keQ"
    heard: list[str] = []
    texts: list[str] = []
    is_over = threading.Event()

    def listen() -> None:
        url = f"ws{server.url.removeprefix('http')}/ws/events"
        with connect(url, additional_headers={"Authorization": f"Bearer {key}"}) as socket:
            while not is_over.is_set():
                try:
                    heard.append(str(socket.recv(timeout=0.2)))
                except TimeoutError:
                    continue

    thread = threading.Thread(target=listen)
    thread.start()
    give_up = time.monotonic() + 20
    with client, httpx.Client(base_url=server.url, timeout=20) as other:
        while not heard:
            assert time.monotonic() < give_up
            texts.append(client.post("/run", json={"agent": "echo", "task": "hello"}).text)
        own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
        entered = other.post("/login", data={"key": key}, headers=own)
        cookie = entered.cookies
        assert len(cookie) >= 1
        for headers in ({"X-API-Key": key}, {"Authorization": f"bearer {key}"}, own):
            for path, body in (
                ("/run", {"agent": "fails", "task": 1}),
                ("/run", {"agent": "broken"}),
                ("/run", {"agent": "none"}),
                ("/run", {"agent": []}),
                ("/jobs", {"agent": "echo", "task": 1}),
            ):
                texts.append(other.post(path, json=body, headers=headers).text)
        with httpx.Client(base_url=server.url, timeout=20) as stranger:
            for shown in ({"X-API-Key": wrong}, {"Authorization": f"Bearer {token}"}, {"Authorization": wrong}):
                answer = stranger.get("/runs", headers=shown)
                assert answer.status_code == 401
                texts.append(answer.text)
            texts.append(stranger.post("/login", data={"key": wrong}, headers=own).text)
        texts.append(client.get("/metrics").text)
        # What an agent is asked is its journal's; it is nobody else's.
        planted = client.post("/run", json={"agent": "fails", "task": PLANTED})
        problem = client.post("/run", json={"agent": "echo", "task": 1, "deadline_s": PLANTED})
        assert (planted.status_code, problem.status_code) == (200, 422)
        texts += [problem.text, client.get("/metrics").text]
        sessions = list(cookie.values())
    is_over.set()
    thread.join(10)

    secrets = [key, key.rpartition("_")[2], wrong, token, *sessions]
    said = "\n".join([*texts, *heard])
    assert [secret for secret in secrets if secret in said] == []
    assert PLANTED not in said.replace("\n".join(heard), "")
    log = (server.folder / "server.log").read_text()
    assert PLANTED not in log
    for file in files(server.folder):
        content = file.read_bytes()
        assert [secret for secret in secrets if secret.encode() in content] == [], file.name


def files(folder: Path) -> list[Path]:
    found = [one for one in folder.rglob("*") if one.is_file()]
    assert {"runs.db", "server.log", "keys.json"} <= {one.name for one in found}
    return found


ODD_HOSTS = [
    "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "evil.example#me",
    "localhost\\.evil.example", "localhost,evil.example", "0.0.0.0", "[::ffff:10.0.0.1]", "2130706433.evil", "",
    "[::1].evil.example", "[::1]evil.example:80", "localhost:80:80", "127.1.evil", "l\u00f6calhost",
]  # fmt: skip


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_no_other_name_is_this_machine(server: Server, host: str) -> None:
    """Without keys the server answers to its own names alone, however another one is spelled."""
    answer = server.client.get("/runs", headers={"Host": host.encode()})  # type: ignore[dict-item]
    assert answer.status_code in {400, 403}, answer.text
    if answer.status_code == 403:
        assert "default-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "origin",
    ["null", "http://localhost.evil.example", "http://127.0.0.1", "https://evil.example", "file://", "", "{url}.evil",
     "http://[::1].evil.example", "{url}/", "{url}@evil.example", "{url}, https://evil.example"],
)  # fmt: skip
def test_no_other_origin_is_ours(server: Server, origin: str) -> None:
    """A page of another origin cannot ask a server without keys, however its name is spelled; nor read the answer."""
    shown = {"Origin": origin.format(url=server.url)}
    answer = server.client.post("/run", json={"agent": "echo"}, headers=shown)
    assert answer.status_code == 403, answer.text
    assert "access-control-allow-origin" not in answer.headers
    assert server.client.post("/run", json={"agent": "echo"}, headers={"Origin": server.url}).status_code == 200
