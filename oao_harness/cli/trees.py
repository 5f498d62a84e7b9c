"""Runs that belong together: a run with those nested in it, and its forks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oao_harness.cli.console import console
from oao_hookspecs import Record, RunQuery, RunSummary, Store

__all__ = ["forks_of", "nested_in", "progress_bar", "summary_of"]


def nested_in(store: Store, records: Sequence[Record]) -> Iterator[str]:
    """Yield the ids of the runs that were started inside of a run, and inside of those; also such as are gone.

    Args:
        store: Where the runs are.
        records: Journal of the outer one.
    """
    seen: set[str] = set()
    left = [str(one["execution_id"]) for one in records if one["type"] == "child"][::-1]
    while left:
        nested = left.pop()
        if nested in seen:
            continue
        seen.add(nested)
        yield nested
        left += [str(one["execution_id"]) for one in store.read(nested) if one["type"] == "child"][::-1]


def forks_of(store: Store, execution_id: str) -> Sequence[RunSummary]:
    """Return the runs that began as a copy of this one, the newest first."""
    return store.runs(limit=None, query=RunQuery(forked_from=execution_id))


def summary_of(store: Store, execution_id: str) -> RunSummary | None:
    """Return the row of one run; None where there is none."""
    found = store.runs(limit=None, query=RunQuery(starts_with=execution_id))
    return next((one for one in found if one.execution_id == execution_id), None)


def progress_bar() -> Progress:
    """Return a bar on standard error that vanishes; nothing is shown where that is no terminal."""
    err = console(stderr=True)
    return Progress(
        TextColumn(" {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.file.isatty(),
    )
