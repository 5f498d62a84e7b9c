"""`oao show`: one run from its journal."""

from __future__ import annotations

import click

from oao_harness.cli.console import console, print_json
from oao_harness.cli.decisions import print_decisions
from oao_harness.cli.render import print_run
from oao_harness.cli.stores import find_run, kept, open_store, store_option
from oao_harness.cli.timeline import Timeline
from oao_harness.errors import UsageError

__all__ = ["command"]


@click.command("show", short_help="Show what happened in one run, call by call.")
@click.argument("id", metavar="[ID]", default="last")
@click.option("--json", "as_json", is_flag=True, help="Print the journal's records, one JSON document a line.")
@click.option("--decisions", is_flag=True, help="Print who decided what about each call: rule, file and line, reason.")
@store_option
def command(id: str, as_json: bool, decisions: bool, store: str) -> None:
    """Show what happened in one run, call by call.

    ID is the id of a run, the unique start of one, or `last`, the default.

    \b
    Examples:
      oao show last
      oao show 3f2a
      oao show last --decisions
      oao show last --json | jq 'select(.type == "call")'
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if not kept(store):
        raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
    with open_store(store) as opened:
        records = find_run(opened, id)
    if as_json:
        for record in records:
            print_json(record)
        return
    if decisions:
        print_decisions(console(), Timeline.of(records))
        return
    print_run(console(), Timeline.of(records), details=True)
