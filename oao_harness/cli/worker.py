"""`oao worker`: do the jobs of a fleet until somebody says stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import console, one_line, print_json, status_text, symbol
from oao_harness.cli.fleets import fleet_options, run, scheduler_of, shown_url, store_of
from oao_harness.cli.logs import log_option, log_to_stderr
from oao_harness.cli.units import duration, plural
from oao_harness.errors import UsageError
from oao_harness.fleet.agents import Agents
from oao_harness.fleet.status import JobStatus
from oao_harness.fleet.worker import Fleet
from oao_harness.loading import prefer_working_folder

if TYPE_CHECKING:
    from oao_harness.cli.metrics import WorkerMetrics

__all__ = ["command"]

_IDLE_S: Final = 0.3
"""Seconds between two looks whether anything is left to do."""


@click.command("worker", short_help="Do the jobs of a fleet, until told to stop.")
@fleet_options
@click.option(
    "--slots", type=click.IntRange(1, 10_000), default=10, show_default=True, metavar="N", help="Runs at once."
)
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="What runs at work may take to end after SIGTERM; other workers go on with the rest.",
)
@click.option(
    "--lease",
    "lease_s",
    type=click.FloatRange(min=0.5, max=3600),
    default=24.0,
    show_default=True,
    metavar="SECONDS",
    help="When others take over what this worker has, after it was last heard of.",
)
@click.option(
    "--isolation",
    type=click.Choice(["process"]),
    help="Do each run in a process of its own, which can be killed and may run out of memory.",
)
@click.option("--burst", is_flag=True, help="End when nothing is left to do, in place of waiting for more.")
@click.option("--metrics", type=click.IntRange(0, 65535), metavar="PORT", help="Serve Prometheus metrics on 127.0.0.1.")
@log_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document a line on standard output.")
def command(
    *,
    scheduler: str | None,
    store: str | None,
    slots: int,
    drain_s: float,
    lease_s: float,
    isolation: str | None,
    burst: bool,
    metrics: int | None,
    log_format: str,
    as_json: bool,
) -> None:
    """Do the jobs of a fleet, until told to stop.

    It runs the agents that are registered here: [tool.oao.agents] in pyproject.toml, entry points oao.agents, or
    the hook oao_agents; a job names one of them, never code. SIGTERM or Ctrl-C: it takes no more jobs and ends those
    at work; what takes longer than --drain, and all at once after a second signal, other workers go on with.

    \b
    Examples:
      oao worker --scheduler redis://localhost:6379/0
      oao worker --slots 50 --metrics 9464
      oao worker --json | jq 'select(.status == "DEAD")'
    """  # noqa: D301 - click reads the control character as "do not wrap"
    prefer_working_folder()
    url = scheduler_of(scheduler)
    where = store_of(store, url)
    agents = Agents.discover()
    if not agents.names():
        raise UsageError(
            "no agent is registered here, so there is nothing to run; name one in pyproject.toml: "
            '[tool.oao.agents] support = "my_agents:support"'
        )
    voice = _Voice(console(), as_json=as_json)
    log_to_stderr(log_format)

    async def worked() -> None:
        async with AsyncExitStack() as open_:
            counted = _counted(open_, isolated=bool(isolation)) if metrics is not None else None
            fleet = Fleet(
                url,
                where,
                agents,
                lease_s=lease_s,
                plugins=counted.plugins if counted is not None else (),
                isolation="process" if isolation else "",
                told=voice.job,
                process_metrics=counted.lend if counted is not None else None,
            )
            open_.push_async_callback(fleet.close)
            # Whatever is wrong with the queue is said now, and not by the first job.
            await fleet.stats()
            port = None
            if counted is not None and metrics is not None:
                port = open_.enter_context(counted.served(fleet, metrics))
            voice.begin(agents, url, where, slots, port)
            await _work(fleet, voice, slots, drain_s, burst=burst)

    run(worked())
    voice.end()


def _counted(open_: AsyncExitStack, *, isolated: bool) -> WorkerMetrics:
    from oao_harness.cli.metrics import WorkerMetrics  # noqa: PLC0415 - a package that only this option needs

    return open_.enter_context(WorkerMetrics.opened(isolated=isolated))


async def _stop_when_idle(fleet: Fleet, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(_IDLE_S)
        seen = await fleet.stats()
        if not (seen.queued or seen.delayed or seen.running or await fleet.jobs("QUEUED", limit=1)):
            stop.set()


async def _work(fleet: Fleet, voice: _Voice, slots: int, drain_s: float, *, burst: bool) -> None:
    """Work until a signal says stop, and at once after another."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    working = asyncio.create_task(fleet.work(slots, stop, drain_s))
    idling = asyncio.create_task(_stop_when_idle(fleet, stop)) if burst else None

    def signalled() -> None:
        if stop.is_set():
            voice.say("stops at once; other workers go on with what it had")
            working.cancel()
        else:
            voice.say(f"takes no more jobs, and gives those at work {duration(drain_s)}; again: at once")
            stop.set()

    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, signalled)
    try:
        await working
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        if idling is not None:
            idling.cancel()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(one)


