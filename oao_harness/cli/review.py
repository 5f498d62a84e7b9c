"""`oao review`: walks through the pending recordings, one key each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import clean, console, print_paragraph
from oao_harness.cli.recorded import accept_or_reject, named_files, print_changes, print_lines, shown
from oao_harness.cli.units import plural
from oao_harness.errors import RecordingError, UsageError
from oao_harness.journal.pending import Pending, find_pending

__all__ = ["command"]

_KEYS: Final = {
    "a": "accept",
    "r": "reject",
    "s": "skip",
    "A": "accept the rest",
    "d": "full diff",
    "o": "editor",
    "q": "quit",
}


@click.command("review", short_help="Walk through the pending recordings: accept, reject, skip.")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
def command(paths: Sequence[str]) -> None:
    """Walk through the pending recordings, one key each: accept, reject, skip.

    For each it shows what would change, step by step. A recording is one conversation, so it is accepted or rejected
    whole. PATH is a folder, a recording, or its pending file; by default the working folder.

    \b
    Keys:
      a accept   r reject   s skip   A accept the rest
      d full diff   o open in $EDITOR   q quit

    \b
    Examples:
      oao review
      oao review tests/billing
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "a review needs a terminal; without one use oao pending, oao diff PATH, oao accept PATH and oao reject PATH"
        )
    on = console()
    found = find_pending(named_files(paths) or [Path()])
    if not found:
        on.print("Nothing is pending.")
        return
    left = _review(on, found)
    on.print()
    done = len(found) - len(left)
    on.print(Text(f" {plural(done, 'recording')} decided, {len(left)} still pending", style="dim"), soft_wrap=True)


def _review(on: Console, found: Sequence[Pending]) -> list[Pending]:
    """Ask about each; return what is still pending."""
    left: list[Pending] = []
    for index, pending in enumerate(found):
        key = _ask_about(on, pending, f"{index + 1} of {len(found)}")
        if key == "q":
            return [*left, *found[index:]]
        if key == "A":
            _decide(on, found[index:], left, accept=True)
            return left
        if key == "s":
            left.append(pending)
        else:
            _decide(on, [pending], left, accept=key == "a")
    return left


def _decide(on: Console, chosen: Sequence[Pending], left: list[Pending], *, accept: bool) -> None:
    for pending in chosen:
        try:
            accept_or_reject(on, [pending], accept=accept)
        except RecordingError as error:
            on.print(Text(clean(str(error)), style="red"), soft_wrap=True)
            left.append(pending)


def _ask_about(on: Console, pending: Pending, place: str) -> str:
    """Show one and return the key that decides: a, r, s, A or q."""
    _show(on, pending, place)
    while True:
        key = _key(on)
        if key == "d":
            print_lines(on, pending)
        elif key == "o":
            click.edit(filename=str(pending.file))
            _show(on, pending, place)
        elif key in _KEYS:
            return key


def _show(on: Console, pending: Pending, place: str) -> None:
    on.print()
    on.rule(style="dim")
    on.print(Text.assemble((f" {shown(pending.path)}", "bold"), (f"  {place}", "dim")), soft_wrap=True)
    try:
        found = pending.changes()
    except RecordingError as error:
        print_paragraph(on, Text(clean(str(error)), style="red"))
        return
    new = "new: " if pending.is_new else ""
    print_paragraph(on, Text(new + clean(found.headline)))
    on.print()
    print_changes(on, found)


def _key(on: Console) -> str:
    """Print what can be typed and wait for one key, without Enter."""
    on.print()
    line = Text(" ")
    for key, what in _KEYS.items():
        line.append_text(Text.assemble((key, "bold cyan"), (f" {what}  ", "dim")))
    on.print(line)
    while True:
        try:
            key = click.getchar()
        except (KeyboardInterrupt, EOFError):
            return "q"
        if key in _KEYS:
            return key
        if key in {"\x03", "\x04", "\x1b", ""}:
            return "q"
