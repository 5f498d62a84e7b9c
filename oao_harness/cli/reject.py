"""`oao reject`: a held call must not happen; a pending recording is not wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.text import Text

from oao_harness.cli.approve import give_answer
from oao_harness.cli.console import console, one_line
from oao_harness.cli.principals import as_user, principal_options
from oao_harness.cli.recorded import accept_or_reject, is_file_name, named_files
from oao_harness.cli.stores import store_option
from oao_harness.errors import UsageError
from oao_harness.journal.pending import find_pending
from oao_hookspecs import Reject

__all__ = ["command"]


@click.command("reject", short_help="Refuse a held call, or delete pending recordings.")
@click.argument("what", nargs=-1, metavar="ID|PATH...")
@click.option("--reason", default="", metavar="TEXT", help="Of a held call: why, for the report.")
@click.option("--all", "everything", is_flag=True, help="All pending recordings below the working folder.")
@principal_options
@store_option
def command(
    what: Sequence[str],
    *,
    reason: str,
    everything: bool,
    who: str | None,
    roles: Sequence[str],
    tenant: str,
    store: str,
) -> None:
    """Refuse a held call, or delete pending recordings.

    ID is that of a held call (oao approvals); its run fails when it is resumed. PATH is a recording, its pending
    file, or a folder with pending files in it (oao pending); the recordings themselves stay.

    \b
    Examples:
      oao reject 3f2a --reason "never heard of bob" --as alice
      oao reject tests/recordings/test_refund/test_refund.oao.json
      oao reject --all
    """  # noqa: D301 - click reads the control character as "do not wrap"
    on = console()
    if everything or (what and all(map(is_file_name, what))):
        found = find_pending(named_files(what) or [Path()])
        accept_or_reject(on, found, accept=False)
        if not found:
            on.print("Nothing is pending.")
        return
    if len(what) != 1:
        raise UsageError("name one held call (oao approvals), or pending recordings (oao pending), or say --all")
    request = give_answer(store, what[0], Reject(by=as_user(who, roles, tenant), note=reason))
    on.print(Text.assemble(("rejected ", "red"), one_line(request.tool)), soft_wrap=True)
