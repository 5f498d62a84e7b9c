"""Metrics of many processes on one page: those of jobs, and those of a server; what is dead is not alive there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oao_harness import Fleet, Retries
from oao_harness.listeners.metrics_exposition import Exposition
from oao_harness.listeners.metrics_processes import ProcessMetrics
from oao_hookspecs import Principal
from tests import forked
from tests.listeners.metrics_lint import lint
from tests.listeners.metrics_traffic import samples, value

ROOT = Path(__file__).parents[2]
AGENTS = """
import os, pathlib, signal, time
import oao_harness

@oao_harness.tool(effect="pure")
def look(what):
    return what

@oao_harness.model(name="model-x")
def ask(prompt):
    return {"content": prompt, "usage": {"input_tokens": 10, "output_tokens": 1}}

def good(task):
    look(task)
    return ask(task)["content"]

def flaky(task):
    if not pathlib.Path(task).exists():
        pathlib.Path(task).touch()
        raise ConnectionError("away")
    return "done"

def asleep(task):
    ask("first")
    pathlib.Path(task).touch()
    time.sleep(60)

def forks(task):
    import multiprocessing
    process = multiprocessing.get_context("fork").Process(target=look, args=(task,))
    process.start()
    process.join()
    return "done"
"""
NAMES = ("good", "flaky", "asleep", "forks")
PROJECT = "[tool.oao.agents]\n" + "".join(f"{name} = 'counted_shop:{name}'\n" for name in NAMES)
ANNA = Principal(id="anna")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with agents that are registered."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "counted_shop.py").write_text(AGENTS)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    sys.modules.pop("counted_shop", None)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_jobs_in_processes_of_their_own(folder: Path) -> None:
    """Each counts once, what was killed is alive no more, and files are taken over."""
    with ProcessMetrics.opened() as processes:
        fleet = Fleet("local:", "sqlite:runs.db", isolation="process", process_metrics=processes.lend)
        exposition = Exposition(folder=processes.folder)

        def page() -> str:
            return exposition.answer()[0].decode()

        stop = asyncio.Event()
        worker = asyncio.create_task(fleet.work(slots=2, stop=stop, drain_s=0.1))
        try:
            for job in [await fleet.submit("good", "x") for _ in range(5)]:
                assert (await fleet.fetch(job, 20)).status == "SUCCESS"  # type: ignore[union-attr]
            tried = await fleet.submit("flaky", "tried", retries=Retries(times=1, first_s=0.01))
            assert (await fleet.fetch(tried, 20)).status == "SUCCESS"  # type: ignore[union-attr]
            killed = await fleet.submit("asleep", "killed")
            await until((folder / "killed").exists)
            alive = page()
            await fleet.cancel(killed, ANNA)
            # The process is killed 3 seconds after it was asked to end.
            await until(lambda: value(page(), "oao_active_agents", agent_type="asleep") is None)
        finally:
            stop.set()
            await asyncio.gather(worker, return_exceptions=True)
            await fleet.close()
        dead = page()
        files = sorted(file.name for file in processes.folder.glob("*.db"))
    assert not processes.folder.exists()
    assert lint(alive) == []
    assert lint(dead) == []
    assert value(alive, "oao_active_agents", agent_type="asleep") == 1
    assert [series for series in samples(dead) if series[0] == "oao_active_agents"] == []
    assert value(dead, "oao_executions_total", status="SUCCESS", agent_type="good") == 5
    assert value(dead, "oao_calls_total", kind="tool", name="look", outcome="ok") == 5
    tokens = {"model": "model-x", "direction": "in"}
    assert value(dead, "oao_token_usage_total", agent_type="good", **tokens) == 50
    assert value(dead, "oao_token_usage_total", agent_type="asleep", **tokens) == 10
    assert value(dead, "oao_retries_total", of="job") == 1
    assert (value(dead, "oao_journal_append_seconds_count") or 0) > 20
    assert {name.rpartition("_")[2] for name in files} <= {"slot0.db", "slot1.db"}


async def test_what_an_agent_forks_does_not_count_twice(folder: Path) -> None:
    """It has files of its own; nobody writes those of another process."""
    with ProcessMetrics.opened() as processes:
        fleet = Fleet("local:", "sqlite:runs.db", isolation="process", process_metrics=processes.lend)
        worker = asyncio.create_task(fleet.work(slots=1))
        try:
            assert (await fleet.fetch(await fleet.submit("forks", "x"), 20)).status == "SUCCESS"  # type: ignore[union-attr]
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
            await fleet.close()
        page = Exposition(folder=processes.folder).answer()[0].decode()
    assert value(page, "oao_executions_total", status="SUCCESS", agent_type="forks") == 1
    assert lint(page) == []


def test_what_killed_workers_left_is_deleted(folder: Path) -> None:
    """The folder of a worker that lives is not."""
    code = (
        "import time; from oao_harness.listeners.metrics_processes import ProcessMetrics\n"
        "with ProcessMetrics.opened() as one: print(one.folder, flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    left = Path(first.stdout.readline().strip())
    assert left.is_relative_to(folder)
    with ProcessMetrics.opened() as other:
        assert left.exists()
        first.kill()
        first.communicate(timeout=10)
        with ProcessMetrics.opened():
            assert not left.exists()
            assert other.folder.exists()


@contextmanager
def worker(folder: Path, *more: str) -> Iterator[tuple[forked.Forked, dict[str, Any]]]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")]), "NO_COLOR": "1"}
    command = ["oao_harness", "worker", "--json", "--metrics", "0", *more]
    process = forked.popen(command, cwd=folder, env=env, frameworks=True)
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.parametrize("isolation", [(), ("--isolation", "process")], ids=["threads", "processes"])
async def test_a_worker_shows_its_runs(folder: Path, isolation: tuple[str, ...]) -> None:
    """`oao worker --metrics`: runs, journal and queue on one page; nothing of it is left on the disk."""
    jobs = Fleet("local:", "sqlite:runs.db")
    ids = [await jobs.submit("good", "x") for _ in range(3)]
    with worker(folder, "--scheduler", "local:", "--store", "sqlite:runs.db", *isolation) as (process, began):
        for job in ids:
            report = await jobs.fetch(job, 30)
            assert report is not None
            assert report.status == "SUCCESS"
        url = f"http://127.0.0.1:{began['metrics']}/metrics"
        give_up = time.monotonic() + 20
        while True:
            page = (await asyncio.to_thread(urllib.request.urlopen, url, timeout=10)).read().decode()
            ended = value(page, "oao_executions_total", status="SUCCESS", agent_type="good")
            if ended == 3 and value(page, "oao_queue_size", state="running") == 0:
                break
            assert time.monotonic() < give_up, page
            await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    await jobs.close()
    assert lint(page) == []
    assert value(page, "oao_token_usage_total", agent_type="good", model="model-x", direction="in") == 30
    assert not value(page, "oao_active_agents", agent_type="good")
    assert value(page, "oao_approvals_pending") == 0
    assert (value(page, "oao_journal_append_seconds_count") or 0) >= 12
    assert [name for (name, _), up in samples(page).items() if name == "oao_scrape_up" and up != 1] == []
    assert list((folder / "temporary").iterdir()) == []


SERVER_WORKER = """
import sys, time
from oao_harness import Orchestrator, tool
from oao_harness.listeners.metrics import Metrics

