"""`oao jobs`: what a fleet has to do, who does it, and what became a dead letter."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, cast

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from oao_harness.cli.console import STATUS_STYLES, console, one_line, print_json, status_text, symbol
from oao_harness.cli.fleets import ask, fleet_options, id_of, is_shared, option_hint, scheduler_of, shown_url
from oao_harness.cli.principals import as_user, principal_options
from oao_harness.cli.render import Column, print_columns
from oao_harness.cli.units import ago, count, duration, plural
from oao_harness.fleet.jobs import Jobs
from oao_harness.fleet.status import JobStatus, job_of, status_of
from oao_hookspecs import Json, QueueStats, RunQuery, RunSummary

__all__ = ["command"]

_COLUMNS = (
    Column(title="id"),
    Column(title="agent", shrinks=True),
    Column(title="status"),
    Column(title="for", optional=True),
    Column(title="priority", optional=True),
    Column(title="tries", right=True),
    Column(title="queued"),
    Column(title="took", right=True, optional=True),
    Column(title="why", shrinks=True),
)
_WORKERS = (Column(title="worker", shrinks=True), Column(title="heard of"), Column(title="runs", right=True))
_OPEN: Final = ("RUNNING", "QUEUED", "SUSPENDED", "DEAD")
_OVER: Final = ("FAILED", "SUCCESS")
_LIFE: Final = ("QUEUED", "RUNNING", "SUSPENDED", "DEAD", *_OVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A fleet at one moment."""

    stats: QueueStats
    counts: Mapping[str, int]
    jobs: Sequence[JobStatus]
    at: float
    is_shared: bool
    """False where the queue is in the worker's own process."""


