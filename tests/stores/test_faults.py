"""Faults with real processes and real signals: whatever happens, a journal is a beginning of what was written."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from oao_harness import BusyError, FencedError, SQLiteStore, StoreError
from oao_harness.stores.redis import RedisStore
from oao_harness.stores.sqlite_file import SCHEMA_VERSION
from oao_hookspecs import Json, Record, Store
from pytest_oao.testing import RedisServer

ROOT = Path(__file__).parents[2]
OLD = Path(__file__).parent / "files" / "schema_1.db"
OPEN = """
import json, os, signal, sys, time
from oao_harness import StoreError, SQLiteStore
def open_store(place):
    if place.startswith("redis:"):
        from oao_harness.stores.redis import RedisStore
        return RedisStore(place)
    return SQLiteStore(place)
def record(seq, **fields):
    return {"v": 1, "seq": seq, "type": "note", "at": 1.5, **fields}
"""
# Writes batches of 1 to 5 records, and says on stdout what was kept.
WRITER = """
store, run = open_store(sys.argv[1]), sys.argv[2]
epoch, seq = store.claim(run), len(list(store.read(run)))
print("ready", seq, flush=True)
while True:
    batch = [record(seq + n, text="x" * (seq * 37 % 3000)) for n in range(1, 2 + seq % 5)]
    store.append(run, epoch, *batch)
    seq += len(batch)
    os.write(1, b"kept %d\\n" % seq)