@tool
def look(what):
    return what

metrics = Metrics()
def agent(task):
    look(task)
    if task == "hangs":
        print("hangs", flush=True)
        time.sleep(60)
Orchestrator(plugins=[metrics]).run(agent, "x", agent_name="desk")
if sys.argv[1] == "hangs":
    Orchestrator(plugins=[metrics]).run(agent, "hangs", agent_name="desk")
print("done", flush=True)
sys.stdin.read()
"""


def test_workers_of_a_server_share_a_folder(folder: Path) -> None:
    """With PROMETHEUS_MULTIPROC_DIR each process shows all of them; one that was killed has no run at work."""
    shared = folder / "shared"
    shared.mkdir()
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(shared)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SERVER_WORKER, mood],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for mood in ("hangs", "", "")
    ]
    try:
        assert [process.stdout.readline().strip() for process in processes] == ["hangs", "done", "done"]  # type: ignore[union-attr]
        exposition = Exposition(folder=shared)
        before = exposition.answer()[0].decode()
        processes[0].kill()
        processes[0].wait(10)
        after = exposition.answer()[0].decode()
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=10)
    assert value(before, "oao_executions_total", status="SUCCESS", agent_type="desk") == 3
    assert value(before, "oao_active_agents", agent_type="desk") == 1
    assert value(after, "oao_active_agents", agent_type="desk") == 0
    assert value(after, "oao_calls_total", kind="tool", name="look", outcome="ok") == 4
    assert lint(before) == lint(after) == []


def test_a_damaged_file_takes_only_the_processes_away(tmp_path: Path) -> None:
    """The page is there, and says so; a file that was only just made is no damage."""
    (tmp_path / "counter_1.db").write_bytes(b"")
    exposition = Exposition(folder=tmp_path)
    assert value(exposition.answer()[0].decode(), "oao_scrape_up", source="processes") == 1
    (tmp_path / "counter_2.db").write_bytes(b"\xff\x00\x00\x00" + b"damaged" * 100)
    assert value(exposition.answer()[0].decode(), "oao_scrape_up", source="processes") == 0


async def test_what_an_agent_counts_itself_is_shown(folder: Path) -> None:
    """In its process the library writes to the same folder, whoever uses it."""
    (folder / "counted_shop.py").write_text(
        AGENTS.replace("import oao_harness\n", "import oao_harness, prometheus_client\n")
        + "\nOWN = prometheus_client.Counter('shop_sales_total', 'Sales.')\n\ndef good(task):\n    OWN.inc()\n"
    )
    with ProcessMetrics.opened() as processes:
        fleet = Fleet("local:", "sqlite:runs.db", isolation="process", process_metrics=processes.lend)
        worker = asyncio.create_task(fleet.work(slots=1))
        try:
            for job in [await fleet.submit("good", "x") for _ in range(2)]:
                assert (await fleet.fetch(job, 20)).status == "SUCCESS"  # type: ignore[union-attr]
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
            await fleet.close()
        page = Exposition(folder=processes.folder).answer()[0].decode()
    assert value(page, "shop_sales_total") == 2
