"""`oao worker`, `oao submit`, `oao jobs`, `oao demo fleet`: real processes, a real server, and users' mistakes."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from pytest_oao.testing import RedisServer
from tests import forked

if TYPE_CHECKING:
    from tests.cli.conftest import Oao, Write

pytest.importorskip("docket")

ROOT = Path(__file__).parents[2]
AGENTS = """
    import os
    import signal
    import time
    from pathlib import Path

    import oao_harness

    @oao_harness.tool(effect="idempotent")
    def find(query):
        return f"found {query}"

    @oao_harness.tool(effect="idempotent")
    def wait(seconds):
        time.sleep(seconds)
        return "waited"

    def support(task):
        return find(task)

    def slow(task):
        for _ in range(30):
            wait(0.5)

    def broken(task):
        find(task)
        raise ValueError("no such order")
"""
PROJECT = """
[tool.oao.agents]
support = "fleet_shop:support"
slow = "fleet_shop:slow"
broken = "fleet_shop:broken"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis."""
    try:
        made = RedisServer("--appendonly", "yes")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with made:
        yield made


@pytest.fixture
def shop(folder: Path, write: Write, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project with agents, whose fleet is at a database of the server that nobody used before; its URL."""
    write("fleet_shop", AGENTS)
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    monkeypatch.setenv("OAO_SCHEDULER", server.url)
    return server.url


class Said:
    """What a worker prints, line by line."""

    def __init__(self, process: forked.Forked) -> None:
        self.process = process
        assert process.stdout is not None
        self._out: IO[str] = process.stdout

    def next(self) -> dict[str, Any]:
        line = self._out.readline()
        assert line, f"the worker ended: {self.process.stderr.read() if self.process.stderr else ''}"
        return dict(json.loads(line))

    def job(self, status: str) -> dict[str, Any]:
        """Return the next job that is so."""
        while (found := self.next()).get("status") != status:
            pass
        return found


def start(*args: str, cwd: Path) -> forked.Forked:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")]), "NO_COLOR": "1"}
    return forked.popen(["oao_harness", *args], cwd=cwd, env=env, frameworks=True)


@contextmanager
def worker(folder: Path, *more: str) -> Iterator[Said]:
    """A worker that is at work."""
    process = start("worker", "--json", "--lease", "2", *more, cwd=folder)
    try:
        said = Said(process)
        began = said.next()
        assert began["event"] == "started"
        said.process.began = began  # type: ignore[attr-defined]
        yield said
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_a_job_is_submitted_done_and_listed(oao: Oao, folder: Path, shop: str) -> None:
    """From the queue to the report, with the exit codes of `oao run`; then the worker ends by SIGTERM."""
    queued = oao("submit", "support", "early", "--as", "ann", "--tenant", "acme", "--priority", "high", "--json")
    assert json.loads(queued.stdout)["status"] == "QUEUED"
    before = json.loads(oao("jobs", "--json").stdout)
    assert (before["queue_size"], before["jobs"][0]["tenant"]) == (1, "acme")

    with worker(folder, "--metrics", "0") as said:
        assert said.job("SUCCESS")["execution_id"] == json.loads(queued.stdout)["execution_id"]
        done = oao("submit", "support", "x", "--wait", "20", "--json")
        failed = oao("submit", "broken", "x", "--retries", "0", "--wait", "20")
        port = said.process.began["metrics"]  # type: ignore[attr-defined]
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        listed = oao("jobs", "--all", width=120)
        said.process.send_signal(signal.SIGTERM)
        assert said.process.wait(10) == 0

    assert (done.exit_code, json.loads(done.stdout)["final_output"]) == (0, "found x")
    assert failed.exit_code == 1
    assert "ValueError: no such order" in failed.stdout
    assert 'oao_queue_size{state="queued"} 0.0' in metrics
    assert "oao_workers 1.0" in metrics
    assert "✔ SUCCESS" in listed.stdout
    assert "✘ FAILED" in listed.stdout
    assert re.search(r"#\d+#\w+ +(now|\d+ s ago)", listed.stdout), "the worker is listed"


