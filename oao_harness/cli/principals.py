"""The options `--as`, `--role` and `--tenant`: who a run acts for, or who answers a question."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from oao_harness.errors import UsageError
from oao_hookspecs import Principal

__all__ = ["actor_options", "as_user", "principal_of", "principal_options"]

F = TypeVar("F", bound=Callable[..., Any])


def principal_options(function: F) -> F:
    """Give a command the options that say who acts. oao believes them: whoever can run the command can say so."""
    return _options(function, "Who acts; the login name by default.")


def actor_options(function: F) -> F:
    """Give a command the options that say for whom a run acts; nobody where none of them is given."""
    return _options(function, "For whom the agent acts: nobody by default, the login name with --role or --tenant.")


def _options(function: F, who: str) -> F:
    for option in (
        click.option("--tenant", default="", metavar="NAME", help="Whose organisation that is."),
        click.option("--role", "roles", multiple=True, metavar="NAME", help="A role of theirs; may be repeated."),
        click.option("--as", "who", default=None, metavar="NAME", help=who),
    ):
        function = option(function)
    return function


def principal_of(who: str | None, roles: Sequence[str], tenant: str) -> Principal | None:
    """Return who the options name, or None where they name nobody."""
    if who is None and not roles and not tenant:
        return None
    return as_user(who, roles, tenant)


def as_user(who: str | None, roles: Sequence[str], tenant: str) -> Principal:
    """Return who the options name, the user of this machine by default.

    Raises:
        UsageError: The machine does not know who that is.
    """
    if who is None:
        try:
            who = getpass.getuser()
        except (OSError, KeyError) as error:
            raise UsageError("this machine does not know your name; give it: --as NAME") from error
    return Principal(id=who, roles=tuple(roles), tenant=tenant)
