"""What every store promises, and what SQLite promises beyond."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oao_harness import ConfigError, FencedError, MemoryStore, Orchestrator, SQLiteStore, StoreError, tool
from oao_hookspecs import Json, Record, Store, without_hash


def record(seq: int, type: str = "note", **fields: Json) -> Record:
    return {"v": 1, "seq": seq, "type": type, "at": 1.5, **fields}


def test_records_come_back_in_order_and_equal(store: Store) -> None:
    """What was appended is read, unchanged, also unicode and nesting."""
    epoch = store.claim("run")
    written = [record(n, text="zwölf ✓ 🚀 \ud83d\n", data={"list": [1, 2.5, None, True]}) for n in range(1, 6)]
    for item in written:
        store.append("run", epoch, item)

    assert [without_hash(item) for item in store.read("run")] == written
    assert list(store.read("unknown")) == []


def test_a_writer_that_was_superseded_is_refused(store: Store) -> None:
    """The epoch fences: who claimed first may write no more."""
    first = store.claim("run")
    store.append("run", first, record(1))
    second = store.claim("run")

    with pytest.raises(FencedError, match="superseded"):
        store.append("run", first, record(2))
    store.append("run", second, record(2))
    assert [item["seq"] for item in store.read("run")] == [1, 2]


@pytest.mark.parametrize("seq", [1, 3, 0])
def test_a_gap_or_a_repetition_is_refused(store: Store, seq: int) -> None:
    """The order of a journal is total."""
    epoch = store.claim("run")
    store.append("run", epoch, record(1))

    with pytest.raises(StoreError, match="after 1 records"):
        store.append("run", epoch, record(seq))
    assert len(list(store.read("run"))) == 1


def test_a_writer_without_a_claim_is_refused(store: Store) -> None:
    """Nobody writes to a run that was never claimed."""
    with pytest.raises(FencedError):
        store.append("run", 1, record(1))


def test_runs_are_listed_newest_first(store: Store) -> None:
    """With agent, status and totals, without reading their journals."""
    for n in range(5):
        epoch = store.claim(f"run-{n}")
        started = {**record(1, "run.started", agent=f"agent-{n}"), "at": float(n)}
        store.append(f"run-{n}", epoch, started)
    store.append("run-4", epoch, {**record(2, "run.finished", status="SUCCESS", totals={"steps": 3}), "at": 9.0})

    newest, *others = store.runs(limit=3)

    assert (newest.execution_id, newest.agent_name, newest.status) == ("run-4", "agent-4", "SUCCESS")
    assert (newest.started_at, newest.finished_at, newest.totals) == (4.0, 9.0, {"steps": 3})
    assert [(row.execution_id, row.status) for row in others] == [("run-3", "RUNNING"), ("run-2", "RUNNING")]


def test_many_threads_write_many_runs(store: Store) -> None:
    """Nothing is lost and nothing is mixed."""

    def write(n: int) -> None:
        epoch = store.claim(f"run-{n}")
        for seq in range(1, 21):
            store.append(f"run-{n}", epoch, record(seq, value=n))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(16)))

    for n in range(16):
        assert [item["value"] for item in store.read(f"run-{n}")] == [n] * 20


def test_a_run_journals_the_same_in_every_store(tmp_path: Path) -> None:
    """Same agent, same journal, apart from ids and times."""

    @tool
    def add(a: int, b: int) -> int:
        return a + b

    def journal(store: Store) -> str:
        report = Orchestrator(store=store).run(lambda task: add(1, 2), "x", execution_id="same", agent_name="adder")
        assert report.status == "SUCCESS"
        volatile = ("at", "duration_s", "hash")
        return json.dumps([{k: v for k, v in item.items() if k not in volatile} for item in store.read("same")])

    memory, sqlite = MemoryStore(), SQLiteStore(tmp_path / "oao.db")
    assert journal(memory) == journal(sqlite)
    sqlite.close()


def test_memory_forgets_the_oldest_finished_runs_and_no_open_one() -> None:
    """A long-lived process does not grow."""
    store = MemoryStore(keep=2)
    open_epoch = store.claim("open")
    store.append("open", open_epoch, record(1, "run.started", agent="a"))
    for n in range(5):
        epoch = store.claim(f"run-{n}")
        store.append(f"run-{n}", epoch, record(1, "run.started", agent="a"))
        store.append(f"run-{n}", epoch, record(2, "run.finished", status="SUCCESS", totals={}))

    assert {row.execution_id for row in store.runs()} == {"open", "run-3", "run-4"}


def test_sqlite_survives_the_death_of_its_process(tmp_path: Path) -> None:
    """What was appended is there after a kill -9."""
    path = tmp_path / "oao.db"
    code = (
        "import os, signal, sys\n"
        "from oao_harness import SQLiteStore\n"
        f"store = SQLiteStore({str(path)!r}); epoch = store.claim('run')\n"
        "for n in range(1, 51): store.append('run', epoch, {'v': 1, 'seq': n, 'type': 'note', 'at': 0.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=False, env={"PYTHONPATH": f"{root}:{root / 'hookspecs'}"}
    )

    assert done.returncode == -9
    store = SQLiteStore(path)
    assert len(list(store.read("run"))) == 50
    store.close()


def test_two_processes_may_open_one_file(tmp_path: Path) -> None:
    """Two stores over one file see each other's records."""
    one, other = SQLiteStore(tmp_path / "oao.db"), SQLiteStore(tmp_path / "oao.db")
    epoch = one.claim("run")
    one.append("run", epoch, record(1))

    assert len(list(other.read("run"))) == 1
    assert other.claim("run") == epoch + 1
    with pytest.raises(FencedError):
        one.append("run", epoch, record(2))
    one.close()
    other.close()


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """And it is not touched."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at as one " * 10)
    before = path.read_bytes()

    with pytest.raises(StoreError, match="is not a usable oao store"):
        SQLiteStore(path)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_oao_is_an_error(tmp_path: Path) -> None:
    """An old oao does not guess at a new schema."""
    path = tmp_path / "oao.db"
    SQLiteStore(path).close()
    database = sqlite3.connect(path)
    database.execute("pragma user_version = 99")
    database.close()

    with pytest.raises(StoreError, match="newer oao"):
        SQLiteStore(path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The message names the path and what to do."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="choose another --store"):
        SQLiteStore(tmp_path / "file" / "oao.db")


def test_a_store_can_be_named_by_url(tmp_path: Path) -> None:
    """`sqlite:PATH` and `memory:`; an unknown scheme is an error."""
    orchestrator = Orchestrator(store=f"sqlite:{tmp_path / 'a' / 'oao.db'}")
    orchestrator.run(lambda task: "x", "x")
    orchestrator.store.close()

    assert (tmp_path / "a" / "oao.db").exists()
    with pytest.raises(ConfigError, match="no plugin opens the store 'mongo:x'"):
        Orchestrator(store="mongo:x")


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_was_deleted_during_a_run_fails_the_run(tmp_path: Path, replaced: bool) -> None:
    """SQLite would go on writing into the deleted file, and the journal would be lost without a word."""
    path = tmp_path / "oao.db"
    ran: list[int] = []

    @tool
    def send() -> None:
        ran.append(1)

    def agent(task: str) -> None:
        send()
        for file in tmp_path.iterdir():
            file.unlink()
        if replaced:
            path.touch()
        send()

    report = Orchestrator(store=SQLiteStore(path)).run(agent, "t")
    assert "journal" in (report.error or "")
    assert ran == [1]
