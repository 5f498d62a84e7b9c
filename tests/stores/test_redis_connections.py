"""Connections that stay at hand: as many as the URL allows, none that is broken, none of another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from types import FrameType

import pytest
import redis

from oao_harness.stores.redis import RedisStore
from oao_hookspecs import Record
from pytest_oao.testing import RedisServer

ROOT = Path(__file__).parent.parent.parent
THREADS = 8

FORK = """
import os, sys
from oao_harness.stores.redis import RedisStore
store = RedisStore(sys.argv[1])

def write(run):
    epoch = store.claim(run)
    for seq in range(1, 501):
        store.append(run, epoch, {"v": 1, "seq": seq, "type": "note", "at": 1.5, "run": run})
    assert [one["run"] for one in store.read(run)] == [run] * 500

write("before")
child = os.fork()
write("child" if child == 0 else "parent")
if child == 0:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def record(seq: int) -> Record:
    return {"v": 1, "seq": seq, "type": "note", "at": 1.5}


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


def write(store: RedisStore, run: str, count: int) -> int:
    epoch = store.claim(run)
    for seq in range(1, count + 1):
        store.append(run, epoch, record(seq))
        assert len(list(store.read(run))) == seq
    return epoch


@pytest.mark.parametrize("most", [1, 3])
def test_threads_share_what_the_url_allows(redis_server: RedisServer, client: redis.Redis, most: int) -> None:
    """None waits in vain for a connection that is at hand, and there are never more."""
    url = f"{redis_server.url}?max_connections={most}&client_name=shared"
    with closing(RedisStore(url)) as store, ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda n: write(store, f"run-{n}", 30), range(THREADS)))
        found = [one for one in client.client_list() if one["name"] == "shared"]
        assert len(found) <= most
        assert len(store.runs(None)) == 0
        assert all(len(list(store.read(f"run-{n}"))) == 30 for n in range(THREADS))


def test_connections_that_the_server_closed_are_not_tried_one_by_one(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    """There are more of them than tries: after the first one that is broken, the others are looked at."""
    with closing(RedisStore(f"{redis_server.url}?client_name=closed")) as store, ThreadPoolExecutor(THREADS) as pool:
        together = Barrier(THREADS)

        def work(n: int) -> int:
            together.wait(10)
            return write(store, f"run-{n}", 20)

        epochs = list(pool.map(work, range(THREADS)))
        found = [one for one in client.client_list() if one["name"] == "closed"]
        assert len(found) > 1
        for one in found:
            client.client_kill(one["addr"])
        for n, epoch in enumerate(epochs):
            store.append(f"run-{n}", epoch, record(21))
            assert len(list(store.read(f"run-{n}"))) == 21


def test_an_interrupted_command_leaves_its_answer_to_nobody(redis_server: RedisServer, client: redis.Redis) -> None:
    """The answer that comes after the interrupt is not taken for that of the next command."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with closing(RedisStore(redis_server.url)) as store:
            epoch = write(store, "run", 3)
            client.execute_command("CLIENT PAUSE", 400, "WRITE")
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                store.append("run", epoch, record(4))
            assert [one["seq"] for one in store.read("run")] == [1, 2, 3]
            store.append("run", epoch, record(4))
            assert [one["seq"] for one in store.read("run")] == [1, 2, 3, 4]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_forked_process_has_connections_of_its_own(redis_server: RedisServer, client: redis.Redis) -> None:
    """Parent and child write at once through the store that one of them opened."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    found = subprocess.run(
        [sys.executable, "-c", FORK, redis_server.url],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert found.returncode == 0, found.stderr
