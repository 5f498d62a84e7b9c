"""What a journal costs: each store beside the raw thing it is made of, in one process.

Appends 10,000 events one by one, in groups of 10, and from 8 threads to 8 runs, and loads them again, beside a file of
JSON lines (write and flush), raw SQLite with a commit where the store has one, and raw RPUSH. Rounds are interleaved;
medians of 5. Every contender makes the JSON itself, and parses it. Then a governed run with a store on and off.

    python benchmarks/stores.py              tables
    python benchmarks/stores.py --json       for the record
    python benchmarks/stores.py --events 2000 --rounds 3
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

import oao_harness as oao
from oao_harness.stores.redis import RedisStore
from pytest_oao.testing import RedisServer

THREADS = 8
TEXT = "x" * 300
dump = json.JSONEncoder(separators=(",", ":")).encode


def event(seq: int) -> dict[str, Any]:
    return {"v": 1, "seq": seq, "type": "call.finished", "at": 1795376670.13, "n": seq, "res": {"text": TEXT}}


class Jsonl:
    """One file per run."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._files: dict[str, Any] = {}

    def claim(self, run: str) -> int:
        self._files[run] = Path(self._place, f"{run}.jsonl").open("a", encoding="ascii")  # noqa: SIM115
        return 1

    def append(self, run: str, epoch: int, *records: dict[str, Any]) -> None:
        self._files[run].write("".join(f"{dump(record)}\n" for record in records))
        self._files[run].flush()

    def read(self, run: str) -> Iterator[Any]:
        with Path(self._place, f"{run}.jsonl").open(encoding="ascii") as file:
            yield from map(json.loads, file)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class RawSQLite:
    """The same table, WAL, one transaction per append, one connection and a lock."""

    def __init__(self, place: str, synchronous: str = "normal") -> None:
        self._db = sqlite3.connect(Path(place, "raw.db"), isolation_level=None, check_same_thread=False)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute(f"pragma synchronous={synchronous}")
        self._db.execute(
            "create table records (run text, seq integer, body text, primary key (run, seq)) without rowid"
        )
        self._lock = threading.Lock()

    def claim(self, run: str) -> int:
        return 1

    def append(self, run: str, epoch: int, *records: dict[str, Any]) -> None:
        rows = [(run, record["seq"], dump(record)) for record in records]
        with self._lock:
            if len(rows) == 1:
                self._db.execute("insert into records values (?, ?, ?)", rows[0])
                return
            self._db.execute("begin immediate")
            self._db.executemany("insert into records values (?, ?, ?)", rows)
            self._db.execute("commit")

    def read(self, run: str) -> Iterator[Any]:
        rows = self._db.execute("select body from records where run = ? order by seq", (run,)).fetchall()
        return (json.loads(body) for (body,) in rows)

    def close(self) -> None:
        self._db.close()


class RawRedis:
    """RPUSH and LRANGE."""

    def __init__(self, url: str) -> None:
        self._redis: Any = redis.Redis.from_url(url)
        self._redis.flushall()

    def claim(self, run: str) -> int:
        return 1

    def append(self, run: str, epoch: int, *records: dict[str, Any]) -> None:
        self._redis.rpush(f"raw:{run}", *map(dump, records))

    def read(self, run: str) -> Iterator[Any]:
        return map(json.loads, self._redis.lrange(f"raw:{run}", 0, -1))

    def close(self) -> None:
        self._redis.close()


def contenders(url: str) -> dict[str, tuple[str, Callable[[str], Any]]]:
    """Name, what it is compared with, and how it is opened in an empty folder."""
    return {
        "JSONL": ("JSONL", Jsonl),
        "memory": ("JSONL", lambda place: oao.MemoryStore()),
        "raw SQLite": ("raw SQLite", RawSQLite),
        "sqlite": ("raw SQLite", lambda place: oao.SQLiteStore(Path(place, "oao.db"))),
        "raw SQLite, full": ("raw SQLite, full", lambda place: RawSQLite(place, "full")),
        "sqlite, power": ("raw SQLite, full", lambda place: oao.SQLiteStore(Path(place, "oao.db"), durability="power")),
        "raw RPUSH": ("raw RPUSH", lambda place: RawRedis(url)),
        "redis": ("raw RPUSH", lambda place: RedisStore(url)),
    }


