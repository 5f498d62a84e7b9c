"""Many processes draw from one budget while they are killed: is the limit kept, and what does it cost?

Eight workers reserve, write an effect to a file of their own, and settle; each is killed with SIGKILL at random
moments and started again (with `memory:` the workers are threads, and die between two steps). At the end all are
killed. Then every hold of the dead must come back, and one process must be able to spend exactly the rest.

    python benchmarks/budget_race.py            tables; exit code 1 where anything is wrong
    python benchmarks/budget_race.py --json     for the record
    python benchmarks/budget_race.py --kills 4 --limit 800 --stores sqlite --no-micro
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import random
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from oao_harness.stores.registry import oao_open_ledger
from oao_hookspecs import Amounts, Ledger

ACCOUNT = "race"
# Units that each may spend by default: enough for some seconds.
STORES = {"memory": 50_000, "sqlite": 3_000, "redis": 2_000}
GIVE_UP_S = 40


class Dead(BaseException):
    """A thread's SIGKILL."""


@dataclass
class Race:
    """What was seen."""

    store: str
    workers: int
    limit: int
    kills: int = 0
    reserved: int = 0
    """Reservations that a worker knew of."""
    settled: int = 0
    refunded: int = 0
    came_back: int = 0
    """Effects in doubt: their workers died before they settled, and what they held came back."""
    held_at_the_end: int = 0
    """Units that the dead held when all were dead."""
    highest: int = 0
    """Most units ever seen spent and held together."""
    exceeded: int = 0
    drained: int = 0
    """Units that were left, and were then spent one by one."""
    per_second: float = 0.0
    wrong: list[str] = field(default_factory=list)


def work(ledger: Ledger, path: Path, limit: int, ttl_s: float, alive: Callable[[], None]) -> None:
    """Reserve, act, settle, until killed."""
    file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        while True:
            alive()
            hold, units = uuid.uuid4().hex, random.randint(1, 3)
            amounts = {"calls": 1, "units": units}
            if ledger.reserve(ACCOUNT, hold, amounts, {"units": limit}, ttl_s) is not None:
                time.sleep(0.02)
                continue
            alive()
            if random.random() < 0.1:
                os.write(file, f"refund {units}\n".encode())
                alive()
                ledger.settle(ACCOUNT, hold, {})
                continue
            os.write(file, f"effect {units}\n".encode())
            alive()
            if random.random() < 0.3:
                time.sleep(random.random() * 0.02)
            alive()
            ledger.settle(ACCOUNT, hold, amounts)
    finally:
        os.close(file)


class Workers:
    """The workers as processes, forked from a server that has imported what they need and opened nothing."""

    def __init__(self, url: str, folder: Path, limit: int, ttl_s: float) -> None:
        self._url, self._folder, self._limit, self._ttl_s = url, folder, limit, ttl_s
        self._context = multiprocessing.get_context("forkserver")
        # There is one such server for all races; what is not installed is passed over.
        modules = ("sqlite_ledger", "redis_ledger")
        self._context.set_forkserver_preload(["__main__", *(f"oao_harness.stores.{name}" for name in modules)])
        self._running: dict[int, multiprocessing.process.BaseProcess] = {}
        self._paths: dict[int, Path] = {}

    def start(self, slot: int) -> None:
        path = self._paths[slot] = self._folder / f"{slot}-{uuid.uuid4().hex}.log"
        worker = self._context.Process(target=live, args=(self._url, path, self._limit, self._ttl_s), daemon=True)
        worker.start()
        self._running[slot] = worker

    def has_begun(self, slot: int) -> bool:
        """To kill an interpreter that is still starting proves nothing."""
        return self._paths[slot].exists()

    def kill(self, slot: int) -> bool:
        """Return False where the worker had ended by itself, which none may."""
        worker = self._running.pop(slot)
        ended = not worker.is_alive()
        worker.kill()
        worker.join()
        return not ended


def live(url: str, path: Path, limit: int, ttl_s: float) -> None:
    """Be a worker."""
    work(oao_open_ledger(url), path, limit, ttl_s, lambda: None)


