"""The conformance suite on the bundled ledgers, and what each of them promises beyond."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from oao_harness import ConfigError, SQLiteStore, StoreError
from oao_harness.runtime.shared_budget import open_ledger
from oao_harness.stores.memory_ledger import MemoryLedger
from oao_harness.stores.redis_ledger import RedisLedger
from oao_harness.stores.sqlite_ledger import SQLiteLedger
from oao_hookspecs import Amounts, Ledger
from pytest_oao.testing import LedgerConformance, RedisServer

ROOT = Path(__file__).parents[2]


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


def move_sqlite(path: Path, seconds: float) -> None:
    """Let the file's clock be ahead of the machine's: as if the machine's had gone back."""
    db = sqlite3.connect(path, timeout=10)
    with db:
        db.execute("update budget_clock set now = now + ?", (round(seconds * 1000),))
    db.close()


def move_redis(url: str, account: str, seconds: float) -> None:
    """Let the account's clock be ahead of the server's: as if the server's had gone back."""
    with redis.Redis.from_url(url) as client:
        client.incrby(f"oao:budget:{{{account}}}:clock", round(seconds * 1000))


class TestMemory(LedgerConformance):
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def ledger(self, clock: Clock) -> Ledger:
        return MemoryLedger(clock=clock)

    @pytest.fixture
    def elapse(self, clock: Clock) -> Callable[[float], None]:
        return clock.move

    def test_a_clock_that_goes_back_frees_nothing_early(self, ledger: Ledger, clock: Clock) -> None:
        """Neither what is held now nor what is held while it is behind."""
        ledger.reserve("a", "before", {"n": 1}, {}, 60)
        clock.move(-1000)
        ledger.reserve("a", "behind", {"n": 2}, {}, 60)
        clock.move(1000 + 59)
        assert ledger.totals("a") == {"n": Amounts(held=3)}
        clock.move(1)
        assert ledger.totals("a") == {}

    def test_what_is_over_takes_no_room(self, ledger: MemoryLedger, clock: Clock) -> None:
        """Settled and expired holds are forgotten after their time."""
        for n in range(100):
            ledger.reserve("a", f"settled-{n}", {"n": 1}, {}, 60)
            ledger.settle("a", f"settled-{n}", {"n": 1})
            ledger.reserve("a", f"expired-{n}", {"n": 1}, {}, 60)
        clock.move(601)
        ledger.totals("a")
        state = ledger._accounts["a"]
        assert not any((state.holds, state.due, state.settled, state.forget))
        assert state.spent == {"n": 100}


class TestSQLite(LedgerConformance):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "oao.db"

    @pytest.fixture
    def ledger(self, path: Path) -> Iterator[Ledger]:
        ledger = SQLiteLedger(path)
        yield ledger
        ledger.close()

    @pytest.fixture
    def elapse(self, path: Path) -> Callable[[float], None]:
        return lambda seconds: move_sqlite(path, seconds)

    def test_a_clock_that_goes_back_frees_nothing_early(self, ledger: Ledger, elapse: Callable[[float], None]) -> None:
        """The file remembers the latest time, and what is held is held from there."""
        ledger.reserve("a", "before", {"n": 1}, {}, 60)
        elapse(1000)
        ledger.reserve("a", "behind", {"n": 2}, {}, 60)
        elapse(59)
        assert ledger.totals("a") == {"n": Amounts(held=2)}
        elapse(1)
        assert ledger.totals("a") == {}

    def test_what_is_over_takes_no_room(self, ledger: Ledger, path: Path, elapse: Callable[[float], None]) -> None:
        """Settled and expired holds are forgotten after their time."""
        for n in range(20):
            ledger.reserve("a", f"settled-{n}", {"n": 1}, {}, 60)
            ledger.settle("a", f"settled-{n}", {"n": 1})
            ledger.reserve("a", f"expired-{n}", {"n": 1}, {}, 60)
        elapse(601)
        assert ledger.totals("a") == {"n": Amounts(spent=20)}
        db = sqlite3.connect(path)
        assert db.execute("select count(*) from budget_holds").fetchone() == (0,)
        assert db.execute("select count(*) from budget_settled").fetchone() == (0,)
        db.close()

    def test_it_lives_in_the_file_of_the_journals(self, ledger: Ledger, path: Path) -> None:
        """Whoever comes first; each leaves the other's tables and version alone."""
        ledger.settle("a", "h", {"n": 1})
        store = SQLiteStore(path)
        epoch = store.claim("run")
        store.append("run", epoch, {"v": 1, "seq": 1, "type": "note", "at": 0.0})
        second = SQLiteLedger(path)

        assert second.totals("a") == {"n": Amounts(spent=1)}
        assert len(list(store.read("run"))) == 1
        store.close()
        second.close()
        SQLiteStore(path).close()

    def test_a_file_that_is_no_database_is_an_error(self, tmp_path: Path) -> None:
        """And it is not touched."""
        path = tmp_path / "notes.txt"
        path.write_text("not a database, but long enough to be looked at as one " * 10)
        before = path.read_bytes()
        with pytest.raises(StoreError, match="is not a usable ledger"):
            SQLiteLedger(path)
        assert path.read_bytes() == before

    def test_a_folder_that_cannot_be_made_is_an_error(self, tmp_path: Path) -> None:
        """The message names the path."""
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match=r"file/oao\.db"):
            SQLiteLedger(tmp_path / "file" / "oao.db")

    @pytest.mark.parametrize("replaced", [False, True])
    def test_a_file_that_went_away_is_an_error(self, ledger: Ledger, path: Path, replaced: bool) -> None:
        """SQLite would go on counting in the deleted file, and everybody else from zero."""
        for file in path.parent.iterdir():
            file.unlink()
        if replaced:
            path.touch()
        with pytest.raises(StoreError, match="replaced" if replaced else "gone"):
            ledger.reserve("a", "h", {"n": 1}, {}, 60)

    def test_a_file_that_stays_locked_is_an_error(self, ledger: Ledger, path: Path) -> None:
        """After the time that was given, and nothing is half-written."""
        impatient = SQLiteLedger(path, busy_timeout_s=0.05)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        with pytest.raises(StoreError, match="locked"):
            impatient.reserve("a", "h", {"n": 1}, {}, 60)
        other.execute("rollback")
        other.close()
        assert ledger.totals("a") == {}
        impatient.close()

    def test_a_closed_ledger_is_an_error(self, ledger: Ledger) -> None:
        """Not a crash, and not a new file."""
        ledger.close()
        with pytest.raises(StoreError, match="closed"):
            ledger.totals("a")