"""


def record(seq: int, **fields: Json) -> Record:
    return {"v": 1, "seq": seq, "type": "note", "at": 1.5, **fields}


def start(code: str, *args: str, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'hookspecs'}"}
    return subprocess.Popen(
        [sys.executable, "-c", OPEN + textwrap.dedent(code), *args],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()


def assert_chained(records: list[Record]) -> None:
    hashed = ""
    for seq, item in enumerate(records, start=1):
        assert item["seq"] == seq
        bare = {key: value for key, value in item.items() if key != "hash"}
        digest = hashlib.sha256(json.dumps(bare, separators=(",", ":")).encode()).hexdigest()
        hashed = hashlib.sha256((hashed + digest).encode()).hexdigest()
        assert item["hash"] == hashed


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is, for another process too."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return f"{server.url}?prefix={tmp_path.name}"
    return str(tmp_path / "oao.db")


def open_store(place: str) -> Store:
    return RedisStore(place) if place.startswith("redis:") else SQLiteStore(place)


def test_a_writer_that_is_killed_leaves_a_beginning(place: str) -> None:
    """`kill -9` at random moments, each time another process goes on: whole batches, chained; nothing kept is lost."""
    rng, expected = random.Random(7), 0
    for _ in range(5):
        process = start(WRITER, place, "run")
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["ready", str(expected)]
        time.sleep(rng.uniform(0.001, 0.15))
        process.kill()
        out, _ = finish(process)
        told = [int(line.split()[1]) for line in out.splitlines() if line.endswith(tuple("0123456789"))]
        with closing(open_store(place)) as store:
            records = list(store.read("run"))
        assert_chained(records)
        assert len(records) >= (told[-1] if told else expected)
        expected = len(records)
        # Batches are whole: only some numbers of records can be met.
        count = 0
        while count < expected:
            count += 1 + count % 5
        assert count == expected
    assert expected > 20


def test_an_upgrade_that_is_killed_begins_anew(tmp_path: Path) -> None:
    """At any moment of it the file is of the old version or of the new one."""
    old, path = sqlite3.connect(OLD), tmp_path / "oao.db"
    with closing(old), closing(sqlite3.connect(path)) as new, new:
        old.backup(new)
        for n in range(400):
            new.execute("insert into runs (execution_id, epoch, last_seq) values (?, 1, 20)", (f"many-{n}",))
            rows = ((f"many-{n}", seq, json.dumps(record(seq), separators=(",", ":"))) for seq in range(1, 21))
            new.executemany("insert into records values (?, ?, ?)", rows)
    for delay_s in (0.0, 0.01, 0.02, 0.04):
        process = start("print('ready', flush=True); open_store(sys.argv[1])", str(path))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        process.kill()
        finish(process)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("pragma user_version").fetchone()[0] in {1, SCHEMA_VERSION}
            assert db.execute("select count(*) from runs").fetchone()[0] == 405
    with closing(SQLiteStore(path)) as store:
        for n in range(0, 400, 50):
            records = list(store.read(f"many-{n}"))
            assert len(records) == 20
            assert_chained(records)


def test_a_lock_that_another_process_holds_is_waited_for_and_then_an_error(tmp_path: Path) -> None:
    """Within the time that was given; it says who has to be waited for. The next append succeeds."""
    path = tmp_path / "oao.db"
    with closing(SQLiteStore(path, busy_timeout_s=0.3)) as store:
        epoch = store.claim("run")
        store.append("run", epoch, record(1))
        code = """
            import sqlite3
            db = sqlite3.connect(sys.argv[1], isolation_level=None)
            db.execute("begin immediate"); print("locked", flush=True); sys.stdin.read()
        """
        process = start(code, str(path), stdin=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        before = time.monotonic()
        with pytest.raises(StoreError, match=r"locked.*another process") as caught:
            store.append("run", epoch, record(2))
        assert 0.2 < time.monotonic() - before < 10
        assert str(path) in str(caught.value)
        with pytest.raises(StoreError, match="another process"):
            store.claim("other")
        finish(process)
        store.append("run", epoch, record(2))
        assert_chained(list(store.read("run")))


def test_a_disk_that_is_full_is_an_error(tmp_path: Path) -> None:
    """The file may grow no more: the journal holds what was kept, whole batches, and can be read."""
    path = tmp_path / "oao.db"
    code = """
        import resource
        store = open_store(sys.argv[1]); epoch = store.claim("run")
        size = os.path.getsize(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300_000, size + 300_000))
        seq, errors = 0, []
        while len(errors) < 3 and seq < 1000:
            try:
                store.append("run", epoch, *(record(seq + n, text="x" * 4000) for n in range(1, 4)))
                seq += 3
            except StoreError as error:
                errors.append(str(error))
        kept = [item["seq"] for item in store.read("run")]
        print(json.dumps({"seq": seq, "errors": errors, "kept": kept == list(range(1, seq + 1))}))
    """
    process = start(code, str(path))
    out, err = finish(process)
    assert process.returncode == 0, err
    said = json.loads(out)
    assert said["seq"] > 0
    assert said["kept"]
    assert len(said["errors"]) == 3
    assert all("make room" in error and str(path) in error for error in said["errors"])
    with closing(SQLiteStore(path)) as store:
        records = list(store.read("run"))
        assert_chained(records)
        assert len(records) == said["seq"]
        store.append("run", store.claim("run"), record(len(records) + 1))


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may look into."""
    with tempfile.TemporaryDirectory(prefix="oao-faults-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_file_that_may_not_be_written_is_an_error(public_folder: Path) -> None:
    """To another user: it says so, and what to do; nothing of the file is changed."""
    path = public_folder / "oao.db"
    with closing(SQLiteStore(path)) as store:
        store.append("run", store.claim("run"), record(1))
    path.chmod(0o444)
    before = path.read_bytes()
    public_folder.chmod(0o555)
    code = """
        if os.getuid() == 0:
            os.setgid(65534); os.setuid(65534)
        try:
            store = open_store(sys.argv[1])
            store.append("run", store.claim("run"), record(2))
            print("written")
        except StoreError as error:
            print(error)
    """
    out, err = finish(start(code, str(path)))
    public_folder.chmod(0o755)
    assert "give this user the right to write" in out, out + err
    assert str(path) in out
    assert path.read_bytes() == before


def test_a_server_that_is_killed_in_the_middle_and_comes_back(tmp_path: Path) -> None:
    """While it is down: an error in a moment. With an append-only file nothing that was answered is lost."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        process = start(WRITER, server.url, "run")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready 0\n"
        time.sleep(0.2)
        with closing(RedisStore(server.url)) as store:
            epoch = store.claim("mine", ttl_s=60)
            store.append("mine", epoch, record(1))
            server.kill()
            out, err = finish(process)
            before = time.monotonic()
            with pytest.raises(StoreError, match=f"the store redis://127.0.0.1:{server.port}/0 failed"):
                store.append("mine", epoch, record(2))
            with pytest.raises(StoreError, match="failed"):
                store.runs()
            assert time.monotonic() - before < 10
            server.start()
            told = [int(line.split()[1]) for line in out.splitlines()]
            records = list(store.read("run"))
            assert_chained(records)
            assert told[-1] <= len(records) <= told[-1] + 5
            assert "StoreError: the store redis://" in err
            # The lease has survived as well, and the writer goes on.
            with pytest.raises(BusyError):
                store.claim("mine")
            store.append("mine", epoch, record(2))
            assert [item["seq"] for item in store.read("mine")] == [1, 2]


def test_a_clock_that_jumps_makes_no_two_writers(tmp_path: Path) -> None:
    """Forward: the lease is over, and its holder is fenced. Back: it is longer. One epoch writes at any time."""
    time_machine = pytest.importorskip("time_machine")
    with closing(SQLiteStore(tmp_path / "oao.db")) as one, closing(SQLiteStore(tmp_path / "oao.db")) as other:
        first = one.claim("run", ttl_s=30)
        with time_machine.travel(time.time() + 3600, tick=True):
            second = other.claim("run", ttl_s=30)
        with pytest.raises(FencedError):
            one.append("run", first, record(1))
        other.append("run", second, record(1))
        with pytest.raises(BusyError) as caught:
            one.claim("run", ttl_s=30)
        assert caught.value.left_s > 3000
        assert one.claim("run", over=second) == second + 1
        with pytest.raises(FencedError):
            other.append("run", second, record(2))


def test_a_writer_that_sleeps_through_its_lease_is_refused(place: str) -> None:
    """SIGSTOP, another process claims, SIGCONT: what it does then is refused, and the journal is the other's."""
    code = """
        store = open_store(sys.argv[1]); epoch = store.claim("run", ttl_s=0.2)
        store.append("run", epoch, record(1)); print("ready", flush=True); sys.stdin.readline()
        try:
            store.append("run", epoch, record(2, who="zombie")); print("written")
        except StoreError as error:
            print(type(error).__name__)
    """
    process = start(code, place, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    with closing(open_store(place)) as store:
        give_up = time.monotonic() + 20
        epoch = 0
        while not epoch:
            assert time.monotonic() < give_up
            try:
                epoch = store.claim("run", ttl_s=60)
            except BusyError as error:
                time.sleep(min(error.left_s, 0.1))
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("go\n", timeout=60)
        assert out == "FencedError\n"
        store.append("run", epoch, record(2, who="heir"))
        records = list(store.read("run"))
    assert_chained(records)
    assert [item.get("who") for item in records] == [None, "heir"]