class Threads:
    """The workers as threads."""

    def __init__(self, url: str, folder: Path, limit: int, ttl_s: float) -> None:
        self._ledger, self._folder, self._limit, self._ttl_s = oao_open_ledger(url), folder, limit, ttl_s
        self._running: dict[int, tuple[threading.Thread, threading.Event]] = {}

    def start(self, slot: int) -> None:
        path, dying = self._folder / f"{slot}-{uuid.uuid4().hex}.log", threading.Event()

        def alive() -> None:
            # Not at the first chance: it must be able to die between any two steps.
            if dying.is_set() and random.random() < 0.4:
                raise Dead

        def live() -> None:
            with contextlib.suppress(Dead):
                work(self._ledger, path, self._limit, self._ttl_s, alive)

        thread = threading.Thread(target=live, daemon=True)
        self._running[slot] = (thread, dying)
        thread.start()

    def has_begun(self, slot: int) -> bool:
        return self._running[slot][0].is_alive()

    def kill(self, slot: int) -> bool:
        thread, dying = self._running.pop(slot)
        ended = not thread.is_alive()
        dying.set()
        thread.join()
        return not ended


def race(store: str, url: str, *, workers: int, kills: int, limit: int, ttl_s: float) -> Race:
    """Let the workers race and die, then count."""
    seen = Race(store=store, workers=workers, limit=limit)
    ledger = oao_open_ledger(url)

    def look() -> Amounts:
        found = ledger.totals(ACCOUNT).get("units", Amounts())
        seen.highest = max(seen.highest, found.spent + found.held)
        return found

    with tempfile.TemporaryDirectory(prefix="oao-race-") as folder:
        crew = (Threads if store == "memory" else Workers)(url, Path(folder), limit, ttl_s)
        for slot in range(workers):
            crew.start(slot)
        while not look().spent:
            time.sleep(0.01)
        started = time.monotonic()
        busy_s = 0.0
        while seen.kills < kills or not busy_s:
            for _ in range(4):
                time.sleep(random.uniform(0.01, 0.05))
                if look().spent >= limit * 0.99 and not busy_s:
                    busy_s = time.monotonic() - started
            if time.monotonic() - started > GIVE_UP_S:
                seen.wrong.append(f"not done after {GIVE_UP_S} s")
                break
            slot = random.randrange(workers)
            if seen.kills >= kills or not crew.has_begun(slot):
                continue
            if not crew.kill(slot):
                seen.wrong.append(f"worker {slot} ended by itself")
            seen.kills += 1
            crew.start(slot)
        busy_s = busy_s or time.monotonic() - started
        for slot in range(workers):
            if not crew.kill(slot):
                seen.wrong.append(f"worker {slot} ended by itself")
            seen.kills += 1
        count(seen, ledger, Path(folder), ttl_s, look, busy_s)
    ledger.close()
    return seen


def count(seen: Race, ledger: Ledger, folder: Path, ttl_s: float, look: Callable[[], Amounts], busy_s: float) -> None:
    """All are dead: hold the effects against the ledger, wait for the holds of the dead, and spend the rest."""
    lines = [line.split() for path in folder.glob("*.log") for line in path.read_text().splitlines()]
    effects = [int(units) for kind, units in lines if kind == "effect"]
    seen.reserved, seen.refunded = len(lines), len(lines) - len(effects)
    seen.held_at_the_end = look().held
    seen.per_second = seen.reserved / busy_s
    give_up = time.monotonic() + ttl_s + 5
    while (left := look()).held and time.monotonic() < give_up:
        time.sleep(0.05)
    if left.held:
        seen.wrong.append(f"{left.held} units of the dead did not come back")
    totals = ledger.totals(ACCOUNT)
    seen.settled = totals["calls"].spent
    seen.came_back = len(effects) - seen.settled
    units_in_doubt = sum(effects) - totals["units"].spent
    if not seen.came_back <= units_in_doubt <= 3 * seen.came_back or not 0 <= seen.came_back <= seen.kills:
        seen.wrong.append(f"{seen.came_back} effects with {units_in_doubt} units were not settled by {seen.kills} dead")
    while ledger.reserve(ACCOUNT, hold := uuid.uuid4().hex, {"units": 1}, {"units": seen.limit}, ttl_s) is None:
        ledger.settle(ACCOUNT, hold, {"units": 1})
        seen.drained += 1
    spent = look().spent
    if spent != seen.limit:
        seen.wrong.append(f"{spent} of {seen.limit} units could be spent")
    if sum(effects) - units_in_doubt + seen.drained != seen.limit:
        seen.wrong.append(f"{sum(effects)} units of effects, {units_in_doubt} in doubt, {seen.drained} drained")
    seen.exceeded = max(0, spent - seen.limit, seen.highest - seen.limit)


