"""What the store on a server promises beyond the conformance suite."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from oao_harness import ConfigError, FencedError, StoreError
from oao_harness.errors import BusyError, DamagedError
from oao_harness.journal.chain import verify
from oao_harness.stores.redis import RedisStore
from oao_hookspecs import Json, Record, RunQuery
from pytest_oao.testing import RedisServer


def record(seq: int, type: str = "note", **fields: Json) -> Record:
    return {"v": 1, "seq": seq, "type": type, "at": 1.5, **fields}


def started(seq: int = 1) -> Record:
    return record(seq, "run.started", agent="a")


def finished(seq: int) -> Record:
    return record(seq, "run.finished", status="SUCCESS", totals={})


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    store = RedisStore(redis_server.url)
    yield store
    store.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def test_finished_runs_are_kept_for_as_long_as_the_url_says(redis_server: RedisServer, client: redis.Redis) -> None:
    """Then nothing of them is left, in the index neither; open runs stay, and so does one that was resumed."""
    client.flushall()
    with closing(RedisStore(f"{redis_server.url}?keep=0.4s")) as store:
        epochs = {run: store.claim(run) for run in ("done", "open", "again")}
        for run, epoch in epochs.items():
            store.append(run, epoch, started())
        store.append("done", epochs["done"], finished(2))
        store.append("again", epochs["again"], finished(2))
        store.append("again", epochs["again"], record(3, "run.resumed"))
        assert {row.execution_id for row in store.runs()} == {"done", "open", "again"}
        assert client.pttl("{oao}:run:done") > 0
        assert client.pttl("{oao}:log:done") > 0
        time.sleep(0.6)
        assert {row.execution_id for row in store.runs()} == {"open", "again"}
        assert list(store.read("done")) == []
        assert len(list(store.read("again"))) == 3
        assert {key for key in client.scan_iter() if b"done" in key} == set()
        assert client.zcard("{oao}:due") == 0
        assert client.zcard("{oao}:runs") == 2
        # Who wrote to the one that is forgotten is not the next one that has its id.
        assert store.claim("done") > epochs["done"]
        with pytest.raises(FencedError):
            store.append("done", epochs["done"], record(1))


def test_all_keys_have_the_prefix_and_one_slot(redis_server: RedisServer, client: redis.Redis) -> None:
    """Two stores on one server know nothing of each other."""
    client.flushall()
    with closing(RedisStore(f"{redis_server.url}?prefix=one")) as one, closing(RedisStore(redis_server.url)) as other:
        one.append("run", one.claim("run"), started(), finished(2))
        assert list(other.read("run")) == []
        assert list(other.runs()) == []
        keys = {key.decode() for key in client.scan_iter()}
        assert keys == {"{one}:run:run", "{one}:log:run", "{one}:runs", "{one}:counts"}
        one.delete("run")
        assert {key.decode() for key in client.scan_iter()} == {"{one}:counts"}


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("keep=30", "keep=30 is wrong"),
        ("keep=0s", "keep=0s is wrong"),
        ("keep=-1d", "keep"),
        ("prefix=", "prefix"),
        ("prefix=a}b", "prefix"),
        ("zero_loss=yes", "zero_loss"),
    ],
)
def test_a_wrong_option_is_an_error(redis_server: RedisServer, query: str, match: str) -> None:
    """It says what to give."""
    with pytest.raises(ConfigError, match=match):
        RedisStore(f"{redis_server.url}?{query}")


def test_zero_loss_refuses_a_server_that_loses(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Without an append-only file, with eviction, or where it may not ask; else a warning is logged."""
    with pytest.raises(ConfigError, match=r"append-only file.*appendonly yes"):
        RedisStore(f"{redis_server.url}?zero_loss=1")
    with caplog.at_level(logging.WARNING):
        RedisStore(redis_server.url).close()
    assert "appendonly" in caplog.text
    with RedisServer("--appendonly", "yes", "--maxmemory-policy", "volatile-lru") as server:
        with pytest.raises(ConfigError, match="noeviction"):
            RedisStore(f"{server.url}?zero_loss=1")
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.execute_command("ACL SETUSER small on >hush ~* +@all -info")
        RedisStore(f"{server.url}?zero_loss=1").close()
        limited = server.url.replace("redis://", "redis://small:hush@")
        RedisStore(limited).close()
        with pytest.raises(ConfigError, match="INFO") as caught:
            RedisStore(f"{limited}?zero_loss=1")
        assert "hush" not in str(caught.value)


def test_a_server_that_would_evict_journals_is_refused() -> None:
    """Whatever else the URL says."""
    options = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with RedisServer(*options) as server, pytest.raises(ConfigError, match="noeviction"):
        RedisStore(server.url)


