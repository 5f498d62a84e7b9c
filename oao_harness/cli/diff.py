"""`oao diff`: what a pending recording changes, or how two recordings differ."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from oao_harness.cli.console import clean, console, print_json
from oao_harness.cli.recorded import changes_as_json, print_changes
from oao_harness.errors import UsageError
from oao_harness.journal.changes import changes
from oao_harness.journal.pending import Pending, find_pending
from oao_harness.journal.recording import Recording

__all__ = ["command"]


@click.command("diff", short_help="Show how two runs or recordings differ.")
@click.argument("path", metavar="[PATH]", required=False)
@click.argument("other", metavar="[PATH2]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@click.option("--check", "--exit-code", is_flag=True, help="Exit code 1 where the behaviour differs.")
@click.pass_context
def command(ctx: click.Context, path: str | None, other: str | None, *, as_json: bool, check: bool) -> None:
    """Show what a pending recording changes, or how two recordings differ, step by step.

    PATH is a recording or its pending file; by default the one that is pending below the working folder.
    Times, tokens, tries, ids that a provider makes up, and the header are no change of behaviour.

    \b
    Examples:
      oao diff
      oao diff tests/recordings/test_refund/test_refund.oao.json
      oao diff before.oao.json after.oao.json --check
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if path is None:
        found = _only_pending().changes()
    elif other is not None:
        found = changes(Recording.load(path), Recording.load(other))
    elif Path(path).is_dir():
        raise UsageError(f"{path!r} is a folder; name one recording, or walk through all with oao review {path}")
    else:
        found = find_pending([path])[0].changes()
    if as_json:
        print_json(changes_as_json(found), indent=2)
    else:
        on = console()
        on.print(Text(f" {clean(found.headline)}", style="bold"), soft_wrap=True)
        print_changes(on, found, most=len(found.steps))
    ctx.exit(1 if check and found.behaviour else 0)


def _only_pending() -> Pending:
    found = find_pending([Path()])
    if not found:
        raise UsageError("nothing is pending; name two recordings to compare them: oao diff PATH PATH2")
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} recordings are pending; name one, for example oao diff {found[0].path}, "
            "or walk through all with oao review"
        )
    return found[0]