@click.group("jobs", invoke_without_command=True, short_help="Show what a fleet has to do, and who does it.")
@click.option("--all", "every", is_flag=True, help="Also jobs that are over.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many.")
@click.option("--watch", is_flag=True, help="Show it until Ctrl-C, as it changes.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often --watch looks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; with --watch one a line.")
@fleet_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    every: bool,
    limit: int,
    watch: bool,
    every_s: float,
    as_json: bool,
    scheduler: str | None,
    store: str | None,
) -> None:
    """Show what a fleet has to do, and who does it: queue, jobs that are not over, workers.

    \b
    Examples:
      oao jobs
      oao jobs --watch
      oao jobs --json | jq .queue_size
      oao jobs dead
      oao jobs retry 3f2a --as ann
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if ctx.invoked_subcommand is not None:
        return
    on, statuses = console(), _OPEN + (_OVER if every else ())
    where = option_hint(scheduler, store)
    title = shown_url(scheduler_of(scheduler))

    async def show(jobs: Jobs) -> None:
        if not watch:
            _print(on, await _look(jobs, statuses, limit), title, where, as_json=as_json)
        elif as_json or not on.is_terminal:
            while True:
                _print(on, await _look(jobs, statuses, limit), title, where, as_json=as_json)
                await asyncio.sleep(every_s)
        else:
            await _watch(on, _View(title), lambda: _look(jobs, statuses, limit), every_s)

    try:
        ask(scheduler, store, show)
    except KeyboardInterrupt:
        if not watch:
            raise


@command.command("dead", short_help="List the dead letters.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list on standard output.")
@fleet_options
def dead(*, limit: int, as_json: bool, scheduler: str | None, store: str | None) -> None:
    """List the dead letters: jobs that ended so many workers in a row that no further one is risked.

    \b
    Examples:
      oao jobs dead
      oao jobs dead --json | jq -r '.[].execution_id'
    """  # noqa: D301 - click reads the control character as "do not wrap"

    async def look(jobs: Jobs) -> _Seen:
        return await _look(jobs, ("DEAD",), limit, stats=False)

    seen = ask(scheduler, store, look)
    if as_json:
        print_json([_as_json(job) for job in seen.jobs], indent=2)
        return
    on = console()
    if not seen.jobs:
        on.print("There is no dead letter.")
        return
    _print_jobs(on, seen)
    on.print()
    told = f" {_shown(seen, 'dead letter')}; mend the agent, then: oao jobs retry ID{option_hint(scheduler, store)}"
    on.print(Text(told, style="dim"), soft_wrap=True)


@command.command("retry", short_help="Queue a dead letter, or an answered job, again.")
@click.argument("id")
@principal_options
@click.option("--json", "as_json", is_flag=True, help="Print how far the job is as JSON.")
@fleet_options
def retry(
    *,
    id: str,
    who: str | None,
    roles: Sequence[str],
    tenant: str,
    as_json: bool,
    scheduler: str | None,
    store: str | None,
) -> None:
    """Queue a dead letter again: it goes on where it stopped; finished calls are not made again.

    The journal keeps who said so. A job that a person has answered is queued as well, without waiting until a worker
    notices.

    \b
    Examples:
      oao jobs retry 3f2a
      oao jobs retry 3f2a --as ann
    """  # noqa: D301 - click reads the control character as "do not wrap"
    by = as_user(who, roles, tenant)

    async def again(jobs: Jobs) -> JobStatus:
        return await jobs.redrive(id_of(jobs.store, id), by)

    _tell(ask(scheduler, store, again), as_json=as_json)


@command.command("cancel", short_help="End a job that is queued or running.")
@click.argument("id")
@principal_options
@click.option("--json", "as_json", is_flag=True, help="Print how far the job is as JSON.")
@fleet_options
def cancel(
    *,
    id: str,
    who: str | None,
    roles: Sequence[str],
    tenant: str,
    as_json: bool,
    scheduler: str | None,
    store: str | None,
) -> None:
    """End a job that is queued, running or waiting for a person. What it did stays done.

    \b
    Examples:
      oao jobs cancel 3f2a
    """  # noqa: D301 - click reads the control character as "do not wrap"
    by = as_user(who, roles, tenant)

    async def end(jobs: Jobs) -> JobStatus:
        return await jobs.cancel(id_of(jobs.store, id), by)

    _tell(ask(scheduler, store, end), as_json=as_json)


def _tell(status: JobStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(status), indent=2)
        return
    on = console()
    told = Text.assemble((f" {status.execution_id[:8]}", "bold"), " is now ", status_text(on, status.status))
    on.print(told + Text(f": {one_line(status.reason)}" if status.reason else ""), soft_wrap=True)


async def _look(jobs: Jobs, statuses: Sequence[str], limit: int, *, stats: bool = True) -> _Seen:
    """Ask the queue and the store how it is now."""
    rows: dict[str, RunSummary] = {}
    # In the order in which a job goes through them, and QUEUED once more, to which it may come back: else one that
    # moves on between two questions is seen by neither.
    for status in (*sorted(statuses, key=_LIFE.index), *(_LIFE[:1] if "QUEUED" in statuses else ())):
        # All that are open are counted; those that are over may be many.
        most = limit if status in _OVER else None
        for row in jobs.store.runs(most, query=RunQuery(status=status, outer=True)):
            rows[row.execution_id] = row
    found: list[JobStatus] = []
    counts = dict.fromkeys(statuses, 0)
    for row in sorted(rows.values(), key=lambda row: statuses.index(row.status)):
        counts[row.status] += 1
        if len(found) < limit:
            records = list(jobs.store.read(row.execution_id))
            # A run that nobody queued is no job, whatever its status is.
            if job_of(records) is not None:
                found.append(status_of(records))
            else:
                counts[row.status] -= 1
    now = time.time()
    if not stats:
        queue = QueueStats(queued=0, delayed=0, running=0)
    elif is_shared(jobs):
        queue = await jobs.stats()
    else:
        # The queue of another process, which only its store tells of.
        late = sum(job.status == "QUEUED" and job.not_before > now for job in found)
        queue = QueueStats(queued=counts["QUEUED"] - late, delayed=late, running=counts["RUNNING"])
    return _Seen(stats=queue, counts=counts, jobs=found, at=now, is_shared=is_shared(jobs))


def _print(on: Console, seen: _Seen, title: str, where: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(seen))
        return
    on.print(_headline(on, seen, title), soft_wrap=True)
    if seen.jobs:
        on.print()
        _print_jobs(on, seen)
    on.print()
    _print_workers(on, seen)
    if not seen.jobs:
        on.print(Text(f" queue a run with: oao submit AGENT TASK{where}", style="dim"), soft_wrap=True)
        return
    hints = [f"oao show ID opens one, oao jobs cancel ID{where} ends one"]
    if seen.counts.get("DEAD"):
        hints.append(f"oao jobs retry ID{where} queues a dead letter again")
    for hint in hints:
        on.print(Text(f" {hint}", style="dim"), soft_wrap=True)


def _headline(on: Console, seen: _Seen, title: str) -> Text:
    dot = f" {symbol(on, '·')} "
    stats = seen.stats
    parts = [
        Text(f"{count(stats.queued)} queued", style=STATUS_STYLES["QUEUED"] if stats.queued else "dim"),
        Text(f"{count(stats.delayed)} for later", style="" if stats.delayed else "dim"),
        Text(f"{count(stats.running)} running", style=STATUS_STYLES["RUNNING"] if stats.running else "dim"),
    ]
    waiting, dead = seen.counts.get("SUSPENDED", 0), seen.counts.get("DEAD", 0)
    if waiting:
        parts.append(Text(f"{count(waiting)} for a person", style=STATUS_STYLES["SUSPENDED"]))
    if dead:
        parts.append(Text(plural(dead, "dead letter"), style=STATUS_STYLES["DEAD"]))
    return Text.assemble((f" {one_line(title)}", "bold"), "  ", Text(dot).join(parts))


def _print_jobs(on: Console, seen: _Seen) -> None:
    print_columns(on, _COLUMNS, [_cells(on, job, seen.at) for job in seen.jobs])


def _cells(on: Console, job: JobStatus, now: float) -> list[Text]:
    later_s = job.not_before - now
    why = f"in {duration(later_s)}" if job.status == "QUEUED" and later_s > 0 else ""
    why = ": ".join(filter(None, (why, one_line(job.reason))))
    took = "" if job.started_at is None else duration(max(0.0, (job.ended_at or now) - job.started_at))
    return [
        Text(job.execution_id[:8], style="bold"),
        Text(one_line(job.agent)),
        status_text(on, job.status),
        Text(one_line(job.tenant)),
        Text("" if job.priority == "normal" else job.priority),
        Text(str(job.attempts) if job.attempts else ""),
        Text(ago(now - job.queued_at)),
        Text(took if job.status in {"RUNNING", *_OVER} else ""),
        Text(why, style="dim"),
    ]


def _print_workers(on: Console, seen: _Seen) -> None:
    if not seen.is_shared:
        told = " local: has no list of workers; one that is at work here is started with: oao worker"
        on.print(Text(told, style="dim"), soft_wrap=True)
        return
    if not seen.stats.workers:
        on.print(Text(" No worker is heard of; start one with: oao worker", style="yellow"), soft_wrap=True)
        return
    rows = [
        [Text(one_line(one.name)), Text(ago(seen.at - one.last_heard)), Text(str(len(one.running)))]
        for one in seen.stats.workers
    ]
    print_columns(on, _WORKERS, rows)


def _shown(seen: _Seen, noun: str) -> str:
    whole = sum(seen.counts.values())
    return plural(whole, noun) if whole == len(seen.jobs) else f"{len(seen.jobs)} of {plural(whole, noun)}"


def _as_json(job: JobStatus) -> dict[str, Json]:
    return cast("dict[str, Json]", asdict(job))


def _document(seen: _Seen) -> dict[str, Json]:
    stats = seen.stats
    return {
        "queue_size": stats.queued,
        "queued": stats.queued,
        "delayed": stats.delayed,
        "running": stats.running,
        "suspended": seen.counts.get("SUSPENDED", 0),
        "dead": seen.counts.get("DEAD", 0),
        "at": seen.at,
        "workers": [cast("Json", {**asdict(one), "running": list(one.running)}) for one in stats.workers],
        "jobs": [_as_json(job) for job in seen.jobs],
    }


class _View:
    """What a live view shows now, drawn at the width that the terminal has then."""

    def __init__(self, title: str) -> None:
        self._title = title
        self.seen: _Seen | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.seen is not None:
            # On a console of its own: the one that shows a live view would draw the view into itself.
            paper = Console(
                file=io.StringIO(), width=console.width, force_terminal=True, no_color=console.no_color,
                highlight=False, markup=False, emoji=False,
            )  # fmt: skip
            with paper.capture() as drawn:
                _print(paper, self.seen, self._title, "", as_json=False)
            yield Text.from_ansi(drawn.get().rstrip("\n"))


async def _watch(on: Console, view: _View, look: Callable[[], Awaitable[_Seen]], every_s: float) -> None:
    view.seen = await look()
    with Live(view, console=on, auto_refresh=False) as live:
        while True:
            live.refresh()
            await asyncio.sleep(every_s)
            view.seen = await look()