class _Voice:
    """What a worker says: lines for a person, or JSON."""

    def __init__(self, on: Console, *, as_json: bool) -> None:
        self._on = on
        self._as_json = as_json
        self._done = 0
        self._began = time.monotonic()

    def begin(self, agents: Agents, scheduler: str, store: str, slots: int, metrics: int | None) -> None:
        if self._as_json:
            named: list[object] = list(agents.names())
            said = {"event": "started", "pid": os.getpid(), "agents": named, "slots": slots}
            print_json({**said, "scheduler": shown_url(scheduler), "store": shown_url(store), "metrics": metrics})
            return
        rows = [
            ("agents", ", ".join(agents.names())),
            ("queue", shown_url(scheduler)),
            ("store", shown_url(store)),
            ("slots", str(slots)),
        ]
        if metrics is not None:
            rows.append(("metrics", f"http://127.0.0.1:{metrics}/metrics"))
        self._on.print(Text.assemble((f" worker {os.getpid()}", "bold"), (" is at work; Ctrl-C ends it", "dim")))
        for label, value in rows:
            self._on.print(Text.assemble((f" {label:<8}", "dim"), one_line(value)), soft_wrap=True)
        self._on.print()

    def job(self, status: JobStatus) -> None:
        self._done += status.is_over
        took = None if status.started_at is None or status.ended_at is None else status.ended_at - status.started_at
        if self._as_json:
            print_json({"event": "job", **asdict(status), "took_s": took})
            return
        line = Text.assemble(
            (f" {time.strftime('%H:%M:%S')} ", "dim"),
            (f" {status.execution_id[:8]:<8}  ", "bold"),
            f"{one_line(status.agent):<16}  ",
            status_text(self._on, status.status),
        )
        if took is not None:
            line.append(f" in {duration(max(0.0, took))}")
        if status.attempts > 1:
            line.append(f" {symbol(self._on, '·')} {plural(status.attempts, 'attempt')}", style="yellow")
        if status.reason:
            line.append(f" {symbol(self._on, '·')} {one_line(status.reason)}", style="dim")
        if self._on.is_terminal:
            self._on.print(line, no_wrap=True, overflow="ellipsis")
        else:
            self._on.print(line, soft_wrap=True)

    def say(self, what: str) -> None:
        if self._as_json:
            print_json({"event": "stopping", "told": what})
        else:
            self._on.print(Text(f" worker {os.getpid()} {what}", style="yellow"), soft_wrap=True)

    def end(self) -> None:
        ran_s = time.monotonic() - self._began
        if self._as_json:
            print_json({"event": "stopped", "done": self._done, "ran_s": round(ran_s, 3)})
            return
        line = f" worker {os.getpid()} has ended {plural(self._done, 'run')} in {duration(ran_s)}"
        self._on.print(Text(line, style="dim"), soft_wrap=True)
