"""`oao pending`: the recordings that wait for a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.text import Text

from oao_harness.cli.console import clean, console, print_json, print_paragraph
from oao_harness.cli.recorded import changes_as_json, named_files, shown
from oao_harness.cli.units import plural
from oao_harness.errors import RecordingError
from oao_harness.journal.pending import Pending, find_pending
from oao_harness.journal.places import standing
from oao_hookspecs import Json

__all__ = ["command"]


@click.command("pending", short_help="List the recordings that wait for a person.")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list on standard output.")
@click.option("--check", "--exit-code", is_flag=True, help="Exit code 1 where something is pending.")
@click.pass_context
def command(ctx: click.Context, paths: Sequence[str], *, as_json: bool, check: bool) -> None:
    """List the recordings that wait for a person, and what they would change.

    PATH is a folder, a recording, or its pending file; by default the working folder. A test that is recorded anew
    leaves its result as NAME.oao.json.new beside the recording.

    \b
    Examples:
      oao pending
      oao pending tests/billing --json
      oao pending --check
    """  # noqa: D301 - click reads the control character as "do not wrap"
    found = find_pending(named_files(paths) or [Path()])
    if as_json:
        print_json([_as_json(one) for one in found], indent=2)
    else:
        on = console()
        for one in found:
            on.print(Text(f" {shown(one.path)}", style="bold"), soft_wrap=True)
            for line, style in _told(one):
                print_paragraph(on, Text(clean(line), style=style), indent=3)
        if found:
            on.print()
            hint = f" {plural(len(found), 'recording')} pending; look with oao review, or oao accept|reject PATH"
            on.print(Text(hint, style="dim"), soft_wrap=True)
        else:
            on.print("Nothing is pending.")
    ctx.exit(1 if check and found else 0)


def _told(pending: Pending) -> list[tuple[str, str]]:
    try:
        new = pending.new()
        lines = [(("new: " if pending.is_new else "") + pending.changes().headline, "")]
    except RecordingError as error:
        return [(str(error), "red")]
    place = standing(pending.path, new.test)
    if place.state == "gone":
        lines.append((f"orphaned: {place.why}", "yellow"))
    return lines


def _as_json(pending: Pending) -> dict[str, Json]:
    head: dict[str, Json] = {"path": shown(pending.path), "pending": shown(pending.file), "new": pending.is_new}
    try:
        new = pending.new()
        place = standing(pending.path, new.test)
        return {**head, "test": new.test, "orphaned": place.state == "gone", **changes_as_json(pending.changes())}
    except RecordingError as error:
        return {**head, "error": str(error)}
