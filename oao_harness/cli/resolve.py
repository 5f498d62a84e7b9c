"""`oao resolve`: what became of a call in doubt."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
from rich.text import Text

from oao_harness.cli.console import compact, console, one_line
from oao_harness.cli.principals import as_user, principal_options
from oao_harness.cli.stores import DEFAULT_STORE, kept, open_store, store_option
from oao_harness.errors import UsageError
from oao_harness.journal.inbox import resolve
from oao_harness.runtime.clock import SystemClock
from oao_hookspecs import Json

__all__ = ["command"]


@click.command("resolve", short_help="Say what became of a call in doubt.")
@click.argument("id", metavar="RUN#N")
@click.option(
    "--landed/--did-not-happen",
    "landed",
    default=None,
    help="It happened, and is not made again; or it did not, and is made again with the same idempotency key.",
)
@click.option("--result", metavar="JSON", help="What it returned, as JSON; the agent is given this. null by default.")
@click.option("--note", default="", metavar="TEXT", help="Kept in the journal.")
@principal_options
@store_option
def command(
    id: str,
    *,
    landed: bool | None,
    result: str | None,
    note: str,
    who: str | None,
    roles: Sequence[str],
    tenant: str,
    store: str,
) -> None:
    """Say what became of a call that began before its run was interrupted. `oao resume` then goes on with the run.

    Nobody but a person can know: look at the bank, the mailbox, the server. RUN#N is the id of the call (oao
    approvals); the run's id may be cut short, #N left out where only one call of it is in doubt, and `last` is the one
    that began last.

    \b
    Examples:
      oao resolve 3f2a#7 --landed --result '"paid"' --note "seen at the bank"
      oao resolve 3f2a --did-not-happen
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if landed is None:
        raise UsageError("say what became of the call: --landed or --did-not-happen")
    if not kept(store):
        raise UsageError("no run is journaled here yet, so no call is in doubt")
    value = None if result is None else _json(result)
    with open_store(store) as opened:
        doubt = resolve(
            opened, id, SystemClock(), landed=landed, by=as_user(who, roles, tenant), result=value, note=note
        )
    on = console()
    said = ("landed ", "green") if landed else ("did not happen ", "yellow")
    call = f"{one_line(doubt.tool)} {compact(doubt.arguments)}"
    on.print(Text.assemble(said, call), soft_wrap=True)
    where = "" if store == DEFAULT_STORE else f" --store {store}"
    on.print(Text(f"go on with: oao resume {doubt.execution_id}{where}", style="dim"), soft_wrap=True)


def _json(text: str) -> Json:
    try:
        found: Json = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--result {text!r:.60} is not JSON: {error}; a text needs its quotes: '\"text\"'") from error
    return found
