"""What may go wrong with durable runs, each done to real processes and real stores, with its count."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, cast

from pytest_oao.testing import RedisServer
from tests.faults.harness import Bench, Tally, kill_and_resume
from tests.faults.program import CALLS

__all__ = ["SCENARIOS", "Scenario"]

Scenario = Callable[[Path, int], Tally]
"""Does its fault so many times to runs in a folder."""


def killed(folder: Path, faults: int) -> Tally:
    """`kill -9` at random moments, SQLite."""
    return kill_and_resume(folder, faults)


def killed_redis(folder: Path, faults: int) -> Tally:
    """`kill -9` at random moments, Redis."""
    with RedisServer("--appendonly", "yes") as server:
        return kill_and_resume(folder, faults, store=server.url, seed=1)


def terminated(folder: Path, faults: int) -> Tally:
    """SIGTERM at random moments."""
    return kill_and_resume(folder, faults, how=signal.SIGTERM, seed=2)


def clock_jumps(folder: Path, faults: int) -> Tally:
    """`kill -9`, and a clock that is set an hour to and fro all the time."""
    return kill_and_resume(folder, faults, seed=3, clock_jumps=True)


def two_resumers(folder: Path, faults: int) -> Tally:
    """Two processes resume one run at once: one has it, the other is refused."""
    tally = Tally()
    for index in range(faults):
        bench = _half_done(folder / str(index))
        pair = [bench.start("resume", task="slowly") for _ in range(2)]
        said = [bench.said(process) for process in pair]
        tally.faults += 1
        statuses = sorted(str(one.get("status")) for one in said)
        at_work = [one for one in statuses if one in {"SUCCESS", "SUSPENDED"}]
        refused = [one for one in said if one.get("status") in {"BusyError", "UsageError"}]
        if statuses == ["SUSPENDED", "SUSPENDED"]:
            # The one asked, and the other found the question.
            refused = said[1:]
        if not at_work or len(refused) != 1:
            tally.wrong.append(f"{index}: {said}")
        tally.in_doubt += bench.resolve()
        bench.count(tally, bench.go_on(tally))
    return tally


def frozen(folder: Path, faults: int) -> Tally:
    """SIGSTOP, another process goes on when the lease has lapsed, SIGCONT: the first one can do nothing more."""
    tally = Tally()
    for index in range(faults):
        bench = Bench(folder / str(index))
        late = bench.start("run", task="slowly", lease_s=0.4)
        bench.wait_for_effects(5 + index)
        os.kill(cast("int", late.pid), signal.SIGSTOP)
        time.sleep(0.6)
        tally.faults += 1
        said = bench.go_on(tally)
        os.kill(cast("int", late.pid), signal.SIGCONT)
        shut = bench.said(late)
        if shut.get("status") != "FAILED":
            tally.wrong.append(f"{index}: the one that came late: {shut}")
        bench.count(tally, said)
    return tally


def disk_full(folder: Path, faults: int) -> Tally:
    """The file of the store cannot grow; later it can."""
    tally = Tally()
    for index in range(faults):
        bench = Bench(folder / str(index))
        said = bench.finish("run", most_bytes=90_000 + 4096 * index)
        tally.faults += 1
        _expect(tally, index, said, "FAILED", "the journal failed")
        bench.count(tally, bench.go_on(tally))
    return tally


def locked(folder: Path, faults: int) -> Tally:
    """Another process holds the lock of the database for longer than anybody waits."""
    tally = Tally()
    for index in range(faults):
        bench = Bench(folder / str(index))
        process = bench.start("run", task="slowly", busy_timeout_s=0.2)
        bench.wait_for_effects(5)
        with closing(sqlite3.connect(folder / str(index) / "oao.db", isolation_level=None, timeout=10)) as other:
            other.execute("begin exclusive")
            said = bench.said(process)
            other.execute("rollback")
        tally.faults += 1
        _expect(tally, index, said, "FAILED", "locked")
        bench.count(tally, bench.go_on(tally))
    return tally


def corrupt(folder: Path, faults: int) -> Tally:
    """The last record of an interrupted run is damaged: nothing is done on it; mended, the run goes on."""
    tally = Tally()
    for index in range(faults):
        bench = _half_done(folder / str(index))
        # The shell that writes the last one outlives the process that was killed.
        time.sleep(0.5)
        done = bench.effects()
        with closing(sqlite3.connect(folder / str(index) / "oao.db", isolation_level=None)) as database:
            sql = "select seq, body from records order by seq desc limit 1"
            seq, body = database.execute(sql).fetchone()
            broken = body[: len(body) // 2] if index % 2 else body.replace('"n":', '"n":1', 1)
            database.execute("update records set body = ? where seq = ?", (broken, seq))
            said = bench.finish("resume")
            database.execute("update records set body = ? where seq = ?", (body, seq))
        tally.faults += 1
        _expect(tally, index, said, "DamagedError", f"record {seq}")
        if bench.effects() != done:
            tally.wrong.append(f"{index}: something was done on a damaged journal")
        bench.count(tally, bench.go_on(tally))
    return tally


def down_at_start(folder: Path, faults: int) -> Tally:
    """No store answers: the agent is not started."""
    tally = Tally()
    for index in range(faults):
        bench = Bench(folder / str(index), "redis://127.0.0.1:9/0")
        said = bench.finish("run")
        tally.faults += 1
        _expect(tally, index, said, "StoreError", "127.0.0.1:9")
        if bench.effects():
            tally.wrong.append(f"{index}: something was done without a journal")
    return tally


def down_in_the_middle(folder: Path, faults: int) -> Tally:
    """The Redis server is killed in the middle of a run, and started again with what it had kept."""
    tally = Tally()
    for index in range(faults):
        with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
            bench = Bench(folder / str(index), server.url)
            process = bench.start("run", task="slowly")
            bench.wait_for_effects(5 + index)
            server.kill()
            said = bench.said(process)
            server.start()
            tally.faults += 1
            _expect(tally, index, said, "FAILED", "the journal failed")
            bench.count(tally, bench.go_on(tally))
    return tally


def _half_done(folder: Path) -> Bench:
    """Return a run that was killed in the middle."""
    bench = Bench(folder)
    process = bench.start("run", task="slowly")
    bench.wait_for_effects(CALLS // 2)
    process.kill()
    bench.said(process)
    return bench


def _expect(tally: Tally, index: int, said: dict[str, object], status: str, error: str) -> None:
    if said.get("status") != status or error not in str(said.get("error")):
        tally.wrong.append(f"{index}: {said}")


SCENARIOS: Final[dict[str, tuple[Scenario, int]]] = {
    "kill -9, SQLite": (killed, 200),
    "kill -9, Redis": (killed_redis, 50),
    "SIGTERM": (terminated, 50),
    "kill -9, clock jumps": (clock_jumps, 30),
    "two resumers": (two_resumers, 10),
    "frozen, taken over": (frozen, 6),
    "disk full": (disk_full, 5),
    "database locked": (locked, 3),
    "corrupt last record": (corrupt, 4),
    "store down at start": (down_at_start, 2),
    "store down in the middle": (down_in_the_middle, 4),
}
"""Each with how often it is done by `python -m tests.faults`."""
