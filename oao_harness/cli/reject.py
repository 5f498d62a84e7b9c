"""`oao reject`: a held call must not happen."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.text import Text

from oao_harness.cli.approve import give_answer
from oao_harness.cli.console import console, one_line
from oao_harness.cli.principals import as_user, principal_options
from oao_harness.cli.stores import store_option
from oao_hookspecs import Reject

__all__ = ["command"]


@click.command("reject", short_help="Refuse a held call; its run fails when it is resumed.")
@click.argument("id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the report.")
@principal_options
@store_option
def command(id: str, *, reason: str, who: str | None, roles: Sequence[str], tenant: str, store: str) -> None:
    """Refuse a held call; its run fails when it is resumed.

    \b
    Examples:
      oao reject 3f2a --reason "never heard of bob" --as alice
    """  # noqa: D301 - click reads the control character as "do not wrap"
    request = give_answer(store, id, Reject(by=as_user(who, roles, tenant), note=reason))
    console().print(Text.assemble(("rejected ", "red"), one_line(request.tool)), soft_wrap=True)
