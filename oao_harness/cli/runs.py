"""`oao runs`: the journaled runs, newest first; and those that delete old ones."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli import pruning
from oao_harness.cli.console import STATUS_STYLES, console, one_line, print_json, status_text
from oao_harness.cli.render import Column, print_columns
from oao_harness.cli.stores import DEFAULT_STORE, find_run, kept, open_store, store_option
from oao_harness.cli.units import ago, count, dollars, duration, local_time, moment, plural
from oao_harness.journal.timeline import text
from oao_hookspecs import RunQuery, RunSummary, Store

__all__ = ["command"]

_COLUMNS = (
    Column(title="id"),
    Column(title="agent", shrinks=True),
    Column(title="status"),
    Column(title="steps", right=True, optional=True),
    Column(title="tools", right=True, optional=True),
    Column(title="tokens", right=True),
    Column(title="cost", right=True, optional=True),
    Column(title="at", optional=True),
    Column(title="started"),
    Column(title="took", right=True),
    Column(title="from"),
)
_SHORT_ID = 8
_STATUSES = ("queued", "running", "suspended", "dead", "success", "failed")
# What is not over, in words, and what shows more of it.
_TOLD = (
    ("SUSPENDED", "waits for a person", "wait for a person", "oao approvals"),
    ("DEAD", "is a dead letter", "are dead letters", "oao jobs dead"),
    ("QUEUED", "waits for a worker", "wait for a worker", "oao jobs"),
    ("RUNNING", "is running, or its process died", "are running, or their processes died", "oao resume ID"),
)
# How many rows are asked for at once where a date ends the list.
_PAGE = 1000


@click.group("runs", invoke_without_command=True, short_help="List the journaled runs, newest first; delete old ones.")
@click.option("--agent", default="", metavar="NAME", help="Only the runs of this agent.")
@click.option("--status", type=click.Choice(_STATUSES, case_sensitive=False), help="Only runs with this status.")
@click.option("--since", metavar="WHEN", help="Only runs that started since: 2026-05-31, 2026-05-31T14:00, or 7d.")
@click.option("--before", metavar="WHEN", help="Only runs that started before.")
@click.option("--forks-of", metavar="ID", help="Only the forks of this run.")
@click.option("--all", "every", is_flag=True, help="Also runs that are nested in another one.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list on standard output.")
@store_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    agent: str,
    status: str | None,
    since: str | None,
    before: str | None,
    forks_of: str | None,
    every: bool,
    limit: int,
    as_json: bool,
    store: str,
) -> None:
    """List the journaled runs, newest first.

    \b
    Examples:
      oao runs
      oao runs --status failed --since 7d
      oao runs --limit 100 --json
      oao runs --store other.db
      oao runs prune --older-than 30d
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if ctx.invoked_subcommand is not None:
        return
    now = time.time()
    from_ = None if since is None else moment(since, now, "--since")
    until = None if before is None else moment(before, now, "--before")
    found: list[RunSummary] = []
    open_: list[RunSummary] = []
    filtered = bool(agent or status or since or before or forks_of)
    if kept(store):
        with open_store(store) as opened:
            query = RunQuery(
                agent_name=agent,
                status=(status or "").upper(),
                forked_from="" if forks_of is None else text(find_run(opened, forks_of)[0], "execution_id"),
                started_before=until,
                outer=not every,
            )
            found = _newest(opened, limit + 1, query, from_)
            if not as_json:
                for one, *_ in _TOLD:
                    open_ += opened.runs(limit=None, query=RunQuery(status=one, outer=True))
    runs, more = found[:limit], len(found) > limit
    if as_json:
        print_json([dataclasses.asdict(run) for run in runs], indent=2)
        return
    on = console()
    where = "" if store == DEFAULT_STORE else f" --store {store}"
    if not runs:
        _print_none(on, where, filtered=filtered)
        return
    names = _short_ids(runs)
    print_columns(on, _COLUMNS, [_cells(on, run, names, now) for run in runs])
    on.print()
    shown = f" the newest {plural(len(runs), 'run')}; --limit N shows more" if more else f" {plural(len(runs), 'run')}"
    on.print(Text(f"{shown}; oao show ID{where} opens one", style="dim"), soft_wrap=True)
    _print_open(on, open_, where)


command.add_command(pruning.prune)
command.add_command(pruning.compact)


def _newest(store: Store, limit: int, query: RunQuery, since: float | None) -> list[RunSummary]:
    """Return the newest runs that are asked for; pages of a list that is sorted by start end at a date."""
    if since is None:
        return list(store.runs(limit=limit, query=query))
    found: list[RunSummary] = []
    while len(found) < limit:
        page = store.runs(limit=min(_PAGE, limit), offset=len(found), query=query)
        young = [run for run in page if run.started_at >= since]
        found += young
        if len(young) < min(_PAGE, limit):
            break
    return found[:limit]


def _short_ids(runs: Sequence[RunSummary]) -> Mapping[str, str]:
    """Return ids as they are shown: longer than usual where the list holds two that begin alike."""
    starts: dict[str, int] = {}
    for run in runs:
        starts[run.execution_id[:_SHORT_ID]] = starts.get(run.execution_id[:_SHORT_ID], 0) + 1
    return {
        run.execution_id: run.execution_id[: _SHORT_ID if starts[run.execution_id[:_SHORT_ID]] == 1 else None]
        for run in runs
    }


def _cells(on: Console, run: RunSummary, names: Mapping[str, str], now: float) -> list[Text]:
    totals = run.totals or {}

    def total(key: str) -> Text:
        value = totals.get(key)
        return Text(count(value) if isinstance(value, int) else "")

    cost = totals.get("cost_usd")
    took = "" if run.finished_at is None else duration(max(0.0, run.finished_at - run.started_at))
    origin = f"fork of {run.forked_from[:_SHORT_ID]}" if run.forked_from else ""
    origin = origin or (f"in {run.parent[:_SHORT_ID]}" if run.parent else "")
    return [
        Text(names[run.execution_id], style="bold"),
        Text(one_line(run.agent_name)),
        status_text(on, run.status),
        total("steps"),
        total("tool_calls"),
        total("tokens"),
        Text(dollars(cost) if isinstance(cost, int | float) else ""),
        Text(local_time(run.started_at, now), style="dim"),
        Text(ago(now - run.started_at)),
        Text(took),
        Text(origin, style="dim"),
    ]


def _print_none(on: Console, where: str, *, filtered: bool) -> None:
    if filtered:
        on.print("No run is like that.")
        on.print(
            Text(f"oao runs{where} lists all; --all also those that are nested in another", style="dim"), soft_wrap=True
        )
        return
    on.print("No run is journaled here yet. Make one with")
    on.print("  oao run module:agent TASK")
    on.print("or look at two with")
    on.print(f"  oao demo{where}", soft_wrap=True)


def _print_open(on: Console, open_: Sequence[RunSummary], where: str) -> None:
    """Say what is not over, and what to do about it."""
    for status, one, many, what in _TOLD:
        number = sum(run.status == status for run in open_)
        if number:
            mark = status_text(on, status).plain[0]
            said = (f" {mark} {count(number)} {one if number == 1 else many}", STATUS_STYLES[status])
            on.print(Text.assemble(said, (f": {what}{where}", "dim")), soft_wrap=True)
