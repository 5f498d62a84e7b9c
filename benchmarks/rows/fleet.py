"""Jobs per second of a fleet with a durable journal, beside other engines; and what is left after `kill -9`."""

from __future__ import annotations

import subprocess
from urllib.parse import urlsplit

from benchmarks import fleet
from benchmarks.contending import Contender, Figure, Goal, Row
from benchmarks.timing import Measure, is_quick

HERE = "benchmarks.rows.fleet"
JOBS = 1_000
QUICK_JOBS = 100
OURS, OURS_2 = "oao fleet, 1 worker", "oao fleet, 2 workers"
EXISTING = "existing implementation"
SURVIVORS = ("Docket bare", "streaq", "taskiq-redis", "dramatiq, threads", "celery, threads")
"""Begin the jobs of a killed worker again within 20 s where they are told a short lease; see the row `takeover`."""
REDIS = ("--appendonly", "yes", "--appendfsync", "everysec")
FIGURES = (
    Figure(key="jobs_per_s", unit="jobs/s", digits=0),
    Figure(key="submitted_per_s", unit="submitted/s", digits=0),
    Figure(key="pick_up_ms", unit="ms to pick up"),
    Figure(key="commands", unit="commands a job"),
    Figure(key="idle_mib", unit="MiB idle", digits=0),
)


def row() -> Row:
    engines = tuple(
        Contender(
            name=name,
            make=f"{HERE}:throughput",
            options={"name": name},
            process="",
            packages=(engine.package,),
        )
        for name, engine in fleet.ENGINES.items()
    )
    bound = Contender(name="redis-benchmark: LPUSH, then RPOP", make=f"{HERE}:bound", process="")
    return Row(
        id="fleet",
        title="fleet, jobs that do nothing",
        how="The jobs wait already when the workers start: jobs per second from the first end to the last, in one "
        "Redis that appends to its file every second. A job of oao is a governed run with its journal in that Redis.",
        figures=FIGURES,
        contenders=(*engines, bound),
        goals=(
            Goal(says="ahead of every engine that survives kill -9", contender=OURS, at_least=1.0, than=SURVIVORS),
            Goal(says="ahead of them with 2 workers", contender=OURS_2, at_least=1.0, than=SURVIVORS),
            Goal(says="ahead of the existing implementation", contender=OURS, at_least=1.0, than=(EXISTING,)),
        ),
        rounds=5,
        note="Other engines move one message and keep no journal. Two workers share two cores with Redis. The bound is "
        "one push and one pop for each job, 100 connections, no client in Python.",
    )


def takeover() -> Row:
    engines = tuple(
        Contender(name=name, make=f"{HERE}:killed", options={"name": name}, process="", packages=(engine.package,))
        for name, engine in fleet.ENGINES.items()
        if engine.takes_over
    )
    return Row(
        id="takeover",
        title="fleet, a worker is killed",
        how="Two workers are at work on jobs of 2 s, one of them is killed with `kill -9`; leases and redeliveries are "
        "5 s where an engine has them, and who takes longer than 20 s is not waited for. One round: it is "
        "about what happens, not about how quick.",
        figures=(
            Figure(key="lost", unit="jobs lost or late", digits=0),
            Figure(key="seconds", unit="s until all are begun again"),
            Figure(key="twice", unit="jobs ended twice", digits=0),
        ),
        contenders=engines,
        goals=(Goal(says="no job is lost", contender=OURS, at_most=0),),
        rounds=1,
    )


def throughput(*, name: str) -> Measure:
    from pytest_oao.testing import RedisServer

    engine = fleet.ENGINES[name]
    __import__(engine.imports)

    def measure() -> dict[str, float]:
        found = fleet.Row()
        with RedisServer(*REDIS) as server:
            jobs = QUICK_JOBS if is_quick() else JOBS
            fleet.throughput(engine, server.url, found, jobs=jobs, lone=8, limit_s=60)
        if found.failed:
            raise fleet.EngineError(found.failed[0])
        columns = (found.processed, found.submitted, found.pick_up_ms, found.commands, found.idle_mib)
        return {figure.key: values[0] for figure, values in zip(FIGURES, columns, strict=True) if values}

    return measure


def killed(*, name: str) -> Measure:
    from pytest_oao.testing import RedisServer

    engine = fleet.ENGINES[name]
    __import__(engine.imports)

    def measure() -> dict[str, float]:
        found = fleet.Row()
        with RedisServer(*REDIS) as server:
            fleet.take_over(engine, server.url, found, limit_s=20)
        if found.failed:
            raise fleet.EngineError(found.failed[0])
        seen = found.takeovers[0]
        figures = {"lost": float(seen.not_ended), "twice": float(seen.ended_twice)}
        return figures if seen.seconds is None else {**figures, "seconds": seen.seconds}

    return measure


def bound() -> Measure:
    from pytest_oao.testing import RedisServer

    def measure() -> dict[str, float]:
        with RedisServer(*REDIS) as server:
            command = ["redis-benchmark", "-p", str(urlsplit(server.url).port), "-c", "100", "--csv"]
            count = "2000" if is_quick() else "30000"
            told = subprocess.run(
                [*command, "-n", count, "-t", "lpush,rpop"], capture_output=True, text=True, timeout=60, check=True
            )
        rates = [
            float(line.split(",")[1].strip('"')) for line in told.stdout.splitlines() if "POP" in line or "PUSH" in line
        ]
        return {"jobs_per_s": 1 / sum(1 / rate for rate in rates), "commands": float(len(rates))}

    return measure
