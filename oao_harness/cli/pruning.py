"""`oao runs prune` and `oao runs compact`: old runs are deleted, and the store lets go of what they held."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import console, print_json
from oao_harness.cli.erasing import compact_store
from oao_harness.cli.stores import kept, open_store, store_option
from oao_harness.cli.trees import progress_bar
from oao_harness.cli.units import count, local_time, parse_age, plural
from oao_harness.errors import BusyError, UsageError
from oao_hookspecs import Json, RunSummary, Store

__all__ = ["compact", "prune"]

_LEASE_S = 30.0
_STATUSES = ("success", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What would be deleted, and what is old enough and stays all the same."""

    going: Sequence[Sequence[RunSummary]]
    """Runs, each with those that are nested in it, the outer one first; the oldest first."""
    open_: Counter[str]
    """Old runs that are not over, by status."""

    @property
    def runs(self) -> list[RunSummary]:
        """All of them."""
        return [run for tree in self.going for run in tree]


@click.command("prune", short_help="Delete old runs that are over.")
@click.option("--older-than", metavar="AGE", help="Runs that ended longer ago: 30d, 12h, 2w.")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Keep the newest N runs, whatever their age.")
@click.option("--agent", default="", metavar="NAME", help="Only the runs of this agent.")
@click.option("--status", type=click.Choice(_STATUSES, case_sensitive=False), help="Only runs that ended so.")
@click.option("--run", "ids", multiple=True, metavar="ID", help="This one; may be repeated.")
@click.option("--include-suspended", is_flag=True, help="Also runs that wait for a person.")
@click.option("--include-interrupted", is_flag=True, help="Also runs without an end that no process holds.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--no-compact", is_flag=True, help="Leave the store's file as it is: faster, but not erased for good.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@store_option
def prune(
    *,
    older_than: str | None,
    keep: int | None,
    agent: str,
    status: str | None,
    ids: Sequence[str],
    include_suspended: bool,
    include_interrupted: bool,
    dry_run: bool,
    yes: bool,
    no_compact: bool,
    as_json: bool,
    store: str,
) -> None:
    """Delete runs that are over, with the runs nested in them, for good.

    A run that is not over stays, whatever its age, unless an option names it. Forks of a deleted run stay whole: they
    hold the beginning that they share.

    \b
    Examples:
      oao runs prune --older-than 30d --dry-run
      oao runs prune --older-than 7d --status failed --yes
      oao runs prune --keep 1000 --yes
      oao runs prune --run 3f2a
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if older_than is None and keep is None and not ids:
        raise UsageError("say which runs: --older-than 30d, --keep 1000 or --run ID")
    age = None if older_than is None else parse_age(older_than, "--older-than")
    if not kept(store):
        raise UsageError("no run is journaled here yet, so there is nothing to delete")
    on = console(stderr=as_json)
    now = time.time()
    with open_store(store) as opened:
        rows = opened.runs(limit=None)
        wanted = _named(rows, ids) if ids else rows
        known = {run.execution_id for run in rows}
        # Also one whose outer run is gone: nobody else would ever delete it.
        outer = [run for run in wanted if ids or run.parent not in known][keep or 0 :]
        allowed = {"SUCCESS", "FAILED"} if status is None else {status.upper()}
        allowed |= {"SUSPENDED"} if include_suspended else set()
        allowed |= {"RUNNING"} if include_interrupted else set()
        asked = [run for run in outer if agent in {"", run.agent_name} and _is_old(run, age, now)]
        plan = _plan(rows, asked, allowed)
        deleted: list[RunSummary] = []
        busy: list[RunSummary] = []
        if plan.going and (dry_run or _confirmed(on, plan, yes=yes)):
            if not dry_run:
                deleted, busy = _delete(opened, plan)
                if deleted and not no_compact:
                    compact_store(opened, on)
        elif plan.going:
            on.print("Nothing was deleted.")
            return
    if as_json:
        print_json(_document(plan, deleted, busy, dry_run=dry_run), indent=2)
        return
    _print(on, plan, deleted, busy, dry_run=dry_run, now=now)


@click.command("compact", short_help="Let the store go of what was deleted or replaced in it.")
@store_option
def compact(store: str) -> None:
    """Write the store's file anew: nothing of what was deleted or replaced is left in it, and it is smaller.

    oao runs prune and oao redact do this by themselves. It takes as long as copying the file.

    \b
    Examples:
      oao runs compact
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if not kept(store):
        raise UsageError("no run is journaled here yet, so there is nothing to write anew")
    on = console()
    with open_store(store) as opened:
        compact_store(opened, on)


def _named(rows: Sequence[RunSummary], ids: Sequence[str]) -> list[RunSummary]:
    found: list[RunSummary] = []
    for id_ in ids:
        exact = [run for run in rows if run.execution_id == id_]
        close = exact or [run for run in rows if id_ and run.execution_id.startswith(id_)]
        if len(close) != 1:
            what = f"{id_!r} is the start of {len(close)} ids; type more of it" if close else f"there is no run {id_!r}"
            raise UsageError(f"--run: {what}; oao runs lists them")
        if close[0].parent is not None and any(run.execution_id == close[0].parent for run in rows):
            raise UsageError(f"--run: {id_!r} is nested in run {close[0].parent!r}; delete that one")
        found += close
    return found


def _is_old(run: RunSummary, age: float | None, now: float) -> bool:
    ended = run.started_at if run.finished_at is None else run.finished_at
    return age is None or now - ended > age


def _plan(rows: Sequence[RunSummary], asked: Sequence[RunSummary], allowed: set[str]) -> _Plan:
    nested: dict[str, list[RunSummary]] = defaultdict(list)
    for run in rows:
        if run.parent is not None:
            nested[run.parent].append(run)
    # What was nested in an open run of an outer one that is over is as dead as that one.
    going = [list(_tree(run, nested)) for run in reversed(asked) if run.status in allowed]
    open_ = Counter(run.status for run in asked if run.status not in allowed | {"SUCCESS", "FAILED"})
    return _Plan(going=going, open_=open_)


def _tree(run: RunSummary, nested: Mapping[str, Sequence[RunSummary]]) -> Iterator[RunSummary]:
    seen: set[str] = set()
    left = [run]
    while left:
        one = left.pop()
        if one.execution_id not in seen:
            seen.add(one.execution_id)
            yield one
            left += nested.get(one.execution_id, ())


def _confirmed(on: Console, plan: _Plan, *, yes: bool) -> bool:
    if yes:
        return True
    what = plural(len(plan.runs), "run")
    if not sys.stdin.isatty():
        raise UsageError(f"{what} would be deleted for good; say --yes to delete without being asked, or --dry-run")
    return click.confirm(f"Delete {what} for good?", err=on.stderr)


def _delete(store: Store, plan: _Plan) -> tuple[list[RunSummary], list[RunSummary]]:
    """Delete runs; return those that are gone, and those that somebody went on with meanwhile."""
    deleted: list[RunSummary] = []
    busy: list[RunSummary] = []
    with progress_bar() as bar:
        for tree in bar.track(plan.going, description="deleting"):
            try:
                for run in tree:
                    if run.finished_at is None:
                        store.claim(run.execution_id, owner="oao runs prune", ttl_s=_LEASE_S)
            except BusyError:
                busy.append(tree[0])
                continue
            # From the inside: what is left where this is interrupted is still found by its outer run.
            for run in reversed(tree):
                store.delete(run.execution_id)
                deleted.append(run)
    return deleted, busy


def _print(
    on: Console, plan: _Plan, deleted: Sequence[RunSummary], busy: Sequence[RunSummary], *, dry_run: bool, now: float
) -> None:
    runs = plan.runs if dry_run else deleted
    if runs:
        inside = len(plan.runs) - len(plan.going) if dry_run else sum(run.parent is not None for run in deleted)
        more = f", {count(inside)} of them nested" if inside else ""
        first, last = (local_time(pick(run.started_at for run in runs), now) for pick in (min, max))
        span = f", started {first}" if first == last else f", started {first} to {last}"
        verb = ("would delete", "dim") if dry_run else ("deleted", "green")
        on.print(Text.assemble(verb, f" {plural(len(runs), 'run')}{more}{span}"), soft_wrap=True)
    else:
        on.print("Nothing to delete." if not plan.going else "Nothing was deleted.")
    for run in busy:
        line = f"run {run.execution_id[:8]} stays: somebody went on with it"
        on.print(Text(line, style="yellow"), soft_wrap=True)
    for status, option, what in (
        ("SUSPENDED", "--include-suspended", "waiting for a person"),
        ("RUNNING", "--include-interrupted", "without an end"),
    ):
        number = plan.open_[status]
        if number:
            line = f"{plural(number, 'run')} {what} {'stays' if number == 1 else 'stay'}; {option} deletes such too"
            on.print(Text(line, style="dim"), soft_wrap=True)


def _document(
    plan: _Plan, deleted: Sequence[RunSummary], busy: Sequence[RunSummary], *, dry_run: bool
) -> dict[str, Json]:
    return {
        "dry_run": dry_run,
        "runs": [run.execution_id for run in (plan.runs if dry_run else deleted)],
        "busy": [run.execution_id for run in busy],
        "open": dict(plan.open_),
    }
