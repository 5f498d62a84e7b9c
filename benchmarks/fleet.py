"""What a fleet costs: jobs per second and takeover, beside Docket bare and the other engines, in one run.

Each engine has a producer and workers that are processes, and one Redis that appends to its file every second. Jobs do
nothing; those of a fleet of ours are governed runs with a durable journal. Rounds are interleaved; medians of 3.

- submitted: jobs per second, one after the other, while no worker runs;
- processed: jobs per second from the first completion to the last, of jobs that wait already;
- pick-up: milliseconds from the submission of a job to its begin at an idle worker;
- takeover: two workers have 10 jobs of 2 s each at work, and one is killed with `kill -9`: seconds until the other one
  has begun them all again, where a lease or a redelivery is 5 s if the engine has one; and which jobs ended in time.

    python benchmarks/fleet.py                       table
    python benchmarks/fleet.py --json                for the record
    python benchmarks/fleet.py --quick --only oao,docket
    python benchmarks/fleet.py --profile             where our own time goes

The other engines come with `pip install -e ".[fleet]" --group bench`; those that are not installed are named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pstats
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import redis
from rich.console import Console
from rich.table import Table

from pytest_oao.testing import RedisServer

ROOT = Path(__file__).parents[1]
VARIABLE = "OAO_FLEET_BENCHMARK"
LEASE_S = 5.0
LONG_S = 30.0
JOB_S = 2.0
AT_WORK = 10
LOOK_S = 0.01
START_S = 30.0
ANSWER_S = 90.0
BASE = "Docket bare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A row of the table."""

    module: str
    """Its module in `benchmarks/engines`."""
    imports: str
    """What must be importable."""
    package: str
    """What is installed for it."""
    workers: int = 1
    slots: int = 100
    share: float = 1.0
    """Of the jobs that the quickest get."""
    at_work: int = AT_WORK
    takes_over: bool = True


ENGINES = {
    "oao fleet, 1 worker": Engine(module="oao", imports="docket", package="pydocket", share=0.25),
    "oao fleet, 2 workers": Engine(
        module="oao", imports="docket", package="pydocket", share=0.25, workers=2, takes_over=False
    ),
    BASE: Engine(module="docket", imports="docket", package="pydocket"),
    "streaq": Engine(module="streaq", imports="streaq", package="streaq"),
    "taskiq-redis": Engine(module="taskiq", imports="taskiq_redis", package="taskiq-redis"),
    "saq": Engine(module="saq", imports="saq", package="saq"),
    "dramatiq, threads": Engine(module="dramatiq", imports="dramatiq", package="dramatiq", slots=16),
    "existing implementation": Engine(
        module="existing", imports="oao", package="open-agent-orchestrator", slots=1, share=0.4, at_work=1
    ),
    "celery, threads": Engine(module="celery", imports="celery", package="celery", slots=16, share=0.3),
    "huey, threads": Engine(module="huey", imports="huey", package="huey", slots=16),
    "rq, 2 forks": Engine(module="rq", imports="rq", package="rq", slots=2, share=0.05),
}


class Event(NamedTuple):
    """What a job, or who sent it, wrote down."""

    at: float
    what: str
    job: int
    worker: int


@dataclass(slots=True)
class Log:
    """The file that all processes write to."""

    path: Path
    events: list[Event] = field(default_factory=list[Event])
    _read: int = 0

    def look(self) -> list[Event]:
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")
        self._read += len(whole[0]) + len(whole[1])
        for line in whole[0].decode().splitlines():
            at, what, job, worker = line.split()
            self.events.append(Event(float(at), what, int(job), int(worker)))
        return self.events

    def wait(self, until: Callable[[list[Event]], bool], timeout_s: float) -> bool:
        give_up = time.monotonic() + timeout_s
        while not until(self.look()):
            if time.monotonic() > give_up:
                return False
            time.sleep(LOOK_S)
        return True


# What the numbers are made of: functions of what was written down.


def processed_per_s(events: Sequence[Event]) -> float:
    """Return the jobs per second from the moment when every worker had ended one to the last end."""
    first: dict[int, float] = {}
    for event in events:
        if event.what == "ended":
            first.setdefault(event.worker, event.at)
    if not first:
        return 0.0
    start, seen, last = max(first.values()), set[int](), 0.0
    for event in events:
        if event.what == "ended" and event.at > start:
            seen.add(event.job)
            last = event.at
    return len(seen) / (last - start) if seen else 0.0


