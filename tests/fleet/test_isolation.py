"""A job in a process of its own: real processes, killed and cancelled, with the journal in SQLite."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oao_harness import AgentError, BusyError, SQLiteStore, StoreError, UsageError
from oao_harness.errors import ChangedError
from oao_harness.fleet.isolation import run_in_process
from oao_harness.fleet.status import JobStatus, status_of
from oao_harness.journal.codec import encode
from oao_harness.journal.leases import claim
from oao_harness.journal.writer import Writer
from oao_harness.runtime.clock import SystemClock

AGENTS = """
import asyncio, os, pathlib, signal, subprocess, sys, time

print("imported")
print("as it is", sys.stdin.read())

def good(task):
    print("an agent prints")
    return f"done {task}"

def asleep(task):
    pathlib.Path("group").write_text(str(os.getpid()))
    if task == "child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    time.sleep(60)

async def waits(task):
    pathlib.Path("group").write_text(str(os.getpid()))
    await asyncio.sleep(60)

def stubborn(task):
    signal.signal(signal.SIGTERM, signal.SIG_IGN) if task else None
    pathlib.Path("group").write_text(str(os.getpid()))
    sum(iter(int, 1))

def dies(task):
    os.kill(os.getpid(), signal.SIGKILL)

def leaves(task):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"])
    return "left something"
"""
PROJECT = "[tool.oao.agents]\n" + "".join(
    f"{name} = 'isolated_desk:{name}'\n" for name in ("good", "asleep", "waits", "stubborn", "dies", "leaves")
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with agents that are registered."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "isolated_desk.py").write_text(AGENTS)
    (tmp_path / "pyproject.toml").write_text(PROJECT + "crashes = 'crashing_desk:x'\nabsent = 'no_such_desk:x'\n")
    (tmp_path / "crashing_desk.py").write_text("import os; os._exit(7)\n")
    monkeypatch.chdir(tmp_path)
    # The child finds oao where this process found it.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore("runs.db")
    yield opened
    opened.close()


URL = "sqlite:runs.db"


def submit(store: SQLiteStore, id_: str, agent: str, task: object = "x") -> None:
    """Queue a run, as a fleet does."""
    job = {"agent": agent, "tenant": "", "priority": "normal", "policy": [], "not_before": 0.0, "retries": {"times": 0}}
    Writer(store, id_, SystemClock(), epoch=claim(store, id_)).append(
        "run.started", {"execution_id": id_, "agent": agent, "task": encode(task), "job": job}
    )


def status(store: SQLiteStore, id_: str) -> JobStatus:
    return status_of(list(store.read(id_)))


async def group_of(folder: Path) -> int:
    """Return the process group of the agent, as soon as it is at work."""
    for _ in range(1000):
        if (folder / "group").exists() and (folder / "group").read_text():
            return int((folder / "group").read_text())
        await asyncio.sleep(0.01)
    raise AssertionError("the agent did not begin")


def is_alive(group: int) -> bool:
    """Return False where the group has no process left, or only such as nobody has asked for their exit code."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    stats = [text.rpartition(")")[2].split() for text in map(_stat, Path("/proc").glob("[0-9]*/stat")) if text]
    return not stats or any(int(stat[2]) == group and stat[0] != "Z" for stat in stats)