def one_by_one(store: Any, run: str, events: Sequence[Any]) -> None:
    epoch = store.claim(run)
    for item in events:
        store.append(run, epoch, item)


def in_groups(store: Any, run: str, events: Sequence[Any]) -> None:
    epoch = store.claim(run)
    for start in range(0, len(events), 10):
        store.append(run, epoch, *events[start : start + 10])


def one_round(name: str, store: Any, events: Sequence[Any], found: dict[tuple[str, str], list[float]]) -> None:
    def took(what: str, work: Callable[[], object], count: int) -> None:
        start = time.perf_counter()
        work()
        found.setdefault((what, name), []).append((time.perf_counter() - start) / count * 1e6)

    def together() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda n: one_by_one(store, f"run-{n}", share), range(THREADS)))

    share = events[: len(events) // THREADS]
    loaded: list[Any] = []
    took("append", lambda: one_by_one(store, "one", events), len(events))
    took("append, groups of 10", lambda: in_groups(store, "ten", events), len(events))
    took(f"append, {THREADS} threads", together, len(share) * THREADS)
    took("load", lambda: loaded.extend(store.read("one")), len(events))
    assert len(loaded) == len(events)


def measure(events: int, rounds: int) -> dict[tuple[str, str], float]:
    """Return microseconds per event, by what was done and by whom."""
    found: dict[tuple[str, str], list[float]] = {}
    written = [event(seq) for seq in range(1, events + 1)]
    with RedisServer() as server:
        for _ in range(rounds):
            for name, (_, opened) in contenders(server.url).items():
                # Those that wait for the disk get fewer.
                few = written[: events // 25] if name in {"raw SQLite, full", "sqlite, power"} else written
                with (
                    tempfile.TemporaryDirectory(prefix="oao-stores-") as place,
                    contextlib.closing(opened(place)) as store,
                ):
                    one_round(name, store, few, found)
    return {key: statistics.median(values) for key, values in found.items()}


def governed(rounds: int) -> dict[str, float]:
    """Return microseconds per governed call of a run of 200 calls."""

    @oao.tool
    def add(a: int, b: int) -> int:
        return a + b

    def agent(task: str) -> None:
        for n in range(200):
            add(n, 1)

    policy = oao.StrictPolicy(max_steps=None, max_tool_calls=None, max_tokens=None, timeout_seconds=None)
    found: dict[str, list[float]] = {}
    with RedisServer() as server, tempfile.TemporaryDirectory(prefix="oao-stores-") as place:
        stores = {
            "memory": oao.MemoryStore(),
            "sqlite": oao.SQLiteStore(Path(place, "oao.db")),
            "redis": RedisStore(server.url),
        }
        for turn in range(rounds + 1):
            for name, store in stores.items():
                start = time.perf_counter()
                report = oao.Orchestrator(policy, store=store).run(agent, "t")
                assert report.status == "SUCCESS", report.error
                if turn:
                    found.setdefault(name, []).append((time.perf_counter() - start) / 200 * 1e6)
        for store in stores.values():
            store.close()
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="What a journal costs.")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    logging.getLogger("oao_harness").setLevel(logging.ERROR)
    before = os.getloadavg()[0]
    found, calls = measure(asked.events, asked.rounds), governed(asked.rounds * 3)
    machine = (
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores, "
        f"load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    )
    base = {name: beside for name, (beside, _) in contenders("redis://localhost").items()}
    rows = [(what, name, value, value / found[what, base[name]]) for (what, name), value in sorted(found.items())]
    rows += [("governed call", name, value, value / calls["memory"]) for name, value in calls.items()]
    if asked.json:
        print(
            json.dumps(
                {
                    "machine": machine,
                    "rows": [dict(zip(("what", "who", "us", "ratio"), row, strict=True)) for row in rows],
                }
            )
        )
        return
    table = Table("what", "who", "us per event", "x raw", caption=machine, box=None)
    shown = ""
    for what, name, value, ratio in rows:
        table.add_row("" if what == shown else what, name, f"{value:,.1f}", f"{ratio:.2f}")
        shown = what
    Console().print(table)


if __name__ == "__main__":
    main()