def test_a_worker_hands_on_what_it_cannot_end_in_time(oao: Oao, folder: Path, shop: str) -> None:
    """SIGTERM drains; what takes longer is queued again, and cancelled by its id it is over."""
    with worker(folder, "--drain", "0.3") as said:
        id_ = json.loads(oao("submit", "slow", "x", "--json").stdout)["execution_id"]
        give_up = time.monotonic() + 10
        while json.loads(oao("jobs", "--json").stdout)["jobs"][0]["status"] != "RUNNING":
            assert time.monotonic() < give_up
        waited = oao("submit", "slow", "x", "--id", id_, "--wait", "0.2")
        said.process.send_signal(signal.SIGTERM)
        assert said.process.wait(10) == 0

    assert waited.exit_code == 4
    assert "is not over after" in waited.stderr
    assert "its worker stopped" in oao("jobs", width=120).stdout
    ended = oao("jobs", "cancel", id_[:8], "--as", "bob")
    assert "FAILED: cancelled by bob" in ended.stdout
    again = oao("jobs", "cancel", id_)
    assert again.exit_code == 2
    assert "is over" in again.stderr


def test_a_dead_letter_is_listed_and_driven_again(oao: Oao, folder: Path, shop: str) -> None:
    """With who said so in its journal."""
    from oao_harness.stores.redis import RedisStore

    id_ = json.loads(oao("submit", "support", "x", "--json").stdout)["execution_id"]
    assert oao("jobs", "dead").stdout == "There is no dead letter.\n"
    store = RedisStore(shop)
    epoch = store.claim(id_)
    dead = {"reason": "dead letter: 5 workers", "approvals": [], "totals": {"steps": 0}, "dead": True}
    store.append(id_, epoch, {"v": 1, "seq": 2, "type": "run.suspended", "at": time.time(), **dead})  # type: ignore[dict-item]

    listed = oao("jobs", "dead", width=120).stdout
    counted = json.loads(oao("jobs", "--json").stdout)
    retried = oao("jobs", "retry", id_[:8], "--as", "ann", "--json")
    last = list(store.read(id_))[-1]
    store.close()

    assert "✝ DEAD" in listed
    assert "dead letter: 5 workers" in listed
    assert counted["dead"] == 1
    assert json.loads(retried.stdout)["status"] == "QUEUED"
    assert (last["type"], last["by"]) == ("run.queued", "ann")


def test_a_job_waits_for_its_time(oao: Oao, shop: str) -> None:
    """`--delay 10m` is ten minutes, and the list says how long is left; a list that is watched has a line each time."""
    oao("submit", "support", "x", "--delay", "10m")

    seen = json.loads(oao("jobs", "--json").stdout)
    assert (seen["queued"], seen["delayed"]) == (0, 1)
    assert re.search(r"in (9 min|10 min)", oao("jobs", width=120).stdout)
    watching = start("jobs", "--watch", "--every", "0.1", "--json", cwd=Path.cwd())
    try:
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]  # type: ignore[union-attr]
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=10)
    finally:
        watching.kill()
    assert [line["delayed"] for line in lines] == [1, 1]


def test_an_unknown_agent_is_refused_before_anything_is_written(oao: Oao, shop: str) -> None:
    """The message names the agents that there are."""
    result = oao("submit", "suport", "x")

    assert result.exit_code == 2
    assert "'suport'" in result.stderr
    assert "did you mean 'support'" in result.stderr
    assert json.loads(oao("jobs", "--json").stdout)["jobs"] == []