def _stat(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


async def ends(group: int) -> bool:
    for _ in range(500):
        if not is_alive(group):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_job_is_done_elsewhere(folder: Path, store: SQLiteStore, capfd: pytest.CaptureFixture[str]) -> None:
    """Its journal says so; the agent reads nothing, and what it prints goes to standard error."""
    submit(store, "r1", "good", {"n": 1})
    assert await run_in_process(URL, "r1", lease_s=5) == "ended"
    assert status(store, "r1").status == "SUCCESS"
    assert list(store.read("r1"))[-1]["output"] == "done {'n': 1}"
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == ["imported", "as it is ", "an agent prints"]


async def test_what_the_agent_leaves_behind_does_not_hold_the_worker(folder: Path, store: SQLiteStore) -> None:
    """A process that the agent has started may live longer than its job."""
    submit(store, "r1", "leaves")
    begun = time.monotonic()
    assert await run_in_process(URL, "r1", lease_s=5) == "ended"
    assert time.monotonic() - begun < 4.5
    assert status(store, "r1").status == "SUCCESS"


@pytest.mark.parametrize("agent", ["asleep", "waits"])
async def test_a_job_is_put_down(folder: Path, store: SQLiteStore, agent: str) -> None:
    """Another worker goes on with it at once: the journal says that it waits again, and nobody holds it."""
    submit(store, "r1", agent)
    put_down = asyncio.Event()
    task = asyncio.create_task(run_in_process(URL, "r1", lease_s=60, put_down=put_down))
    group = await group_of(folder)
    put_down.set()
    assert await task == "ended"
    assert not is_alive(group)
    assert (status(store, "r1").status, status(store, "r1").reason) == ("QUEUED", "its worker stopped")
    assert claim(store, "r1") > 0


@pytest.mark.parametrize("agent", ["asleep", "waits"])
async def test_a_cancelled_job_ends(folder: Path, store: SQLiteStore, agent: str) -> None:
    """Its journal says so, as that of a run which was cancelled in this process."""
    submit(store, "r1", agent)
    task = asyncio.create_task(run_in_process(URL, "r1", lease_s=60))
    group = await group_of(folder)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(group)
    assert status(store, "r1").status == "FAILED"
    assert "cancelled" in status(store, "r1").reason


async def test_a_job_that_will_not_stop_is_killed(folder: Path, store: SQLiteStore) -> None:
    """One that holds the interpreter hears no signal; it is gone after the grace, with nothing lost but its lease."""
    submit(store, "r1", "stubborn", "")
    task = asyncio.create_task(run_in_process(URL, "r1", lease_s=60))
    group = await group_of(folder)
    begun = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - begun < 6
    assert not is_alive(group)
    assert status(store, "r1").status in {"RUNNING", "FAILED"}
    assert claim(store, "r1") > 0


async def test_the_limit_kills_what_the_agent_has_started_too(folder: Path, store: SQLiteStore) -> None:
    """The whole group, and at once; who asked for it decides what the run becomes."""
    submit(store, "r1", "asleep", "child")
    for limit_s in (1.0, 4.0, 16.0):
        assert await run_in_process(URL, "r1", lease_s=60, limit_s=limit_s) == "limit"
        if (folder / "group").exists():
            break
    assert await ends(await group_of(folder))
    assert status(store, "r1").status == "RUNNING"


async def test_a_process_that_was_killed(folder: Path, store: SQLiteStore) -> None:
    """It is said; its journal ends where it was, and its lease is a dead process'."""
    submit(store, "r1", "dies")
    assert await run_in_process(URL, "r1", lease_s=60) == "died"
    assert status(store, "r1").status == "RUNNING"
    assert claim(store, "r1") > 0


async def test_it_dies_with_its_worker(folder: Path, store: SQLiteStore) -> None:
    """A worker that is killed leaves nobody behind who works on."""
    submit(store, "r1", "asleep", "child")
    code = (
        "import asyncio; from oao_harness.fleet.isolation import run_in_process; "
        f"asyncio.run(run_in_process({URL!r}, 'r1', lease_s=60))"
    )
    worker = subprocess.Popen([sys.executable, "-c", code])
    try:
        group = await group_of(folder)
        assert is_alive(group)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
    assert await ends(group)


async def test_why_it_could_not_begin(folder: Path, store: SQLiteStore) -> None:
    """The worker raises what its process met, and the journal is as it was."""
    for id_, agent, kind, said in (
        ("r1", "absent", AgentError, "there is no module 'no_such_desk'"),
        ("r2", "nobody", AgentError, "there is no agent named 'nobody'; "),
        ("r3", "isolated_desk:good", AgentError, "A job names an agent, never code"),
        ("r4", "crashes", AgentError, "the process of run 'r4' ended with exit code 7 before it could begin"),
    ):
        submit(store, id_, agent)
        with pytest.raises(kind, match=said):
            await run_in_process(URL, id_, lease_s=5)
        assert len(list(store.read(id_))) == 1


async def test_the_errors_of_the_run_itself(folder: Path, store: SQLiteStore) -> None:
    """Busy with its numbers, over, unknown, no store: each is the error that a worker in this process would get."""
    submit(store, "r1", "good")
    epoch = store.claim("r1", owner="somebody", ttl_s=60)
    with pytest.raises(BusyError) as busy:
        await run_in_process(URL, "r1", lease_s=5)
    assert (busy.value.epoch, busy.value.owner) == (epoch, "somebody")
    assert 50 < busy.value.left_s <= 60
    with pytest.raises(UsageError, match="run 'unknown' is no job of this store"):
        await run_in_process(URL, "unknown", lease_s=5)
    with pytest.raises(StoreError):
        await run_in_process("sqlite:/dev/null/runs.db", "r1", lease_s=5)


async def test_other_code_is_refused(folder: Path, store: SQLiteStore) -> None:
    """A run that began with other code waits for a worker that has it."""
    submit(store, "r1", "dies")
    await run_in_process(URL, "r1", lease_s=5)
    source = folder / "isolated_desk.py"
    source.write_text(source.read_text().replace("def dies(task):", "def dies(task):\n    task = 'other'"))
    with pytest.raises(ChangedError):
        await run_in_process(URL, "r1", lease_s=5)
