"""Tenants: nothing that one does is seen, counted, told or changed by another, on any route, also on a new one."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
import pytest
from websockets.sync.client import connect

from tests.server.guarded_site import Site, guarded, routes_of, send

MARK = "only-for-acme"
_CLOSED = {"/login", "/logout"}
"""Routes of a browser's own session, which has no run in it."""
_TIME = re.compile(r"<time [^>]*>[^<]*</time>")


@dataclass
class Acme:
    """What the tenant `acme` has: one run of each kind."""

    client: httpx.Client
    done: str = ""
    held: str = ""
    queued: str = ""
    running: str = ""
    question: str = ""
    secrets: list[str] = field(default_factory=list[str])
    shown: dict[str, str] = field(default_factory=dict[str, str])
    """What it is shown itself, while all of it is so."""


def begin(acme: Acme) -> None:
    """Do one of everything."""
    ask = acme.client
    acme.done = ask.post("/run", json={"agent": "echo", "task": MARK}).json()["execution_id"]
    held = ask.post("/run", json={"agent": "payer", "task": MARK}).json()
    acme.held, acme.question = held["execution_id"], held["approvals"][0]["id"]
    later = ask.post("/jobs", json={"agent": "echo", "task": MARK, "delay_s": 3600})
    acme.queued = later.json()["execution_id"]
    acme.running = ask.post("/jobs", json={"agent": "gated", "task": MARK}).json()["execution_id"]
    give_up = time.monotonic() + 20
    while ask.get("/queue").json()["running"] != 1:
        assert time.monotonic() < give_up
    acme.shown = {path: ask.get(path).text for path in ("/runs", "/jobs", "/approvals", "/", "/ui/fleet", "/queue")}
    acme.secrets = [MARK, acme.done, acme.held, acme.queued, acme.running]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with guarded(tmp_path_factory.mktemp("tenants")) as served:
        yield served


@pytest.fixture(scope="module")
def umbra(site: Site) -> httpx.Client:
    return site.client("eve", "admin", tenant="umbra")


@pytest.fixture(scope="module")
def world(site: Site, umbra: httpx.Client) -> tuple[Acme, dict[str, str], dict[str, str], list[str]]:
    """What `umbra` is answered by every list before and after `acme` does things, and told meanwhile."""
    acme = Acme(site.client("ann", "admin", tenant="acme"))
    lists = [path for method, path in routes_of(site.app) if method == "GET" and "{" not in path]
    given = {"desk": str(site.folder / "desk.toml")}

    def look() -> dict[str, str]:
        found: dict[str, str] = {}
        for path in lists:
            answer = send(umbra, "GET", path, given)
            if answer.is_stream_consumed:
                found[path] = f"{answer.status_code} {_TIME.sub('', answer.text)}"
            answer.close()
        return found

    before = look()
    with listening(site, umbra, lists) as heard:
        begin(acme)
        time.sleep(2.0)
    return acme, before, look(), heard


@contextmanager
def listening(site: Site, client: httpx.Client, lists: list[str]) -> Iterator[list[str]]:
    """Listen to every stream of all runs until the end of the block."""
    heard: list[str] = []
    answers: list[httpx.Response] = []
    threads: list[threading.Thread] = []

    def read(answer: httpx.Response) -> None:
        try:
            for line in answer.iter_lines():
                heard.append(line)
        except (httpx.HTTPError, httpx.StreamError, OSError, RuntimeError):
            return

    for path in lists:
        answer = client.send(client.build_request("GET", path), stream=True)
        if "event-stream" not in answer.headers.get("content-type", ""):
            answer.close()
            continue
        answers.append(answer)
        threads.append(threading.Thread(target=read, args=(answer,), daemon=True))
    url = f"ws{site.url.removeprefix('http')}/ws/events"
    is_over = threading.Event()

    def read_socket() -> None:
        with connect(url, additional_headers={"Authorization": client.headers["Authorization"]}) as socket:
            while not is_over.is_set():
                with suppress(TimeoutError):
                    heard.append(str(socket.recv(timeout=0.2)))

    threads.append(threading.Thread(target=read_socket, daemon=True))
    for thread in threads:
        thread.start()
    # One for each stream that there is: the list, its page, the fleet, the inbox; and the socket.
    assert len(threads) >= 5
    yield heard
    is_over.set()
    for answer in answers:
        answer.close()
    for thread in threads:
        thread.join(10)


World = tuple[Acme, dict[str, str], dict[str, str], list[str]]


