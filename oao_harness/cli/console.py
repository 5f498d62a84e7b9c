"""Consoles, colours and safe text: how everything that the command line says looks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from oao_harness.wording.texts import clean, compact, one_line

__all__ = [
    "STATUS_STYLES",
    "clean",
    "compact",
    "console",
    "one_line",
    "print_error",
    "print_json",
    "print_paragraph",
    "status_text",
    "symbol",
]

STATUS_STYLES: Final[Mapping[str, str]] = {
    "SUCCESS": "green",
    "FAILED": "red",
    "RUNNING": "yellow",
    "SUSPENDED": "yellow",
    "QUEUED": "cyan",
    "DEAD": "bold red",
    "SKIPPED": "dim",
}

_MARKS: Final[Mapping[str, str]] = {
    "SUCCESS": "✔",
    "FAILED": "✘",
    "RUNNING": "●",
    "SUSPENDED": "◆",
    "QUEUED": "◌",
    "DEAD": "✝",
    "SKIPPED": "○",
}
_ASCII: Final[Mapping[str, str]] = {
    "✔": "+",
    "✘": "x",
    "●": "*",
    "◆": "?",
    "◌": "~",
    "✝": "!",
    "○": "o",
    "·": "-",
    "→": "->",
    "←": "<-",
    "…": "...",
    "└": "`",
    "━": "=",
}


def console(*, stderr: bool = False) -> Console:
    """Return a console on what standard output, or standard error, is now."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def print_error(message: str) -> None:
    """Print one red `error:` line, and whatever follows its first line as it is, on standard error."""
    first, _, rest = clean(message).partition("\n")
    err = console(stderr=True)
    err.print(Text.assemble(("error: ", "bold red"), first), soft_wrap=True)
    if rest:
        err.print(Text(rest, style="dim"), soft_wrap=True)


def print_paragraph(on: Console, what: str | Text, *, indent: int = 1) -> None:
    """Print text wrapped to the console, indented, without trailing blanks.

    Args:
        on: Where to; a line is only broken at the console's width.
        what: The text; its line breaks and leading blanks are kept.
        indent: Blanks before each line.
    """
    written = Text(what) if isinstance(what, str) else what
    for line in written.split("\n", allow_blank=True):
        inner = indent + len(line.plain) - len(line.plain.lstrip(" "))
        line.remove_suffix("\n")
        for part in line[inner - indent :].wrap(on, max(20, on.width - inner)) or [Text()]:
            part.rstrip()
            on.print(Text(" " * inner if part.plain else "") + part, soft_wrap=True)


def print_json(value: object, *, indent: int | None = None) -> None:
    """Print one JSON document on standard output, as UTF-8 whatever the terminal's encoding is."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    click.echo(text.encode("utf-8", "backslashreplace"))


def symbol(on: Console, mark: str) -> str:
    """Return a mark, or its plain form where the terminal has ASCII only."""
    return _ASCII.get(mark, mark) if on.options.ascii_only else mark


def status_text(on: Console, status: str) -> Text:
    """Return a status with its mark, in its colour."""
    mark = symbol(on, _MARKS.get(status, "●"))
    return Text(f"{mark} {clean(status)}", style=STATUS_STYLES.get(status, ""))