class TestRedis(LedgerConformance):
    @pytest.fixture
    def ledger(self, redis_server: RedisServer) -> Iterator[Ledger]:
        ledger = RedisLedger(redis_server.url)
        yield ledger
        ledger.close()

    @pytest.fixture
    def elapse(self, redis_server: RedisServer, account: str) -> Callable[[float], None]:
        return lambda seconds: move_redis(redis_server.url, account, seconds)

    def test_a_clock_that_goes_back_frees_nothing_early(
        self, ledger: Ledger, account: str, elapse: Callable[[float], None]
    ) -> None:
        """The account remembers the latest time, and what is held is held from there."""
        ledger.reserve(account, "before", {"n": 1}, {}, 60)
        elapse(1000)
        ledger.reserve(account, "behind", {"n": 2}, {}, 60)
        elapse(59)
        assert ledger.totals(account) == {"n": Amounts(held=2)}
        elapse(1)
        assert ledger.totals(account) == {}

    def test_what_is_over_takes_no_room(
        self, ledger: Ledger, account: str, redis_server: RedisServer, elapse: Callable[[float], None]
    ) -> None:
        """Settled and expired holds are forgotten after their time."""
        for n in range(20):
            ledger.reserve(account, f"settled-{n}", {"n": 1}, {}, 60)
            ledger.settle(account, f"settled-{n}", {"n": 1})
            ledger.reserve(account, f"expired-{n}", {"n": 1}, {}, 60)
        elapse(601)
        assert ledger.totals(account) == {"n": Amounts(spent=20)}
        with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
            prefix = f"oao:budget:{{{account}}}:"
            assert set(client.scan_iter(f"oao:budget:{{{account}}}:*")) == {f"{prefix}clock", f"{prefix}spent"}

    def test_a_server_that_forgot_its_scripts_is_told_again(
        self, ledger: Ledger, account: str, redis_server: RedisServer
    ) -> None:
        """After a restart or SCRIPT FLUSH."""
        ledger.settle(account, "h", {"n": 1})
        with redis.Redis.from_url(redis_server.url) as client:
            client.script_flush()
        assert ledger.totals(account) == {"n": Amounts(spent=1)}

    def test_a_key_of_another_kind_is_an_error(self, ledger: Ledger, account: str, redis_server: RedisServer) -> None:
        """What the server refuses is a StoreError, too, and nothing was counted."""
        with redis.Redis.from_url(redis_server.url) as client:
            client.set(f"oao:budget:{{{account}}}:holds", "not a hash")
            with pytest.raises(StoreError, match=r"redis://127\.0\.0\.1:\d+/0 failed: .*WRONGTYPE"):
                ledger.reserve(account, "h", {"n": 1}, {}, 60)
            client.delete(f"oao:budget:{{{account}}}:holds")
        assert ledger.totals(account) == {}

    def test_a_closed_ledger_is_an_error(self, ledger: Ledger) -> None:
        """It does not connect again behind one's back."""
        ledger.close()
        with pytest.raises(StoreError, match="closed"):
            ledger.totals("a")


