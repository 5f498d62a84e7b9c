"""`/metrics` of a server that has done everything that goes wrong, and of one that is several processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.listeners.metrics_lint import lint
from tests.listeners.metrics_traffic import samples, value
from tests.server.conftest import AGENTS, DESK, PROJECT, ROOT, Server, serving

SEED = {
    "oao_executions_total",
    "oao_execution_duration_seconds_count",
    "oao_active_agents",
    "oao_token_usage_total",
    "oao_queue_size",
}
THINKER = """

from oao_harness import model


@model(name="model-x")
def ask(prompt: str) -> dict[str, object]:
    return {"content": prompt, "usage": {"input_tokens": 10, "output_tokens": 2}}


def thinker(task):
    return ask(str(task))["content"]
"""


def until(page: Callable[[], str], enough: Callable[[str], bool], timeout_s: float = 20) -> str:
    """Return a page on which something is so, as soon as it is."""
    give_up = time.monotonic() + timeout_s
    while not enough(found := page()):
        assert time.monotonic() < give_up, found
        time.sleep(0.1)
    return found


def active(page: str) -> dict[str, float]:
    """Return the agents that are at work."""
    return {
        dict(labels)["agent_type"]: count
        for (name, labels), count in samples(page).items()
        if name == "oao_active_agents" and count
    }


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with an agent that asks a model."""
    monkeypatch.setattr("tests.server.conftest.AGENTS", AGENTS + THINKER)
    monkeypatch.setattr(
        "tests.server.conftest.PROJECT", PROJECT.replace('echo = "', 'thinker = "serving:thinker"\necho = "', 1)
    )
    with serving(tmp_path, "--grace", "1", broken=False) as started:
        yield started


def test_all_that_goes_wrong_is_counted_and_nothing_stays_at_work(server: Server) -> None:
    """Hanging agents, cancelled runs, bad input, runs that are refused, jobs, questions, replays: then all is zero."""
    client = server.client

    def page() -> str:
        return client.get("/metrics").text

    thought = server.run("thinker", "x").json()
    for agent in ("echo", "sync-echo", "fails"):
        assert server.run(agent, 1).status_code == 200
    assert client.post(f"/runs/{thought['execution_id']}/replay").json()["status"] == "SUCCESS"
    held = [server.run("payer", amount).json()["execution_id"] for amount in (1, 2, 3)]
    questions = {one["execution_id"]: one["id"] for one in client.get("/approvals").json()}
    assert client.post(f"/approvals/{questions[held[0]]}/approve").is_success
    assert client.post(f"/approvals/{questions[held[1]]}/reject").is_success
    assert client.post(f"/runs/{held[2]}/cancel").is_success
    assert [client.post("/run", json=bad).status_code for bad in ({}, {"agent": "none"}, {"agent": 1})] == [
        422,
        404,
        422,
    ]
    jobs = [
        client.post("/jobs", json={"agent": name, "task": 1}).json()["execution_id"] for name in ("thinker", "flaky")
    ]
    ended = [client.get(f"/jobs/{id_}", params={"wait_s": 20}).json()["status"] for id_ in jobs]
    assert ended == ["SUCCESS", "DEAD"]

    with ThreadPoolExecutor(20) as pool:
        hanging = [
            pool.submit(server.run, agent, deadline_s=3)
            for agent in ("hang", "hang-sync", "block-loop", "stubborn", "hang-sync", "block-loop")
        ]
        crowd = [pool.submit(server.run, "one-at-a-time", "1") for _ in range(6)]
        slow = pool.submit(server.run, "hang")
        until(page, lambda found: active(found).get("hang") == 2)
        assert sorted(one.result(20).status_code for one in crowd) == [200] * 3 + [429] * 3
        for one in hanging:
            assert one.result(20).json()["status"] == "FAILED"
        # The one that has no deadline of its own.
        for row in client.get("/runs", params={"agent": "hang", "status": "RUNNING"}).json()["runs"]:
            assert client.post(f"/runs/{row['execution_id']}/cancel").is_success
        assert slow.result(20).json()["status"] == "FAILED"

    found = until(page, lambda one: not active(one) and value(one, "oao_approvals_pending") == 0)
    assert lint(found) == []
    assert {name for name, _ in samples(found)} >= SEED

    def ran(agent: str, status: str) -> float:
        return value(found, "oao_executions_total", agent_type=agent, status=status) or 0

    assert (ran("thinker", "SUCCESS"), ran("echo", "SUCCESS"), ran("sync-echo", "SUCCESS")) == (2, 1, 1)
    assert (ran("fails", "FAILED"), ran("payer", "SUCCESS"), ran("payer", "FAILED")) == (1, 1, 2)
    assert (ran("hang", "FAILED"), ran("hang-sync", "FAILED"), ran("block-loop", "FAILED")) == (2, 2, 2)
    assert (ran("stubborn", "FAILED"), ran("one-at-a-time", "SUCCESS")) == (1, 3)
    assert value(found, "oao_token_usage_total", agent_type="thinker", model="model-x", direction="in") == 20
    assert value(found, "oao_replayed_calls_total", kind="model") == 1
    assert value(found, "oao_approvals_answered_total", verdict="approve") == 1
    assert value(found, "oao_approvals_answered_total", verdict="reject") == 1
    assert value(found, "oao_dead_letters") == 1
    assert value(found, "oao_violations_total", rule="deadline") == 6
    assert value(found, "oao_violations_total", rule="cancelled") == 2
    assert [one for (name, _), one in samples(found).items() if name == "oao_scrape_up"] == [1, 1]


