"""`python -m benchmarks.agentdojo`: the tables of both benchmarks, and whether the bar is met."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from .configurations import CONFIGURATIONS, grant_text
from .hijacked import ORDERS, Order
from .recorded import judge, load_runs
from .replay import Job, Played, jobs_of, play_jobs
from .suites import SUITES, VERSION, suite_of, without_calls
from .table import GuardRow, Row, guard_rows, guard_table, row_of, rows_table

BAR = "ours"
"""The configuration that the bar is about."""


@click.group(invoke_without_command=True, help=__doc__)
@click.option("--suite", "suites", multiple=True, type=click.Choice(SUITES), help="Only this suite; repeatable.")
@click.option("--configuration", "names", multiple=True, type=click.Choice([one.name for one in CONFIGURATIONS]),
              help="Only this row; repeatable.")  # fmt: skip
@click.option(
    "--order",
    "orders",
    multiple=True,
    type=click.Choice(ORDERS),
    help="Only this one besides `user first`; repeatable.",
)
@click.option("--recorded", type=click.Path(path_type=Path), default=Path("../shared/data/agentdojo"),
              show_default=True, help="Folder of recorded runs for the write-only guard.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), default=None, help="Processes; all cores by default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def main(
    context: click.Context,
    suites: Sequence[str],
    names: Sequence[str],
    orders: Sequence[Order],
    recorded: Path,
    workers: int | None,
    as_json: bool,
) -> None:
    """Play everything, twice where the bar is, and print."""
    if context.invoked_subcommand is not None:
        return
    suites = suites or SUITES
    names = names or [one.name for one in CONFIGURATIONS]
    orders = [one for one in ORDERS if not orders or one in ("user first", *orders)]
    console = Console(width=None if sys.stdout.isatty() else 200)
    first = _played(jobs_of(suites, names, orders), workers, "first pass")
    rows = _rows(first, names)
    barred = [row for row in rows if row.configuration == BAR]
    again = _rows(_played(jobs_of(suites, [BAR], orders), workers, "second pass"), [BAR]) if barred else []
    same = [row.digest for row in barred] == [row.digest for row in again]
    met = same and all(row.worst == 0 and (row.injected or _all_solved(row)) for row in barred)
    guard = _guard(recorded)
    if as_json:
        found = {
            "version": VERSION,
            "suites": list(suites),
            "rows": [row.as_json() for row in rows],
            "pairs_without_calls": dict(without_calls(suites)),
            "same_twice": same if barred else None,
            "bar_met": met if barred else None,
            "guard": [asdict(row) for row in guard],
        }
        click.echo(json.dumps(found, indent=2))
    else:
        _print(console, rows, guard, recorded, suites)
        if barred:
            digests = " ".join(row.digest[:12] for row in [*barred, *again])
            console.print(f"\n{BAR}: twice the same result: {'yes' if same else 'NO'} ({digests})")
            console.print(f"bar: {'met' if met else 'MISSED'}")
    if barred and not met:
        sys.exit(1)


@main.command()
@click.argument("suite", type=click.Choice(SUITES))
@click.argument("task")
def grant(suite: str, task: str) -> None:
    """Print the grant of a user's task, as the policy file that the row `ours` adds to the suite's own."""
    tasks = suite_of(suite).user_tasks
    if task not in tasks:
        raise click.UsageError(f"{suite} has no {task!r}; its tasks are {', '.join(tasks)}")
    click.echo(f"# {tasks[task].PROMPT}".replace("\n", "\n# "))
    click.echo(grant_text(suite, tasks[task]))


def _played(jobs: Sequence[Job], workers: int | None, what: str) -> Played:
    with _progress(what, len(jobs)) as advance:
        return play_jobs(jobs, advance, **({} if workers is None else {"workers": workers}))


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], object]]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)


def _rows(played: Played, names: Sequence[str]) -> list[Row]:
    return [
        row_of(one.name, injected, [result for name, where, result in played if (name, where) == (one.name, injected)])
        for injected in (False, True)
        for one in CONFIGURATIONS
        if one.name in names and (one.reads or not injected)
    ]


def _all_solved(row: Row) -> bool:
    return row.benign_solved == row.benign and row.solved_under_attack["user first"] == row.pairs


def _guard(folder: Path) -> list[GuardRow]:
    if not (folder / "index.json").is_file():
        return []
    runs = list(load_runs(folder))
    judged = []
    with _progress("recorded runs", len(runs)) as advance:
        for run in runs:
            judged.append(judge(run))
            advance()
    return guard_rows(judged)


def _print(
    console: Console, rows: Sequence[Row], guard: Sequence[GuardRow], recorded: Path, suites: Sequence[str]
) -> None:
    left_out = sum(without_calls(suites).values())
    console.print(
        f"AgentDojo {VERSION}, suites {', '.join(suites)}; {left_out} pairs are left out: their attack has no calls"
    )
    for injected, title in ((False, "clean environment"), (True, "the attacker's text in every place they can write")):
        console.print()
        console.print(rows_table([row for row in rows if row.injected == injected], title))
    console.print()
    if guard:
        console.print(guard_table(guard))
    else:
        console.print(f"write-only guard: not judged, there are no recorded runs in {recorded}")


if __name__ == "__main__":
    main()
