"""`oao accept`: pending recordings become the recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from oao_harness.cli.console import console
from oao_harness.cli.recorded import accept_or_reject, named_files
from oao_harness.errors import UsageError
from oao_harness.journal.pending import find_pending

__all__ = ["command"]


@click.command("accept", short_help="Make pending recordings the recordings.")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--all", "everything", is_flag=True, help="All below the working folder.")
def command(paths: Sequence[str], *, everything: bool) -> None:
    """Make pending recordings the recordings. Look at them first: oao review, oao diff PATH.

    PATH is a recording, its pending file, or a folder with pending files in it.

    \b
    Examples:
      oao accept tests/recordings/test_refund/test_refund.oao.json
      oao accept tests/billing
      oao accept --all
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if not paths and not everything:
        raise UsageError("name what is accepted, or say --all; `oao pending` lists it")
    on = console()
    found = find_pending(named_files(paths) or [Path()])
    accept_or_reject(on, found, accept=True)
    if not found:
        on.print("Nothing is pending.")
