"""`oao runs`: the journaled runs, newest first."""

from __future__ import annotations

import dataclasses
import time

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import console, one_line, print_json, status_text
from oao_harness.cli.render import Column, print_columns
from oao_harness.cli.stores import DEFAULT_STORE, kept, open_store, store_option
from oao_harness.cli.units import ago, count, duration, local_time, plural
from oao_hookspecs import RunSummary

__all__ = ["command"]

_COLUMNS = (
    Column(title="id"),
    Column(title="agent", shrinks=True),
    Column(title="status"),
    Column(title="steps", right=True),
    Column(title="tools", right=True),
    Column(title="tokens", right=True),
    Column(title="at", optional=True),
    Column(title="started"),
    Column(title="took", right=True),
)


@click.command("runs", short_help="List the journaled runs, newest first.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list on standard output.")
@store_option
def command(limit: int, as_json: bool, store: str) -> None:
    """List the journaled runs, newest first.

    \b
    Examples:
      oao runs
      oao runs --limit 100 --json
      oao runs --store other.db
    """  # noqa: D301 - click reads the control character as "do not wrap"
    runs: list[RunSummary] = []
    more = False
    if kept(store):
        with open_store(store) as opened:
            found = list(opened.runs(limit=limit + 1))
        runs, more = found[:limit], len(found) > limit
    if as_json:
        print_json([dataclasses.asdict(run) for run in runs], indent=2)
        return
    on = console()
    if not runs:
        on.print("No run is journaled here yet. Make one with")
        on.print("  oao run module:agent TASK")
        on.print("or look at two with")
        on.print("  oao demo" if store == DEFAULT_STORE else f"  oao demo --store {store}", soft_wrap=True)
        return
    now = time.time()
    print_columns(on, _COLUMNS, [_cells(on, run, now) for run in runs])
    on.print()
    shown = f" the newest {plural(len(runs), 'run')}; --limit N shows more" if more else f" {plural(len(runs), 'run')}"
    where = "" if store == DEFAULT_STORE else f" --store {store}"
    on.print(Text(f"{shown}; oao show ID{where} opens one", style="dim"), soft_wrap=True)


def _cells(on: Console, run: RunSummary, now: float) -> list[Text]:
    totals = run.totals or {}

    def total(key: str) -> Text:
        value = totals.get(key)
        return Text(count(value) if isinstance(value, int) else "")

    took = "" if run.finished_at is None else duration(max(0.0, run.finished_at - run.started_at))
    return [
        Text(run.execution_id[:8], style="bold"),
        Text(one_line(run.agent_name)),
        status_text(on, run.status),
        total("steps"),
        total("tool_calls"),
        total("tokens"),
        Text(local_time(run.started_at, now), style="dim"),
        Text(ago(now - run.started_at)),
        Text(took),
    ]