class TestRedisCluster(LedgerConformance):
    """A server in cluster mode refuses a script whose keys are not in one slot."""

    @pytest.fixture
    def ledger(self, cluster: RedisServer) -> Iterator[Ledger]:
        ledger = RedisLedger(cluster.url)
        yield ledger
        ledger.close()

    @pytest.fixture
    def elapse(self, cluster: RedisServer, account: str) -> Callable[[float], None]:
        return lambda seconds: move_redis(cluster.url, account, seconds)


def test_a_server_that_is_not_there_is_an_error() -> None:
    """In a second or two, named, and without the password."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(StoreError, match=f"127.0.0.1:{port}") as caught:
            RedisLedger(f"redis://user:hush@127.0.0.1:{port}/3")
    assert "hush" not in str(caught.value)


def test_a_server_that_hangs_is_an_error() -> None:
    """It takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        started = time.monotonic()
        with pytest.raises(StoreError, match="failed"):
            RedisLedger(f"redis://127.0.0.1:{mute.getsockname()[1]}/0", timeout_s=0.1)
        assert time.monotonic() - started < 5


def test_a_server_that_goes_down_and_comes_back(redis_server: RedisServer) -> None:
    """While it is down: an error. With an append-only file nothing that was answered is lost."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        ledger = RedisLedger(server.url)
        ledger.settle("a", "h", {"n": 3})
        ledger.reserve("a", "i", {"n": 4}, {}, 60)
        server.kill()
        with pytest.raises(StoreError, match=f"127.0.0.1:{server.port}"):
            ledger.reserve("a", "j", {"n": 1}, {}, 60)
        server.start()
        assert ledger.totals("a") == {"n": Amounts(spent=3, held=4)}
        ledger.close()


def test_a_server_that_would_evict_what_was_spent_is_refused(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys without an expiry are evicted by `allkeys-*` only; a missing append-only file is a warning."""
    options = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with RedisServer(*options) as server, pytest.raises(ConfigError, match="noeviction"):
        RedisLedger(server.url)
    with caplog.at_level(logging.WARNING):
        RedisLedger(redis_server.url).close()
    assert "appendonly" in caplog.text


def test_urls(tmp_path: Path, redis_server: RedisServer) -> None:
    """Three schemes; `memory:NAME` is shared in the process; others are an error that names the known ones."""
    assert open_ledger("memory:team") is open_ledger("memory:team")
    assert open_ledger("memory:team") is not open_ledger("memory:other")
    for url, kind in ((f"sqlite:{tmp_path / 'a' / 'oao.db'}", SQLiteLedger), (redis_server.url, RedisLedger)):
        ledger = open_ledger(url)
        assert type(ledger) is kind
        ledger.close()
    with pytest.raises(ConfigError, match="no plugin opens the ledger 'mongo:x'; known: memory:NAME, sqlite:PATH"):
        open_ledger("mongo:x")
    with pytest.raises(ConfigError, match="URL is wrong"):
        open_ledger("redis://host:notaport/0")


def test_a_missing_package_is_named() -> None:
    """With the command that installs it."""
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from oao_harness.runtime.shared_budget import open_ledger\n"
        "open_ledger('redis://localhost')"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'hookspecs'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "ConfigError: a redis: ledger needs the package redis: pip install 'oao-harness[redis]'" in done.stderr


def _settle_in_child(ledger: Ledger, sent: multiprocessing.connection.Connection) -> None:
    try:
        ledger.settle("a", "child", {"n": 1})
        sent.send("settled")
    except StoreError as error:
        sent.send(str(error))
    ledger.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_a_forked_child(kind: str, tmp_path: Path, redis_server: RedisServer) -> None:
    """Redis connects anew. A copy of memory would count for itself, SQLite would lose writes: both refuse."""
    urls = {"memory": "memory:fork", "sqlite": f"sqlite:{tmp_path / 'oao.db'}", "redis": redis_server.url}
    ledger = open_ledger(urls[kind])
    ledger.settle("a", "parent", {"n": 1})
    fork = multiprocessing.get_context("fork")
    received, sent = fork.Pipe(duplex=False)
    child = fork.Process(target=_settle_in_child, args=(ledger, sent))
    child.start()
    assert received.poll(30)
    answer = received.recv()
    child.join(30)

    assert answer == "settled" if kind == "redis" else "fork" in answer
    assert ledger.totals("a") == {"n": Amounts(spent=2 if kind == "redis" else 1)}
    ledger.close()


def test_processes_that_open_a_new_file_at_once(tmp_path: Path) -> None:
    """The change to WAL and the tables are made once, and nobody fails."""
    path, failed = tmp_path / "new" / "oao.db", []

    def open_and_spend(n: int) -> None:
        try:
            ledger = SQLiteLedger(path)
            ledger.settle("a", f"h{n}", {"n": 1})
            ledger.close()
        except StoreError as error:
            failed.append(error)

    threads = [threading.Thread(target=open_and_spend, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    ledger = SQLiteLedger(path)
    assert ledger.totals("a") == {"n": Amounts(spent=16)}
    ledger.close()
