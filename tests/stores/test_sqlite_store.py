"""What the store in a file promises beyond the conformance suite."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from oao_harness import FencedError, Orchestrator, SQLiteStore, StoreError, tool
from oao_harness.errors import DamagedError
from oao_hookspecs import Json, Record, RunQuery

OLD = Path(__file__).parent / "files" / "schema_1.db"
OLD_2 = OLD.with_name("schema_2.db")


def record(seq: int, type: str = "note", **fields: Json) -> Record:
    return {"v": 1, "seq": seq, "type": type, "at": 1.5, **fields}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "oao.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    store.close()


def spoil(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(sql, values).rowcount == 1


# Opening


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """And it is not touched."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at as one " * 10)
    before = path.read_bytes()

    with pytest.raises(StoreError, match="is not a usable oao store"):
        SQLiteStore(path)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_oao_is_an_error(path: Path) -> None:
    """An old oao does not guess at a new schema."""
    SQLiteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma user_version = 99")
    with pytest.raises(StoreError, match="newer oao"):
        SQLiteStore(path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The message names the path and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another --store"):
        SQLiteStore(tmp_path / "file" / "oao.db")


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_was_deleted_during_a_run_fails_the_run(tmp_path: Path, path: Path, replaced: bool) -> None:
    """SQLite would go on writing into the deleted file, and the journal would be lost without a word."""
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

    store = SQLiteStore(path)
    report = Orchestrator(store=store).run(agent, "t")
    store.close()
    assert "journal" in (report.error or "")
    assert ran == [1]


def test_a_closed_store_is_an_error(store: SQLiteStore) -> None:
    """Not a crash, and not a new file."""
    epoch = store.claim("run")
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.append("run", epoch, record(1)),
        lambda: store.claim("run"),
        lambda: list(store.read("run")),
        lambda: store.runs(),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="closed"):
            call()


def test_a_store_is_not_carried_through_a_fork(store: SQLiteStore) -> None:
    """What a child would write is lost; it is told, and the parent goes on."""
    epoch = store.claim("run")
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()

    def child() -> None:
        try:
            store.append("run", epoch, record(1))
            theirs.send("written")
        except StoreError as error:
            theirs.send(str(error))

    process = fork.Process(target=child)
    process.start()
    assert ours.poll(30)
    assert "forked" in ours.recv()
    process.join(30)
    store.append("run", epoch, record(1))


# The upgrade of files that version 1 wrote


def old_bodies() -> dict[str, list[str]]:
    with closing(sqlite3.connect(OLD)) as db:
        rows = db.execute("select execution_id, body from records order by execution_id, seq").fetchall()
    found: dict[str, list[str]] = {}
    for id_, body in rows:
        found.setdefault(id_, []).append(body)
    return found


def assert_upgraded(store: SQLiteStore) -> None:
    for id_, bodies in old_bodies().items():
        hashed, expected = "", []
        for body in bodies:
            hashed = hashlib.sha256((hashed + hashlib.sha256(body.encode()).hexdigest()).encode()).hexdigest()
            expected.append({**json.loads(body), "hash": hashed})
        assert list(store.read(id_)) == expected


def test_a_file_of_version_1_is_upgraded(path: Path) -> None:
    """Made by the code of that time: the same records, now chained; rows know what they lacked; runs go on."""
    shutil.copy(OLD, path)
    bodies = old_bodies()
    assert {id_: len(records) for id_, records in bodies.items()}["outer-1"] > 8
    store = SQLiteStore(path)
    assert_upgraded(store)
    rows = {row.execution_id: row for row in store.runs()}
    assert list(rows) == ["broken-1", "inner-1", "outer-1", "open-1"]
    assert [row.status for row in rows.values()] == ["FAILED", "SUCCESS", "SUCCESS", "RUNNING"]
    assert (rows["inner-1"].parent, rows["outer-1"].parent) == ("outer-1", None)
    assert {row.tenant for row in rows.values()} == {""}
    assert rows["outer-1"].totals == json.loads(bodies["outer-1"][-1])["totals"]

    with pytest.raises(FencedError):
        store.append("open-1", 2, record(2))
    store.append("open-1", 1, record(2))
    assert [store.claim(id_) for id_ in ("open-1", "claimed-only", "new")] == [2, 2, 1]
    store.append("new", 1, record(1, "run.started", agent="a"), {**record(2), "at": 9.0})
    assert [row.execution_id for row in store.runs()][-2:] == ["open-1", "new"]
    store.close()
    again = SQLiteStore(path)
    assert len(list(again.read("open-1"))) == 2
    again.close()