def test_the_id_of_another_job_is_refused(oao: Oao, shop: str) -> None:
    """The same job twice is one; another task under its id is a mistake."""
    first = oao("submit", "support", "x", "--id", "mine", "--json")
    second = oao("submit", "support", "x", "--id", "mine", "--json")
    other = oao("submit", "support", "y", "--id", "mine")

    assert first.stdout == second.stdout
    assert other.exit_code == 2
    assert "exists already" in other.stderr
    assert json.loads(oao("jobs", "--json").stdout)["queue_size"] == 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("submit", "support", "x", "--input", "{}"), "the task is given twice"),
        (("submit", "support", "--input", "{"), "is not JSON"),
        (("submit", "support", "x", "--delay", "soon"), "is no time span"),
        (("submit", "support", "x", "--scheduler", "carrier-pigeon:coop"), "no plugin opens the scheduler"),
        (("worker", "--scheduler", "carrier-pigeon:coop"), "no plugin opens the scheduler"),
        (("worker", "--slots", "0"), "--slots"),
        (("worker", "--scheduler", "redis://127.0.0.1:9/0"), "127.0.0.1:9"),
        (("jobs", "--scheduler", "redis://127.0.0.1:9/0"), "127.0.0.1:9"),
        (("jobs", "retry", "nothing"), "no run"),
        (("jobs", "cancel", "nothing"), "no run"),
    ],
)
def test_a_mistake_is_one_line(oao: Oao, shop: str, args: tuple[str, ...], told: str) -> None:
    """Exit code 2, no traceback."""
    result = oao(*args)

    assert result.exit_code == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_a_worker_without_agents_does_not_start(oao: Oao, folder: Path) -> None:
    """It says where agents are registered."""
    result = oao("worker")

    assert result.exit_code == 2
    assert "no agent is registered here" in result.stderr
    assert "[tool.oao.agents]" in result.stderr


def test_a_server_that_wants_a_password_says_so(oao: Oao, shop: str) -> None:
    """And a password in a URL is never printed."""
    import redis

    with RedisServer("--appendonly", "yes") as locked, redis.Redis.from_url(locked.url) as client:
        client.config_set("requirepass", "geheim")
        without = oao("worker", "--scheduler", locked.url)
        wrong = oao("jobs", "--scheduler", locked.url.replace("//", "//:falsch@"))
        right = oao("jobs", "--scheduler", locked.url.replace("//", "//:geheim@"))

    assert without.exit_code == 2
    assert "password" in without.stderr.lower()
    assert wrong.exit_code == 2
    assert "falsch" not in wrong.stderr
    assert right.exit_code == 0
    assert "geheim" not in right.stdout


def test_a_second_signal_ends_a_worker_at_once(oao: Oao, folder: Path, shop: str) -> None:
    """What it had is not lost: it waits for another worker."""
    with worker(folder, "--drain", "60") as said:
        oao("submit", "slow", "x")
        give_up = time.monotonic() + 10
        while json.loads(oao("jobs", "--json").stdout)["jobs"][0]["status"] != "RUNNING":
            assert time.monotonic() < give_up
        said.process.send_signal(signal.SIGINT)
        assert said.next()["event"] == "stopping"
        said.process.send_signal(signal.SIGINT)
        assert said.process.wait(15) == 0

    (job,) = json.loads(oao("jobs", "--all", "--json").stdout)["jobs"]
    assert job["status"] in {"QUEUED", "RUNNING"}, job


def test_the_demo_of_a_fleet_loses_nothing(folder: Path) -> None:
    """It kills, freezes, counts, and leaves nothing behind."""
    before = set(Path("/tmp").glob("oao-fleet-*"))
    process = start("demo", "fleet", "--runs", "12", cwd=folder)
    said, errors = process.communicate(timeout=60)

    assert process.returncode == 0, said + errors
    assert re.search(r"^ lost +0 ", said, re.MULTILINE)
    assert re.search(r"^ finished calls repeated +0 ", said, re.MULTILINE)
    assert "killed with kill -9" in said
    assert set(Path("/tmp").glob("oao-fleet-*")) <= before