def test_no_list_and_no_count_changes_by_what_another_tenant_does(world: World) -> None:
    """Every page and list is the same before and after, to the byte."""
    acme, before, after, _ = world

    assert before.keys() == after.keys()
    assert {path for path in before if before[path] != after[path]} == set()
    assert [path for path, text in after.items() if any(secret in text for secret in acme.secrets)] == []


def test_the_lists_would_have_shown_it(world: World) -> None:
    """Whose runs they are sees them: on the same routes, with the same words."""
    acme, *_ = world
    shown = acme.shown

    assert acme.held in shown["/runs"]
    assert acme.queued in shown["/jobs"]
    assert MARK in shown["/approvals"]
    assert acme.done in shown["/"]
    assert acme.running in shown["/ui/fleet"]
    assert acme.running in shown["/queue"]
    queue = json.loads(shown["/queue"])
    assert (queue["queued"], queue["delayed"], queue["running"]) == (0, 1, 1)


def test_no_stream_tells_of_another_tenant(world: World) -> None:
    """Events, rows, fragments and the socket say nothing of it."""
    acme, _, _, heard = world

    assert [line for line in heard if any(secret in line for secret in acme.secrets)] == []
    assert [line for line in heard if line.startswith("{")] == []


def test_whatever_names_a_run_of_another_tenant_is_unknown(site: Site, umbra: httpx.Client, world: World) -> None:
    """Each route with an id in it is a 404 for each kind of run, and nothing is written to any journal."""
    acme, *_ = world
    own = umbra.post("/run", json={"agent": "echo", "task": "own"}).json()["execution_id"]
    before = {id_: journal(site, id_) for id_ in acme.secrets[1:]}
    wrong: list[tuple[str, str, int]] = []
    tried = 0
    for method, path in routes_of(site.app):
        names = set(re.findall(r"{(\w+)}", path))
        if path in _CLOSED or method == "WS" or not names or names == {"name"}:
            continue
        for run in acme.secrets[1:]:
            given = {
                "execution_id": run, "other": run, "question": acme.question, "id_": acme.question, "n": 2,
            }  # fmt: skip
            answers = [send(umbra, method, path, given)]
            if "/diff" in path:
                # Neither side of a comparison may be another's.
                answers += [send(umbra, method, path, given | {side: own}) for side in ("execution_id", "other")]
            for answer in answers:
                tried += 1
                if answer.status_code != 404:
                    wrong.append((method, path, answer.status_code))
                answer.close()

    assert wrong == []
    assert tried > 100
    assert {id_: journal(site, id_) for id_ in before} == before


def journal(site: Site, execution_id: str) -> list[str]:
    return [str(record["type"]) for record in site.app.state.service.store.read(execution_id)]


def test_a_socket_for_one_run_of_another_tenant_says_nothing(site: Site, umbra: httpx.Client, world: World) -> None:
    """Asked for by its id it tells as little as one that does not exist."""
    acme, *_ = world
    url = f"ws{site.url.removeprefix('http')}/ws/events?execution_id={acme.running}"
    with connect(url, additional_headers={"Authorization": umbra.headers["Authorization"]}) as socket:
        other = site.client("root", "admin")
        assert other.post(f"/jobs/{acme.queued}/retry").status_code == 200
        site.gate.set()
        acme.client.get(f"/jobs/{acme.running}", params={"wait_s": 20})
        with pytest.raises(TimeoutError):
            socket.recv(timeout=1.0)


def test_a_key_of_one_tenant_is_no_key_of_another(site: Site, umbra: httpx.Client) -> None:
    """The same name and the same Idempotency-Key in two tenants are two runs; two keys of one name are one caller."""
    headers = {"Idempotency-Key": "the-same"}
    body = {"agent": "echo", "task": "same"}
    same_name = site.client("eve", "operator", tenant="acme")
    again = site.client("eve", "operator", tenant="umbra")
    other_name = site.client("bob", "operator", tenant="umbra")

    ids = [
        client.post("/run", json=body, headers=headers).json()["execution_id"]
        for client in (umbra, same_name, again, other_name)
    ]
    job = umbra.post("/jobs", json=body, headers=headers).json()["execution_id"]

    assert ids[0] == ids[2]
    assert len({*ids, job}) == 4


def test_who_has_no_tenant_sees_all(site: Site, world: World) -> None:
    """A key without a tenant is the one of whoever runs the server."""
    acme, *_ = world
    client = site.client("root", "viewer")

    rows = {row["execution_id"]: row["tenant"] for row in client.get("/runs", params={"limit": 500}).json()["runs"]}
    assert {rows[id_] for id_ in acme.secrets[1:]} == {"acme"}
    assert client.get("/metrics").status_code == 200
