"""The options `--scheduler` and `--store` of a fleet's commands, and how they open what these name."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import click

from oao_harness.cli.stores import DEFAULT_STORE, find_run, store_url
from oao_harness.errors import UsageError
from oao_harness.fleet.jobs import Jobs
from oao_harness.journal.timeline import text
from oao_harness.policy.project import find_project_setting
from oao_hookspecs import Store

__all__ = [
    "ask",
    "fleet_options",
    "id_of",
    "is_shared",
    "option_hint",
    "run",
    "scheduler_of",
    "shown_url",
    "store_of",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_ENVIRONMENT: Final = "OAO_SCHEDULER"
_LOCAL: Final = "local:"


def fleet_options(function: F) -> F:
    """Give a command the options that say which fleet."""
    for option in (
        click.option(
            "--store",
            default=None,
            metavar="URL|PATH",
            help="Where the journals are; by default [tool.oao] store, else the Redis of the scheduler.",
        ),
        click.option(
            "--scheduler",
            default=None,
            metavar="URL",
            help=f"The queue: redis://HOST:PORT/DB, or local: for one worker. By default ${_ENVIRONMENT}, else "
            "[tool.oao] scheduler.",
        ),
    ):
        function = option(function)
    return function


def scheduler_of(given: str | None) -> str:
    """Return the URL of the scheduler: as given, of the environment, of the project, else that of this machine.

    Raises:
        ConfigError: The project's pyproject.toml is wrong.
    """
    if given is not None or os.environ.get(_ENVIRONMENT):
        return given or os.environ.get(_ENVIRONMENT, "")
    project = find_project_setting("scheduler")
    return _LOCAL if project is None else project.text


def store_of(given: str | None, scheduler: str) -> str:
    """Return the URL of the store: as given, of the project, the server of the scheduler, else the usual file.

    Raises:
        ConfigError: The project's pyproject.toml is wrong.
    """
    if given is not None:
        return store_url(given)
    project = find_project_setting("store")
    if project is not None:
        return store_url(project.text)
    return scheduler if scheduler.startswith(("redis:", "rediss:", "unix:")) else DEFAULT_STORE


def shown_url(url: str) -> str:
    """Return a URL without the user and the password in it."""
    return re.sub(r"//[^/@]*@", "//", url)


def option_hint(scheduler: str | None, store: str | None) -> str:
    """Return the options as they were given, for a command that the user is told to type."""
    given = (("--scheduler", scheduler), ("--store", store))
    return "".join(f" {name} {shown_url(value)}" for name, value in given if value is not None)


def ask(scheduler: str | None, store: str | None, question: Callable[[Jobs], Awaitable[T]]) -> T:
    """Open a fleet, ask it something, and close it.

    Args:
        scheduler: As the user gave it.
        store: As the user gave it.
        question: What is awaited.
    """
    url = scheduler_of(scheduler)

    async def asked() -> T:
        jobs = Jobs(url, store_of(store, url))
        try:
            return await question(jobs)
        finally:
            await jobs.close()

    return run(asked())


def is_shared(jobs: Jobs) -> bool:
    """Return True where the queue is outside of any worker, so that what it says is what all see."""
    return bool(getattr(jobs.scheduler, "durable", False))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a computation to its end; what Ctrl-C means, the caller says."""
    return asyncio.run(work)


def id_of(store: Store, wanted: str) -> str:
    """Return the id of the run that an id, the unique start of one, or `last` names.

    Raises:
        UsageError: No run, or more than one, is meant; or it is nested in another.
    """
    first = find_run(store, wanted)[0]
    found = text(first, "execution_id")
    if first.get("parent") is not None:
        outer = text(first, "parent")
        raise UsageError(f"run {found!r} is nested in run {outer!r}; name that one: {outer[:8]}")
    return found
