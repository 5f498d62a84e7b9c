"""What the stores have in common beyond the conformance suite, and what the one in memory does alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from oao_harness import ConfigError, MemoryStore, Orchestrator, SQLiteStore, tool
from oao_harness.stores.redis import RedisStore
from oao_hookspecs import Json, Record, Store
from pytest_oao.testing import RedisServer

ROOT = Path(__file__).parents[2]


def record(seq: int, type: str = "note", **fields: Json) -> Record:
    return {"v": 1, "seq": seq, "type": type, "at": 1.5, **fields}


def test_a_run_journals_the_same_in_every_store(tmp_path: Path, redis_server: RedisServer) -> None:
    """Same agent, same journal, apart from ids and times."""

    @tool
    def add(a: int, b: int) -> int:
        return a + b

    def journal(store: Store) -> str:
        report = Orchestrator(store=store).run(lambda task: add(1, 2), "x", execution_id="same", agent_name="adder")
        assert report.status == "SUCCESS"
        volatile = ("at", "duration_s", "hash")
        found = json.dumps([{k: v for k, v in item.items() if k not in volatile} for item in store.read("same")])
        store.close()
        return found

    memory = journal(MemoryStore())
    assert memory == journal(SQLiteStore(tmp_path / "oao.db")) == journal(RedisStore(redis_server.url))
    assert '"run.finished"' in memory


def test_the_same_records_are_the_same_bytes_in_every_store(tmp_path: Path, redis_server: RedisServer) -> None:
    """Copied from one store to the next, hashes and all."""
    stores: list[Store] = [MemoryStore(), SQLiteStore(tmp_path / "oao.db"), RedisStore(redis_server.url)]
    written = [record(n, text="zwölf ✓ \ud83d", data=[10**30, 0.1, {"b": 1, "a": None}]) for n in range(1, 9)]
    texts = []
    for store in stores:
        epoch = store.claim("bytes")
        store.append("bytes", epoch, *written[:3])
        for item in written[3:]:
            store.append("bytes", epoch, item)
        texts.append([json.dumps(item) for item in store.read("bytes")])
        store.close()
    assert texts[0] == texts[1] == texts[2]


def test_memory_forgets_the_oldest_finished_runs_and_no_open_one() -> None:
    """A long-lived process does not grow; a run that was resumed is open again."""
    store = MemoryStore(keep=2)
    for id_ in ("open", "resumed"):
        epoch = store.claim(id_)
        store.append(id_, epoch, record(1, "run.started", agent="a"))
    store.append("resumed", epoch, record(2, "run.finished", status="FAILED", totals={}), record(3, "run.resumed"))
    for n in range(5):
        epoch = store.claim(f"run-{n}")
        store.append(f"run-{n}", epoch, record(1, "run.started", agent="a"))
        store.append(f"run-{n}", epoch, record(2, "run.finished", status="SUCCESS", totals={}))

    assert {row.execution_id for row in store.runs()} == {"open", "resumed", "run-3", "run-4"}


def test_a_store_can_be_named_by_url(tmp_path: Path, redis_server: RedisServer) -> None:
    """`sqlite:PATH`, `redis:` and `memory:`; an unknown scheme is an error."""
    orchestrator = Orchestrator(store=f"sqlite:{tmp_path / 'a' / 'oao.db'}")
    orchestrator.run(lambda task: "x", "x")
    orchestrator.store.close()
    assert (tmp_path / "a" / "oao.db").exists()

    orchestrator = Orchestrator(store=f"{redis_server.url}?prefix=by-url")
    report = orchestrator.run(lambda task: "x", "x")
    assert [row.execution_id for row in orchestrator.store.runs()] == [report.execution_id]
    orchestrator.store.close()
    assert isinstance(Orchestrator(store="memory:").store, MemoryStore)
    with pytest.raises(ConfigError, match="no plugin opens the store 'mongo:x'"):
        Orchestrator(store="mongo:x")


def test_the_durability_is_part_of_the_url(tmp_path: Path) -> None:
    """`?durability=power` waits for the disk; a word that is none is an error."""
    for url, expected in (("", 1), ("?durability=process", 1), ("?durability=power", 2)):
        store = Orchestrator(store=f"sqlite:{tmp_path / 'oao.db'}{url}").store
        assert isinstance(store, SQLiteStore)
        assert store._db.execute("pragma synchronous").fetchone() == (expected,)
        store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["oao.db"]
    with pytest.raises(ConfigError, match="'much'"):
        Orchestrator(store=f"sqlite:{tmp_path / 'oao.db'}?durability=much")


def test_a_missing_package_is_named() -> None:
    """With the command that installs it."""
    code = (
        "import sys; sys.modules['redis'] = None\nfrom oao_harness import Orchestrator\nOrchestrator(store='redis://x')"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'hookspecs'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "ConfigError: a redis: store needs the package redis: pip install 'oao-harness[redis]'" in done.stderr
