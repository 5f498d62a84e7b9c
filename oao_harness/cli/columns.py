"""Tables without lines, that fit the console: the one way in which commands print columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

__all__ = ["GAP", "Column", "print_columns", "widths_of"]

GAP: Final = 2
"""Blanks between two columns."""
_LEAST: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table without lines."""

    title: str
    right: bool = False
    """Numbers stand to the right."""
    shrinks: bool = False
    """The one column that gives way where the console is too narrow."""
    keeps_end: bool = False
    """What does not fit is cut off at its beginning, for names that begin alike."""
    wraps: bool = False
    """What does not fit into it goes on in the next line, for what must be read whole."""
    optional: bool = False
    """Left out where the console is too narrow even so, the last such column first."""


def print_columns(
    on: Console, columns: Sequence[Column], rows: Sequence[Sequence[Text] | Text], *, under: int = 0
) -> None:
    """Print rows under their titles; a row that is a single text stands on a line of its own.

    Args:
        on: Where to.
        columns: From left to right.
        rows: Cells; where a row has fewer than there are columns, its last one has the rest of the line, and more
            lines where that is too short. Columns in which no row has anything are left out.
        under: Index of the column at which a single text begins.
    """
    widths = widths_of(columns, rows)
    used = list(widths)
    excess = sum(widths.values()) + GAP * (len(used) - 1) + 1 - on.width
    for i in used:
        if columns[i].shrinks and excess > 0:
            shrunk = min(widths[i], max(_LEAST, widths[i] - excess))
            excess -= widths[i] - shrunk
            widths[i] = shrunk
    for i in [i for i in reversed(used) if columns[i].optional]:
        if excess > 0:
            excess -= widths[i] + GAP
            used.remove(i)
    titles = [Text(column.title, style="dim") for column in columns]
    indent = " " * (1 + sum(widths[i] + GAP for i in used if i < under))
    for row in [titles, *rows] if used else rows:
        if isinstance(row, Text):
            lines = [Text(indent) + row]
        elif len(row) < len(columns):
            before = [i for i in used if i < len(row) - 1]
            gap = 1 + sum(widths[i] + GAP for i in before)
            start = _joined(row, before, widths, columns)
            first, *rest = row[-1].wrap(on, max(_LEAST, on.width - gap)) or [Text()]
            first.rstrip()
            lines = [start + " " * (gap - start.cell_len) + first, *(Text(" " * gap) + line for line in rest)]
        else:
            lines = [_joined(one, used, widths, columns) for one in _wrapped(on, row, used, widths, columns)]
        for line in lines:
            on.print(line, no_wrap=True, overflow="ellipsis", crop=True)


def widths_of(columns: Sequence[Column], rows: Sequence[Sequence[Text] | Text]) -> dict[int, int]:
    """Return how wide each column would like to be; those that are empty are not in it."""
    widths: dict[int, int] = {}
    for row in rows:
        if not isinstance(row, Text):
            for i, cell in enumerate(row[: None if len(row) == len(columns) else -1]):
                if cell.cell_len:
                    widths[i] = max(widths.get(i, len(columns[i].title)), cell.cell_len)
    return dict(sorted(widths.items()))


def _wrapped(
    on: Console, row: Sequence[Text], used: Sequence[int], widths: Mapping[int, int], columns: Sequence[Column]
) -> Sequence[Sequence[Text]]:
    """Return a row as the lines it takes: more than one where a cell that wraps is too long."""
    parts = {i: list(row[i].wrap(on, widths[i])) for i in used if columns[i].wraps and row[i].cell_len > widths[i]}
    for lines in parts.values():
        for line in lines:
            line.rstrip()
    height = max((len(lines) for lines in parts.values()), default=1)
    found: list[list[Text]] = []
    for n in range(height):
        cells = [cell if n == 0 else Text() for cell in row]
        for i, lines in parts.items():
            cells[i] = lines[n] if n < len(lines) else Text()
        found.append(cells)
    return found


def _joined(row: Sequence[Text], used: Sequence[int], widths: Mapping[int, int], columns: Sequence[Column]) -> Text:
    line = Text(" ")
    for position, i in enumerate(used):
        cell = row[i].copy()
        if columns[i].keeps_end and cell.cell_len > widths[i]:
            cell = Text("…" + _ending(cell.plain, widths[i] - 1), style=cell.style)
        cell.truncate(widths[i], overflow="ellipsis")
        room = " " * (widths[i] - cell.cell_len)
        line.append(" " * GAP if position else "")
        line.append_text(Text(room) + cell if columns[i].right else cell + room)
    line.rstrip()
    return line


def _ending(text: str, room: int) -> str:
    """Return as much of the end of a text as has room, in cells."""
    while text and cell_len(text) > room:
        text = text[1:]
    return text