def test_memory_that_is_full_is_an_error(redis_server: RedisServer) -> None:
    """Nothing is half-written, and what was kept before is whole."""
    options = ("--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
    with RedisServer(*options) as server, closing(RedisStore(server.url)) as store:
        epoch, seq = store.claim("run"), 0
        with pytest.raises(StoreError, match="maxmemory"):  # noqa: PT012 - until it is full
            while seq < 1000:
                store.append("run", epoch, *(record(seq + n, text="x" * 10_000) for n in (1, 2, 3)))
                seq += 3
        assert seq > 0
        assert [item["seq"] for item in store.read("run")] == list(range(1, seq + 1))


def test_a_server_that_forgot_its_scripts_is_told_again(store: RedisStore, client: redis.Redis) -> None:
    """After a restart or SCRIPT FLUSH."""
    epoch = store.claim("run")
    client.script_flush()
    store.append("run", epoch, started())
    assert len(store.runs()) == 1


def test_a_long_journal_is_read_in_pages(store: RedisStore, client: redis.Redis) -> None:
    """No answer holds a whole journal."""
    epoch = store.claim("run")
    store.append("run", epoch, *(record(n) for n in range(1, 2501)))
    client.config_resetstat()
    assert [item["seq"] for item in store.read("run")] == list(range(1, 2501))
    assert client.info("commandstats")["cmdstat_lrange"]["calls"] == 3

    reading = store.read("run")
    next(reading)
    store.delete("run")
    with pytest.raises(StoreError, match="deleted while it was read"):
        list(reading)


def test_a_damaged_record_is_named(store: RedisStore, client: redis.Redis) -> None:
    """No JSON, another record, or none; other runs are read."""
    for run in ("text", "other", "short", "good"):
        store.append(run, store.claim(run), *(record(n) for n in range(1, 4)))
    client.lset("{oao}:log:text", 1, '{"v":1')
    client.lset("{oao}:log:other", 1, '{"v":1,"seq":9}')
    client.ltrim("{oao}:log:short", 0, 0)
    for run in ("text", "other", "short"):
        reading = store.read(run)
        assert next(reading)["seq"] == 1
        with pytest.raises(DamagedError, match=f"run '{run}': record 2 is damaged"):
            next(reading)
    assert len(list(store.read("good"))) == 3


def test_filters_look_at_many_runs_in_parts(store: RedisStore, client: redis.Redis) -> None:
    """More than one script looks at; each run once."""
    with client.pipeline(transaction=False) as pipe:
        for n in range(1, 12_001):
            fields = {"epoch": 1, "count": 0, "hash": "", "agent": f"a{n % 4000}", "status": "SUCCESS", "started": n}
            pipe.hset(f"{{oao}}:run:r{n:05}", mapping={**fields, "ordinal": f"{n:020}", "until": 0})
            pipe.zadd("{oao}:runs", {f"{n:020}:r{n:05}": n})
        pipe.execute()
    assert [row.execution_id for row in store.runs(None, query=RunQuery(agent_name="a7"))] == [
        "r08007", "r04007", "r00007",
    ]  # fmt: skip
    assert [row.execution_id for row in store.runs(1, offset=1, query=RunQuery(agent_name="a7"))] == ["r04007"]
    assert len(store.runs(None)) == 12_000
    assert [row.execution_id for row in store.runs(2, offset=6000)] == ["r06000", "r05999"]
    assert [row.execution_id for row in store.runs(2, query=RunQuery(starts_with="r0001"))] == ["r00019", "r00018"]
    assert [row.execution_id for row in store.runs(1, query=RunQuery(started_before=5.0))] == ["r00004"]


class Forgetful:
    """Stands between a client and its server, and drops the answer to some requests, connection and all."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.drops = 0
        """How many of the next answers to EVALSHA are lost."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(ours,), daemon=True).start()

    def _serve(self, ours: socket.socket) -> None:
        with ours, socket.create_connection(("127.0.0.1", self._server)) as theirs:
            try:
                while asked := ours.recv(1 << 20):
                    theirs.sendall(asked)
                    answer = theirs.recv(1 << 20)
                    if b"EVALSHA" in asked and self.drops > 0:
                        self.drops -= 1
                        return
                    ours.sendall(answer)
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("drops", [1, 2, 3])
def test_a_lost_answer_writes_nothing_twice(redis_server: RedisServer, store: RedisStore, drops: int) -> None:
    """The script ran, its answer got lost: the next try finds its own record, claim and batch."""
    with (
        closing(Forgetful(redis_server.port)) as proxy,
        closing(RedisStore(f"redis://127.0.0.1:{proxy.port}/0")) as far,
    ):
        proxy.drops = drops
        epoch = far.claim("run", ttl_s=60)
        assert epoch == 1
        proxy.drops = drops
        far.append("run", epoch, started())
        proxy.drops = drops
        far.append("run", epoch, record(2), record(3), record(4))
        proxy.drops = drops
        far.rewrite("run", epoch, {2: record(2, redacted="x")}, record(5))
        far.append("run", epoch, record(6))
        assert proxy.drops == 0
    assert [item["seq"] for item in store.read("run")] == [1, 2, 3, 4, 5, 6]


def test_an_append_of_which_nobody_knows_may_be_repeated(redis_server: RedisServer, store: RedisStore) -> None:
    """Every answer got lost: an error. The same records again are found; others in their place are refused."""
    with (
        closing(Forgetful(redis_server.port)) as proxy,
        closing(RedisStore(f"redis://127.0.0.1:{proxy.port}/0")) as far,
    ):
        epoch = far.claim("run")
        far.append("run", epoch, record(1))
        for again in (True, False):
            proxy.drops = 10
            seq = len(list(store.read("run"))) + 1
            with pytest.raises(StoreError, match="failed"):
                far.append("run", epoch, record(seq))
            proxy.drops = 0
            assert len(list(store.read("run"))) == seq
            if again:
                far.append("run", epoch, record(seq))
            else:
                with pytest.raises(StoreError, match=f"after {seq} records"):
                    far.append("run", epoch, record(seq, text="other"))
        far.append("run", epoch, record(4))
    assert [item["seq"] for item in store.read("run")] == [1, 2, 3, 4]


@pytest.mark.parametrize("drops", [1, 2, 3])
def test_lost_answers_of_many_runs_write_nothing_twice(
    redis_server: RedisServer, store: RedisStore, drops: int
) -> None:
    """All scripts ran, their answers got lost: each finds its own claim and its own record."""
    runs = [f"run-{n}" for n in range(5)]
    for run in runs:
        store.append(run, store.claim(run), started())
    with (
        closing(Forgetful(redis_server.port)) as proxy,
        closing(RedisStore(f"redis://127.0.0.1:{proxy.port}/0")) as far,
    ):
        proxy.drops = drops
        claimed = far.claim_many(runs, owner="me", ttl_s=60)
        assert [(epoch, [one["seq"] for one in records]) for epoch, records in claimed] == [(2, [1])] * 5  # type: ignore[misc]
        proxy.drops = drops
        assert far.append_many([(run, 2, [record(2), record(3)]) for run in runs]) == [None] * 5
        proxy.drops = drops
        assert far.append_many([(run, 2, [finished(4)]) for run in runs]) == [None] * 5
        assert proxy.drops == 0
    for run in runs:
        assert [item["seq"] for item in store.read(run)] == [1, 2, 3, 4]
        assert verify(store.read(run)).damage is None


def test_of_many_runs_each_has_its_own_answer(store: RedisStore, client: redis.Redis) -> None:
    """One that is busy, one that is fenced, one that does not exist: the others are claimed and written."""
    for run in ("a", "b", "held"):
        store.append(run, store.claim(run, ttl_s=60 if run == "held" else 0.0), started())
    a, held, none, b = store.claim_many(["a", "held", "none", "b"], owner="me", ttl_s=60)
    assert isinstance(held, BusyError)
    assert not isinstance(a, Exception)
    assert not isinstance(b, Exception)
    assert (a[0], none) == (2, (0, []))
    assert not client.exists("{oao}:run:none")
    client.config_resetstat()
    errors = store.append_many([("a", 1, [record(2)]), ("b", 2, [record(2)]), ("none", 1, [started()])])
    assert isinstance(errors[0], FencedError)
    assert errors[1] is None
    assert isinstance(errors[2], StoreError)
    assert [one["seq"] for one in store.read("b")] == [1, 2]


def test_scripts_that_the_server_has_forgotten_are_sent_again(store: RedisStore, client: redis.Redis) -> None:
    """Also amid many."""
    store.append("a", store.claim("a"), started())
    client.script_flush()
    assert store.claim_many(["a"], owner="", ttl_s=60) == [(2, list(store.read("a")))]
    client.script_flush()
    assert store.append_many([("a", 2, [record(2)])]) == [None]


def test_a_damaged_journal_is_claimed_by_nobody(store: RedisStore, client: redis.Redis) -> None:
    """The claim that came with the reading is given back."""
    store.append("a", store.claim("a"), started())
    client.lset("{oao}:log:a", 0, "no record")
    (found,) = store.claim_many(["a"], owner="me", ttl_s=60)
    assert isinstance(found, DamagedError)
    assert store.claim("a") == 3


def test_a_server_that_is_not_there_is_an_error() -> None:
    """In a second or two, named, and without the password."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(StoreError, match=f"the store redis://127.0.0.1:{port}/3 failed") as caught:
            RedisStore(f"redis://user:hush@127.0.0.1:{port}/3")
    assert "hush" not in str(caught.value)


def test_a_server_that_hangs_is_an_error() -> None:
    """It takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        before = time.monotonic()
        with pytest.raises(StoreError, match="failed"):
            RedisStore(f"redis://127.0.0.1:{mute.getsockname()[1]}/0", timeout_s=0.1)
        assert time.monotonic() - before < 5


def test_a_closed_store_is_an_error(store: RedisStore) -> None:
    """It does not connect again behind one's back."""
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.runs()
