"""The option `--store`, and how a command opens what it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from oao_harness.errors import UsageError
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.stores.registry import split_sqlite
from oao_hookspecs import Record, RunQuery, RunSummary, Store

__all__ = ["DEFAULT_STORE", "find_outer_run", "find_run", "kept", "open_store", "store_option", "store_url"]

DEFAULT_STORE: Final = "sqlite:.oao/oao.db"
F = TypeVar("F", bound=Callable[..., Any])

# Two letters at least, so that a Windows path such as C:\runs.db is a path.
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_SEARCHED: Final = 100_000
_SHOWN: Final = 5


def store_option(function: F) -> F:
    """Give a command the option `--store`."""
    return click.option(
        "--store",
        default=DEFAULT_STORE,
        show_default=True,
        metavar="URL|PATH",
        help="Where the journals are: a URL such as sqlite:PATH or redis://HOST:PORT/DB, or the path of a SQLite file.",
    )(function)


def store_url(given: str) -> str:
    """Return the URL of a store that a user named by URL or by path."""
    return given if _URL.match(given) else f"sqlite:{given}"


def kept(given: str) -> bool:
    """Return False where the default store was never written to.

    Raises:
        UsageError: The user names a SQLite file that does not exist; reading must not make one.
    """
    scheme, _, rest = store_url(given).partition(":")
    if scheme != "sqlite" or Path(split_sqlite(rest)[0]).exists():
        return True
    if given == DEFAULT_STORE:
        return False
    raise UsageError(f"there is no store at {rest!r}; check --store, or make one with: oao run ... --store {given}")


@contextmanager
def open_store(given: str) -> Generator[Store]:
    """Open a store by URL or path, and close it."""
    store = Orchestrator(store=store_url(given)).store
    try:
        yield store
    finally:
        store.close()


def find_run(store: Store, wanted: str) -> list[Record]:
    """Return the records of the run that an id, the unique start of one, or `last` names.

    Raises:
        UsageError: No run, or more than one, is meant.
    """
    exact = list(store.read(wanted)) if wanted else []
    if exact:
        return exact
    found = store.runs(limit=1 if wanted == "last" else _SEARCHED, query=_named(wanted))
    if len(found) == 1:
        return list(store.read(found[0].execution_id))
    if found:
        raise UsageError(f"{wanted!r} is the start of {len(found)} ids; type more of it\n{_lines(found)}")
    runs = store.runs(limit=_SEARCHED)
    if not runs:
        raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
    raise UsageError(f"no run has an id that starts with {wanted!r}; the most recent ones are\n{_lines(runs)}")


def find_outer_run(store: Store, wanted: str) -> list[Record]:
    """Return what `find_run` does; for `last`, the newest run that is not nested in another, or holds the newest one.

    Raises:
        UsageError: See `find_run`.
    """
    records = find_run(store, wanted)
    while wanted == "last" and records[0].get("parent") is not None:
        outer = list(store.read(str(records[0]["parent"])))
        if not outer:
            break
        records = outer
    return records


def _named(wanted: str) -> RunQuery:
    return RunQuery(starts_with="" if wanted == "last" else wanted)


def _lines(runs: Sequence[RunSummary]) -> str:
    lines = [f"  {run.execution_id}  {run.agent_name}  {run.status}" for run in runs[:_SHOWN]]
    more = [f"  and {len(runs) - _SHOWN} more"] if len(runs) > _SHOWN else []
    return "\n".join([*lines, *more])