def timed(body: Callable[[int], object], count: int) -> float:
    """Return microseconds for one of `count` calls."""
    started = time.perf_counter()
    for n in range(count):
        body(n)
    return (time.perf_counter() - started) / count * 1e6


def micro(urls: dict[str, str]) -> Iterator[tuple[str, str, float, float]]:
    """Yield store, what, microseconds, microseconds after 2,000 settled holds."""
    for store, url in urls.items():
        ledger = oao_open_ledger(url)

        def pair(n: int, ledger: Ledger = ledger) -> None:
            hold, amounts = f"{time.perf_counter_ns()}-{n}", {"steps": 1, "model_calls": 1, "tokens": 500}
            ledger.reserve("micro", hold, amounts, {"steps": 10**9, "tokens": 10**12}, 60)
            ledger.settle("micro", hold, amounts)

        timed(pair, 100)
        first = timed(pair, 1000)
        timed(pair, 2000)
        yield store, "reserve + settle", first, timed(pair, 1000)
        ledger.close()
        if store == "sqlite":
            yield store, "2 bare transactions", *([2 * bare_transaction(Path(url.partition(":")[2]))] * 2)
        if store == "redis":
            import redis

            with redis.Redis.from_url(url) as client:
                timed(lambda _n: client.incrby("bare", 1), 100)
                yield store, "2 bare INCRBY", *([2 * timed(lambda _n: client.incrby("bare", 1), 1000)] * 2)


def bare_transaction(beside: Path) -> float:
    """Return microseconds of the smallest transaction on a file of the same disk, in the same mode."""
    db = sqlite3.connect(beside.with_suffix(".bare"), isolation_level=None)
    db.executescript("pragma journal_mode=wal; pragma synchronous=normal; create table t (n); insert into t values (0)")

    def transaction(_n: int) -> None:
        db.execute("begin immediate")
        db.execute("update t set n = n + 1")
        db.execute("commit")

    timed(transaction, 100)
    taken = timed(transaction, 1000)
    db.close()
    return taken


def show(races: list[Race], rows: list[tuple[str, str, float, float]]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    table = Table(
        title="one budget, workers killed at random moments",
        caption=f"came back: the effect happened, its worker died before it settled\n{machine}",
        box=None,
    )
    columns = ("store", "workers", "kills", "limit", "reserved", "settled", "refunded", "came back")
    for column in (*columns, "drained", "exceeded", "ops/s"):
        table.add_column(column, justify="left" if column == "store" else "right")
    for found in races:
        cells = (
            found.workers, found.kills, found.limit, found.reserved, found.settled, found.refunded, found.came_back,
            found.drained, found.exceeded,
        )  # fmt: skip
        table.add_row(found.store, *(f"{cell:,}" for cell in cells), f"{found.per_second:,.0f}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    if rows:
        costs = Table("store", "what", "us", "after 2,000", title="\nwhat one call costs", box=None)
        for store, what, first, later in rows:
            costs.add_row(store, what, f"{first:,.0f}", f"{later:,.0f}")
        console.print(costs)
    for found in races:
        for what in found.wrong:
            console.print(f"[red]{found.store}: {what}")


def main() -> int:
    """Race, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="*", default=list(STORES), choices=STORES)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--limit", type=int, help="units that may be spent")
    parser.add_argument("--ttl", type=float, default=1.5, help="seconds until the holds of the dead come back")
    parser.add_argument("--no-micro", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="oao-race-"))
        urls = {"memory": "memory:race", "sqlite": f"sqlite:{folder}/oao.db"}
        if "redis" in args.stores:
            from pytest_oao.testing import RedisServer

            urls["redis"] = stack.enter_context(RedisServer("--appendonly", "yes")).url
        races = [
            race(
                store,
                urls[store],
                workers=args.workers,
                kills=args.kills,
                limit=args.limit or STORES[store],
                ttl_s=args.ttl,
            )
            for store in args.stores
        ]
        rows = [] if args.no_micro else list(micro({store: urls[store] for store in args.stores}))
    if args.json:
        fields = ("store", "what", "microseconds", "microseconds_after_2000")
        costs = [dict(zip(fields, row, strict=True)) for row in rows]
        sys.stdout.write(json.dumps({"races": [asdict(found) for found in races], "costs": costs}))
    else:
        show(races, rows)
    return int(any(found.wrong or found.exceeded for found in races))


if __name__ == "__main__":
    sys.exit(main())