def pick_up_ms(events: Sequence[Event]) -> float | None:
    sent = {event.job: event.at for event in events if event.what == "sent"}
    begun = {event.job: event.at for event in reversed(events) if event.what == "begun"}
    waits = [(begun[job] - at) * 1000 for job, at in sent.items() if job in begun]
    return statistics.median(waits) if waits else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """What became of the jobs of a worker that was killed, and of those that it had not begun."""

    at_work: int
    begun_again: int
    seconds: float | None
    """Until the last of those at work was begun again; None where one was not."""
    not_ended: int
    ended_twice: int


def at_work(events: Sequence[Event], worker: int) -> set[int]:
    begun = {event.job for event in events if event.what == "begun" and event.worker == worker}
    return begun - {event.job for event in events if event.what == "ended"}


def takeover_of(events: Sequence[Event], jobs: range, killed: int, killed_at: float) -> Takeover:
    before = [event for event in events if event.at <= killed_at]
    held = at_work([event for event in before if event.job in jobs], killed)
    again: dict[int, float] = {}
    ends: dict[int, int] = {}
    for event in events:
        if event.what == "begun" and event.job in held and event.worker != killed and event.at > killed_at:
            again.setdefault(event.job, event.at)
        if event.what == "ended" and event.job in jobs:
            ends[event.job] = ends.get(event.job, 0) + 1
    return Takeover(
        at_work=len(held),
        begun_again=len(again),
        seconds=max(again.values()) - killed_at if held and len(again) == len(held) else None,
        not_ended=len(jobs) - len(ends),
        ended_twice=sum(count > 1 for count in ends.values()),
    )


# Processes


class EngineError(Exception):
    """An engine cannot be measured."""