def test_who_asks_for_open_metrics_gets_it(server: Server) -> None:
    """Which ends as that format does; else it is the text format."""
    plain = server.client.get("/metrics")
    asked = server.client.get(
        "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5"}
    )
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert asked.headers["content-type"] == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
    )
    assert asked.text.endswith("# EOF\n")
    assert [one.name for one in text_string_to_metric_families(asked.text)]


class Several:
    """A server of two processes on one port."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def fresh(self) -> httpx.Client:
        """Return a client with a connection of its own: any of the processes takes it."""
        return httpx.Client(base_url=self.url, timeout=20)


def _has_come(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/healthz", timeout=2).is_success)
    except httpx.HTTPError:
        return False


@contextmanager
def several(folder: Path) -> Iterator[Several]:
    """`uvicorn --workers 2`, with a folder for what both count."""
    for name, text in (("serving.py", AGENTS), ("pyproject.toml", PROJECT), ("desk.toml", DESK)):
        (folder / name).write_text(text.replace('broken = "no_such_module:agent"', ""))
    (folder / "counted").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--workers", "2", "--port", str(port), "oao_harness.server:app"],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")]),
                "PROMETHEUS_MULTIPROC_DIR": str(folder / "counted"),
                "OAO_STORE": "sqlite:runs.db",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        give_up = time.monotonic() + 40
        while (folder / "server.log").read_text().count("Application startup complete") < 2 or not _has_come(url):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < give_up, (folder / "server.log").read_text()
            time.sleep(0.1)
        yield Several(folder, url)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """One for the tests below."""
    with several(tmp_path_factory.mktemp("several")) as started:
        yield started


def _has_run(file: Path) -> bool:
    families = MultiProcessCollector.merge([str(file)])  # type: ignore[no-untyped-call]
    return any(one.name == "oao_executions" and one.samples for one in families)


def test_each_process_shows_what_both_count(both: Several) -> None:
    """Runs are asked for until both have done some; every page that is asked for has all of them."""

    def page() -> str:
        with both.fresh() as client:
            return client.get("/metrics").text

    # Other tests of this module may have asked before.
    asked = int(value(page(), "oao_executions_total", status="SUCCESS", agent_type="echo") or 0)
    give_up = time.monotonic() + 30
    first = True
    while first or len([one for one in (both.folder / "counted").glob("counter_*.db") if _has_run(one)]) < 2:
        first = False
        assert time.monotonic() < give_up
        for _ in range(5):
            with both.fresh() as client:
                assert client.post("/run", json={"agent": "echo", "task": 1}).json()["status"] == "SUCCESS"
            asked += 1

    pages = [page() for _ in range(10)]
    told = [value(one, "oao_executions_total", status="SUCCESS", agent_type="echo") for one in pages]
    assert told == [asked] * 10
    assert lint(pages[0]) == []
    assert active(pages[0]) == {}


def test_streams_of_any_process_tell_of_the_runs_of_all(both: Several) -> None:
    """Whoever writes a journal, all feeds of its store tell of it."""
    clients = [both.fresh() for _ in range(12)]

    def heard(client: httpx.Client) -> set[Any]:
        found: set[Any] = set()
        with client.stream("GET", "/events") as stream:
            for line in stream.iter_lines():
                if line.startswith(":"):
                    open_.append(1)
                if line.startswith("data:") and "one-at-a-time" in line:
                    found.add(json.loads(line[5:]).get("status"))
                if "SUCCESS" in found:
                    break
        return found

    open_: list[int] = []
    with ThreadPoolExecutor(len(clients)) as pool:
        hearing = [pool.submit(heard, one) for one in clients]
        give_up = time.monotonic() + 20
        while len(open_) < len(clients):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        with both.fresh() as client:
            assert client.post("/run", json={"agent": "one-at-a-time", "task": "0.5"}).json()["status"] == "SUCCESS"
        assert all("SUCCESS" in one.result(20) for one in hearing)
    for one in clients:
        one.close()


def test_any_process_may_take_an_answer(both: Several) -> None:
    """The run goes on in the process that was asked, whoever began it; and it pays once."""
    with both.fresh() as client:
        ids = [client.post("/run", json={"agent": "payer", "task": n}).json()["execution_id"] for n in range(6)]
        questions = {one["execution_id"]: one["id"] for one in client.get("/approvals").json()}
    for id_ in ids:
        with both.fresh() as client:
            assert client.post(f"/approvals/{questions[id_]}/approve").is_success

    def done() -> int:
        with both.fresh() as client:
            return sum(client.get(f"/runs/{id_}").json()["status"] == "SUCCESS" for id_ in ids)

    give_up = time.monotonic() + 20
    while done() < len(ids):
        assert time.monotonic() < give_up
        time.sleep(0.1)
    assert sorted((both.folder / "paid.txt").read_text().split()) == [str(n) for n in range(6)]