def test_a_damaged_record_does_not_keep_a_file_from_its_upgrade(path: Path) -> None:
    """It is still damaged afterwards, and named; the others are there."""
    shutil.copy(OLD, path)
    spoil(path, "update records set body = '{\"v\":1,\"se' where execution_id = 'outer-1' and seq = 3")
    store = SQLiteStore(path)
    with pytest.raises(DamagedError, match="'outer-1': record 3 is damaged"):
        list(store.read("outer-1"))
    assert len(list(store.read("inner-1"))) == len(old_bodies()["inner-1"])
    store.close()


def test_a_process_of_version_1_cannot_write_unchained_records(path: Path) -> None:
    """It has the file open while it is upgraded: its statement fails, and its run with it."""
    shutil.copy(OLD, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("pragma journal_mode=wal")
        SQLiteStore(path).close()
        with pytest.raises(sqlite3.OperationalError, match="last_seq"):
            old.execute("update runs set last_seq = 2 where execution_id = 'open-1' and epoch = 1 and last_seq = 1")


def open_and_close(path: Path) -> int:
    store = SQLiteStore(path)
    count = len(store.runs())
    store.close()
    return count


def test_many_processes_upgrade_a_file_at_once(path: Path) -> None:
    """One does it, the others find it done."""
    shutil.copy(OLD, path)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map_async(open_and_close, [path] * 6, chunksize=1).get(60) == [4] * 6
    store = SQLiteStore(path)
    assert_upgraded(store)
    store.close()


# The upgrade of files that version 2 wrote


def lines_in(path: Path) -> list[tuple[str, int, str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("select execution_id, seq, body from records order by execution_id, seq").fetchall()


def test_a_file_of_version_2_is_upgraded(path: Path) -> None:
    """Made by the code of that time: rows now say whose a run is; records, order, epochs and leases are as before."""
    shutil.copy(OLD_2, path)
    before = lines_in(path)
    assert len(before) > 20
    store = SQLiteStore(path)
    assert lines_in(path) == before
    rows = store.runs()
    assert [row.execution_id for row in rows][-2:] == ["odd-1", "job-shop"]
    assert {row.execution_id: row.tenant for row in rows} == {
        "outer-acme": "acme",
        "inner-acme": "acme",
        "nobody-1": "",
        "no-tenant": "",
        "odd-1": "zwölf \ud83d",
        "job-shop": "shop",
    }
    assert [row.execution_id for row in store.runs(query=RunQuery(tenant="acme", outer=True))] == ["outer-acme"]
    assert {row.execution_id: row.parent for row in rows}["inner-acme"] == "outer-acme"
    assert [store.claim(id_) for id_ in ("job-shop", "claimed-only", "new")] == [2, 2, 3]
    store.append("job-shop", 2, record(2, "run.resumed"))
    store.append("new", 3, record(1, "run.started", agent="a"))
    assert [row.execution_id for row in store.runs(query=RunQuery(status="RUNNING"))] == ["new", "odd-1", "job-shop"]
    assert store.runs(query=RunQuery(tenant="shop"))[0].status == "RUNNING"
    store.close()


@pytest.mark.parametrize("spoiled", ['{"v":1,"se', "[1]", "[" * 100_000, b"\xff\xfe\x00"])
def test_a_damaged_first_record_does_not_keep_a_file_of_version_2_from_its_upgrade(path: Path, spoiled: object) -> None:
    """Its run is nobody's: no tenant sees it."""
    shutil.copy(OLD_2, path)
    spoil(path, "update records set body = ? where execution_id = 'outer-acme' and seq = 1", spoiled)
    store = SQLiteStore(path)
    tenants = {row.execution_id: row.tenant for row in store.runs()}
    assert (tenants["outer-acme"], tenants["inner-acme"]) == ("", "acme")
    store.close()


def test_a_process_of_version_2_cannot_begin_runs_that_are_nobodys(path: Path) -> None:
    """It has the file open while it is upgraded: what it has begun goes on, what it begins fails."""
    shutil.copy(OLD_2, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("pragma journal_mode=wal")
        SQLiteStore(path).close()
        moved = "update runs set status = 'RUNNING' where execution_id = 'job-shop' and started_at is not null"
        assert old.execute(moved).rowcount == 1
        with pytest.raises(sqlite3.IntegrityError, match="written_by_an_older_oao"):
            old.execute("update runs set agent_name = 'a', started_at = 1.0 where execution_id = 'claimed-only'")


def test_many_processes_upgrade_a_file_of_version_2_at_once(path: Path) -> None:
    """One does it, the others find it done."""
    shutil.copy(OLD_2, path)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map_async(open_and_close, [path] * 6, chunksize=1).get(60) == [6] * 6


# Group commit


def test_callers_at_once_share_a_transaction(store: SQLiteStore, path: Path) -> None:
    """Who waits while somebody else writes is served together; each is kept when its call returns."""
    epochs = {n: store.claim(f"run-{n}") for n in range(8)}
    statements: list[str] = []
    store._db.set_trace_callback(statements.append)
    reader = SQLiteStore(path)

    def write(n: int) -> None:
        store.append(f"run-{n}", epochs[n], record(1, value=n))
        assert [item["value"] for item in reader.read(f"run-{n}")] == [n]

    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(8) as pool:
        other.execute("begin immediate")
        futures = [pool.submit(write, n) for n in range(8)]
        give_up = time.monotonic() + 20
        while len(store._commits._waiting) < 7:
            assert time.monotonic() < give_up
            time.sleep(0.001)
        other.execute("rollback")
        for future in futures:
            future.result(20)
    store._db.set_trace_callback(None)
    reader.close()
    # The leader had begun alone; those who came meanwhile are one group.
    assert sum(text.lower() == "commit" for text in statements) == 1


def test_a_failure_of_one_costs_the_others_of_its_group_nothing(store: SQLiteStore, path: Path) -> None:
    """Refused, or too large for the disk: each is told its own; the rest is kept."""
    runs = [f"run-{n}" for n in range(9)]
    for run in runs:
        assert store.claim(run) == 1
    pages = store._db.execute("pragma page_count").fetchone()[0]
    store._db.execute(f"pragma max_page_count = {pages + 20}")
    answers: dict[str, str] = {}

    def write(run: str, epoch: int, seq: int, size: int) -> None:
        try:
            store.append(run, epoch, record(seq, text="x" * size))
            answers[run] = "kept"
        except StoreError as error:
            answers[run] = str(error)

    work = [(run, 1, 1, 10) for run in runs[:6]]
    work += [("run-6", 2, 1, 10), ("run-7", 1, 5, 10), ("run-8", 1, 1, 1_000_000)]
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(9) as pool:
        other.execute("begin immediate")
        futures = [pool.submit(write, *work[0])]
        while not store._commits._led:
            time.sleep(0.001)
        futures += [pool.submit(write, *item) for item in work[1:]]
        give_up = time.monotonic() + 20
        # One leads, and the one that left a gap never got that far.
        while len(store._commits._waiting) < 7:
            assert time.monotonic() < give_up
            time.sleep(0.001)
        other.execute("rollback")
        for future in futures:
            future.result(20)
    assert [answers[run] for run in runs[:6]] == ["kept"] * 6
    assert "superseded" in answers["run-6"]
    assert "after 0 records" in answers["run-7"]
    assert "full" in answers["run-8"]
    assert "make room" in answers["run-8"]
    assert str(path) in answers["run-8"]
    assert [len(list(store.read(run))) for run in runs] == [1] * 6 + [0] * 3


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


def test_an_interrupt_at_any_moment_loses_nothing_of_the_others(store: SQLiteStore) -> None:
    """The one who leads is interrupted, 150 times; nobody waits for ever, nothing is written twice."""
    stop = threading.Event()

    def write(run: str) -> int:
        epoch, seq = store.claim(run), 0
        while not stop.is_set():
            seq += 1
            store.append(run, epoch, record(seq))
        return seq

    def interrupt(_signal: int, _frame: object) -> None:
        raise Interrupted

    rng, interrupts, seq = random.Random(5), 0, 0
    epoch = store.claim("main")
    before = signal.signal(signal.SIGALRM, interrupt)
    give_up = time.monotonic() + 30
    try:
        with ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(write, f"run-{n}") for n in range(3)]
            try:
                while interrupts < 150:
                    assert time.monotonic() < give_up
                    try:
                        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00005, 0.003))
                        while True:
                            store.append("main", epoch, record(seq + 1))
                            seq += 1
                    except Interrupted:
                        interrupts += 1
                    # Kept or not, its caller was never told.
                    assert store._count("main") - seq in {0, 1}
                    seq = store._count("main")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                stop.set()
            counts = [future.result(20) for future in futures]
    finally:
        signal.signal(signal.SIGALRM, before)
    assert min(counts) > 10
    for n, count in enumerate(counts):
        assert [item["seq"] for item in store.read(f"run-{n}")] == list(range(1, count + 1))
    assert len(list(store.read("main"))) == seq


# Reading


def test_reading_waits_for_no_writer(store: SQLiteStore, path: Path) -> None:
    """What was committed before is there at once while another process is in the middle of writing."""
    store.append("run", store.claim("run"), record(1, "run.started", agent="a"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        other.execute("insert into records values ('run', 2, '{}')")
        started = time.monotonic()
        assert len(list(store.read("run"))) == 1
        assert len(store.runs()) == 1
        assert time.monotonic() - started < 5
        other.execute("rollback")


def test_what_is_read_is_what_was_there_when_the_reading_began(store: SQLiteStore) -> None:
    """Later records are left out; where the run is deleted meanwhile, the reader is told."""
    epoch = store.claim("run")
    store.append("run", epoch, *(record(n) for n in range(1, 2501)))
    reading = store.read("run")
    first = next(reading)
    store.append("run", epoch, record(2501))
    assert len([first, *reading]) == 2500

    reading = store.read("run")
    next(reading)
    store.delete("run")
    with pytest.raises(StoreError, match="deleted while it was read"):
        list(reading)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("update records set body = substr(body, 1, 20) where execution_id = 'bad' and seq = 2", "not JSON"),
        ("update records set body = x'00ff00' where execution_id = 'bad' and seq = 2", "not JSON"),
        ("update records set body = '7' where execution_id = 'bad' and seq = 2", "no record"),
        ("delete from records where execution_id = 'bad' and seq = 2", "missing"),
    ],
)
def test_a_damaged_record_is_named(store: SQLiteStore, path: Path, sql: str, why: str) -> None:
    """With the run, its number and what to do; what stands before it is read, and so are the other runs."""
    for run in ("bad", "good"):
        store.append(run, store.claim(run), *(record(n) for n in range(1, 4)))
    spoil(path, sql)
    reading = store.read("bad")
    assert next(reading)["seq"] == 1
    with pytest.raises(DamagedError, match=f"run 'bad': record 2 is damaged: .*{why}.*restore"):
        next(reading)
    assert len(list(store.read("good"))) == 3


def test_a_damaged_file_is_named(path: Path) -> None:
    """Bytes of the disk that are not what SQLite wrote."""
    store = SQLiteStore(path)
    for run in range(40):
        store.append(f"run-{run}", store.claim(f"run-{run}"), *(record(n, text="x" * 500) for n in range(1, 20)))
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 3 // 4096 * 4096)
        file.write(b"\xa5" * (size // 3))
    damage = 0
    store = SQLiteStore(path)
    for run in range(40):
        try:
            list(store.read(f"run-{run}"))
        except DamagedError as error:
            damage += 1
            assert str(path) in str(error) or "damaged" in str(error)
    store.close()
    assert damage > 0


def test_erased_text_is_gone_from_the_file(store: SQLiteStore, path: Path) -> None:
    """Not only unlinked: neither the file nor its log holds what was redacted or deleted, once it is closed."""
    for run, secret in (("redacted", "hunter-two"), ("deleted", "swordfish")):
        epoch = store.claim(run)
        store.append(run, epoch, *(record(n, text=secret * 30) for n in range(1, 30)))
    epoch = store.claim("redacted")
    store.rewrite("redacted", epoch, {n: record(n, redacted="x") for n in range(1, 30)})
    store.delete("deleted")
    other = SQLiteStore(path)
    list(other.read("redacted"))
    store.close()
    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"redacted" in held
    assert b"hunter-two" not in held
    assert b"swordfish" not in held
    other.close()


def test_a_hundred_thousand_runs_are_listed_at_once(store: SQLiteStore, path: Path) -> None:
    """By index: the newest, a page of them, those with a prefix, a status, a source; each in milliseconds."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany(
            "insert into runs (execution_id, epoch, agent_name, status, started_at, ordinal, forked_from, tenant) "
            "values (?, 1, 'agent', ?, ?, ?, ?, ?)",
            (
                (
                    f"{n * 7919 % 100_003:06x}-run",
                    "SUSPENDED" if n % 1000 == 0 else "SUCCESS",
                    float(n),
                    n,
                    f"source-{n}" if n % 10 == 0 else None,
                    f"tenant-{n % 1000}",
                )
                for n in range(100_000)
            ),
        )

    def best(**asked: object) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            assert len(store.runs(**asked)) > 0  # type: ignore[arg-type]
            times.append(time.perf_counter() - started)
        return min(times)

    assert [row.started_at for row in store.runs(3)] == [99_999.0, 99_998.0, 99_997.0]
    timings = {
        "newest": best(limit=100),
        "page": best(limit=100, offset=5000),
        "prefix": best(limit=10, query=RunQuery(starts_with="00abc")),
        "status": best(limit=100, query=RunQuery(status="SUSPENDED")),
        "source": best(limit=10, query=RunQuery(forked_from="source-500")),
        "tenant": best(limit=100, query=RunQuery(tenant="tenant-500")),
        "no such tenant": 0.0 if store.runs(100, query=RunQuery(tenant="tenant")) else best(limit=1),
        "before": best(limit=100, query=RunQuery(started_before=50_000.0)),
    }
    # A page walks over those before it.
    assert timings.pop("page") < 0.3
    assert max(timings.values()) < 0.03, timings