class Bench:
    """One engine for one round: an empty server, an empty log, and the processes that are started."""

    def __init__(
        self, engine: Engine, url: str, folder: Path, *, slots: int, lease_s: float, profile: str = ""
    ) -> None:
        redis.Redis.from_url(url).flushall()
        self.log = Log(folder / "log")
        self.log.path.touch()
        self._module = engine.module
        self._errors = folder / "errors"
        told = {"redis": url, "log": str(self.log.path), "slots": slots, "lease_s": lease_s, "profile": profile}
        paths = (str(ROOT), str(ROOT / "hookspecs"), os.environ.get("PYTHONPATH", ""))
        self._environment = {
            **os.environ,
            VARIABLE: json.dumps(told),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        self._started: list[subprocess.Popen[str]] = []
        self._next = 0
        self._producer = self._start("producer", stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ready(self) -> None:
        """Wait until jobs can be submitted."""
        self._answer()

    def _start(self, role: str, **pipes: Any) -> subprocess.Popen[str]:
        with self._errors.open("a") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.engines", self._module, role],
                cwd=ROOT,
                env=self._environment,
                text=True,
                start_new_session=True,
                stderr=errors,
                **{"stdin": subprocess.DEVNULL, "stdout": errors, **pipes},
            )
        self._started.append(process)
        return process

    def _answer(self) -> str:
        assert self._producer.stdout is not None
        if not select.select([self._producer.stdout], [], [], ANSWER_S)[0]:
            raise EngineError(f"its producer did not answer within {ANSWER_S:g} s{self.last_error()}")
        answer = self._producer.stdout.readline().strip()
        if not answer:
            raise EngineError(f"its producer ended{self.last_error()}")
        return answer

    def worker(self) -> subprocess.Popen[str]:
        return self._start("worker")

    def submit(self, count: int, *, seconds: float = 0.0, gap_s: float = 0.0) -> tuple[range, float]:
        """Submit jobs; return their numbers, and the seconds that it took."""
        assert self._producer.stdin is not None
        jobs = range(self._next, self._next + count)
        self._next += count
        self._producer.stdin.write(json.dumps([jobs.start, count, seconds, gap_s]) + "\n")
        self._producer.stdin.flush()
        return jobs, float(self._answer())

    def last_error(self) -> str:
        lines = self._errors.read_text(errors="replace").split("\n")
        return next((f": {line[:300]}" for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        for process in self._started:
            kill(process)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()


def in_session_of(process: subprocess.Popen[str]) -> Iterator[int]:
    """Yield the processes that it started, and itself: engines have groups of their own, but stay in its session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if os.getsid(int(entry.name)) == process.pid:
                    yield int(entry.name)


def memory_mib(process: subprocess.Popen[str]) -> float:
    """Return what a worker takes with all its processes; pages that they share count once."""
    text = "".join(Path(f"/proc/{one}/smaps_rollup").read_text() for one in in_session_of(process))
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def commands(url: str) -> int:
    """Return how many commands the server has executed so far."""
    with redis.Redis.from_url(url) as client:
        found: Any = client.info("stats")
    return int(found["total_commands_processed"])


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process with all that it started."""
    for one in in_session_of(process):
        with suppress(OSError):
            os.kill(one, signal.SIGKILL)
    process.wait()


@contextmanager
def bench(engine: Engine, url: str, *, slots: int, lease_s: float, profile: str = "") -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="oao-fleet-") as folder, ExitStack() as stack:
        made = Bench(engine, url, Path(folder), slots=slots, lease_s=lease_s, profile=profile)
        stack.callback(made.close)
        made.ready()
        yield made


def all_ended(jobs: range) -> Callable[[list[Event]], bool]:
    def check(events: list[Event]) -> bool:
        return len({event.job for event in events if event.what == "ended" and event.job in jobs}) == len(jobs)

    return check


def all_begun(jobs: range) -> Callable[[list[Event]], bool]:
    return lambda events: (
        len({event.job for event in events if event.what == "begun" and event.job in jobs}) == len(jobs)
    )


# Rounds


@dataclass(slots=True)
class Row:
    """What was found of one engine, over all rounds."""

    submitted: list[float] = field(default_factory=list[float])
    processed: list[float] = field(default_factory=list[float])
    pick_up_ms: list[float] = field(default_factory=list[float])
    commands: list[float] = field(default_factory=list[float])
    """Commands to Redis for each job, from before it is submitted until all are done."""
    idle_mib: list[float] = field(default_factory=list[float])
    """Memory of a worker that waits for work and has done some: its own, and its part of what is shared."""
    takeovers: list[Takeover] = field(default_factory=list[Takeover])
    failed: list[str] = field(default_factory=list[str])


def throughput(engine: Engine, url: str, row: Row, *, jobs: int, lone: int, limit_s: float) -> None:
    with bench(engine, url, slots=engine.slots, lease_s=LONG_S) as on:
        count = max(20, int(jobs * engine.share))
        sent, took_s = on.submit(count)
        workers = [on.worker() for _ in range(engine.workers)]
        if not on.log.wait(all_ended(sent), limit_s):
            row.failed.append(f"of {count} jobs not all were done within {limit_s:g} s{on.last_error()}")
            return
        row.commands.append(commands(url) / count)
        row.submitted.append(count / took_s)
        row.processed.append(processed_per_s(on.log.events))
        # What workers do after the last job, and how long they sleep then.
        time.sleep(0.5)
        one_by_one, _ = on.submit(lone, gap_s=0.13)
        on.log.wait(all_ended(one_by_one), 10)
        found = pick_up_ms(on.log.look())
        if found is not None:
            row.pick_up_ms.append(found)
        row.idle_mib.append(memory_mib(workers[0]))


def take_over(engine: Engine, url: str, row: Row, *, limit_s: float) -> None:
    with bench(engine, url, slots=engine.at_work, lease_s=LEASE_S) as on:
        workers = [on.worker() for _ in range(2)]
        give_up = time.monotonic() + START_S
        # Both must be up, and idle; who gets a job is the engine's business.
        while len({event.worker for event in on.log.look() if event.what == "ended"}) < 2:
            if time.monotonic() > give_up:
                row.failed.append(f"two workers did not both do a job within {START_S:g} s{on.last_error()}")
                return
            warm, _ = on.submit(4)
            on.log.wait(all_ended(warm), START_S)
        jobs, _ = on.submit(2 * engine.at_work, seconds=JOB_S)
        on.log.wait(all_begun(jobs), JOB_S * 0.6)
        events = on.log.look()
        victim = max(workers, key=lambda worker: len(at_work(events, worker.pid)))
        killed_at = time.monotonic()
        kill(victim)
        on.log.wait(all_ended(jobs), limit_s)
        # Whoever ends a job a second time does so now.
        time.sleep(0.5)
        row.takeovers.append(takeover_of(on.log.look(), jobs, victim.pid, killed_at))


def measure(
    engines: Mapping[str, Engine], *, rounds: int, jobs: int, lone: int, takeovers: int, limit_s: float
) -> tuple[dict[str, Row], list[float]]:
    """Return what was found, and the load of the machine over the time."""
    rows = {name: Row() for name in engines}
    loads = [os.getloadavg()[0]]
    with RedisServer("--appendonly", "yes", "--appendfsync", "everysec") as server:
        for turn in range(max(rounds, takeovers)):
            for name, engine in engines.items():
                row = rows[name]
                say(f"round {turn + 1}, {name}")
                try:
                    if turn < rounds:
                        throughput(engine, server.url, row, jobs=jobs, lone=lone, limit_s=60)
                    # One that took more than the time once is not waited for again.
                    waited = any(found.seconds is None for found in row.takeovers)
                    if turn < takeovers and engine.takes_over and not waited:
                        take_over(engine, server.url, row, limit_s=limit_s)
                except EngineError as error:
                    row.failed.append(str(error))
                loads.append(os.getloadavg()[0])
    return rows, loads


def say(what: str) -> None:
    if sys.stderr.isatty():
        print(what, file=sys.stderr)


# Where our own time goes


def profile(jobs: int) -> None:
    """Print what one worker of ours does for jobs that wait already."""
    engine = ENGINES["oao fleet, 1 worker"]
    with (
        RedisServer("--appendonly", "yes", "--appendfsync", "everysec") as server,
        tempfile.TemporaryDirectory(prefix="oao-fleet-") as folder,
    ):
        out = str(Path(folder, "profile"))
        with bench(engine, server.url, slots=engine.slots, lease_s=LONG_S, profile=out) as on:
            sent, _ = on.submit(jobs)
            worker = on.worker()
            on.log.wait(all_ended(sent), 300)
            print(f"{jobs} jobs, {processed_per_s(on.log.events):,.0f} a second under the profiler")
            worker.terminate()
            worker.wait(30)
        stats = pstats.Stats(out)
        stats.sort_stats("tottime").print_stats(25)
        stats.sort_stats("cumtime").print_stats("oao_harness|docket", 40)


# The table


def shown(values: Sequence[float], digits: int = 0) -> str:
    if not values:
        return "-"
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({least:,.{digits}f}-{most:,.{digits}f})"


def shown_takeover(row: Row, limit_s: float) -> tuple[str, str, str, str]:
    if not row.takeovers:
        return "-", "-", "-", "-"
    in_time = [found.seconds for found in row.takeovers if found.seconds is not None]
    took = shown(in_time, 1) if len(in_time) == len(row.takeovers) else f"> {limit_s:g}"
    again = sum(found.begun_again for found in row.takeovers)
    held = sum(found.at_work for found in row.takeovers)
    not_ended, twice = (
        sum(values) for values in zip(*((t.not_ended, t.ended_twice) for t in row.takeovers), strict=True)
    )
    return took, f"{again} of {held}", str(not_ended), str(twice)


def main() -> None:
    parser = argparse.ArgumentParser(description="Jobs per second and takeover of a fleet, beside other engines.")
    parser.add_argument("--jobs", type=int, default=1000, help="of the quickest; slower engines get a share of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--takeovers", type=int, default=3, help="rounds in which a worker is killed")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds to wait for a takeover")
    parser.add_argument("--only", default="", help="modules of benchmarks/engines, with commas")
    parser.add_argument("--quick", action="store_true", help="one round of few jobs")
    parser.add_argument("--profile", action="store_true", help="profile one worker of ours, nothing else")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.profile:
        profile(1000)
        return
    if asked.quick:
        asked.jobs, asked.rounds, asked.takeovers = 400, 1, 1
    only, known = set(filter(None, asked.only.split(","))), {engine.module for engine in ENGINES.values()}
    if unknown := only - known:
        parser.error(f"--only names {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    wanted = {name: engine for name, engine in ENGINES.items() if not only or engine.module in only}
    here = {name: engine for name, engine in wanted.items() if find_spec(engine.imports) is not None}
    if not here:
        parser.error("none of them is installed: pip install -e .[fleet] --group bench")
    rows, loads = measure(
        here,
        rounds=asked.rounds,
        jobs=asked.jobs,
        lone=8 if asked.quick else 20,
        takeovers=asked.takeovers,
        limit_s=asked.limit,
    )
    machine = (
        f"Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"load {statistics.median(loads):.1f} ({min(loads):.1f}-{max(loads):.1f})"
    )
    missing = {name: engine.package for name, engine in wanted.items() if name not in here}
    if asked.json:
        found = {name: {**asdict(row), "version": installed(here[name].package)} for name, row in rows.items()}
        print(json.dumps({"machine": machine, "rows": found, "not_installed": missing}))
        return
    columns = "engine|submitted /s|processed /s|x Docket|pick-up ms|takeover s|again|not ended|ended twice"
    table = Table(*columns.split("|"), caption=machine, box=None)
    base = rows[BASE].processed if BASE in rows else []
    for name, row in rows.items():
        ratio = statistics.median(row.processed) / statistics.median(base) if base and row.processed else None
        table.add_row(
            f"{name} ({installed(here[name].package)})" if here[name].module != "oao" else name,
            shown(row.submitted),
            shown(row.processed),
            "-" if ratio is None else f"{ratio:.2f}",
            shown(row.pick_up_ms, 1),
            *shown_takeover(row, asked.limit),
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for name, row in rows.items():
        for why in row.failed:
            console.print(f"{name}: {why}")
    for name, package in missing.items():
        console.print(f"{name}: not installed; pip install {package}")


def installed(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return "?"


if __name__ == "__main__":
    main()
