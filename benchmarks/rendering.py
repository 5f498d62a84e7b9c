"""Shows a record: as tables in a terminal, and as the page of the documentation. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Row = dict[str, Any]
MET = {True: "met", False: "missed", None: "not measured"}
INTRODUCTION = """\
# Benchmarks

What governance costs, beside the peers. `python -m benchmarks` measures all of it, where
`pip install -e ".[all]" --group bench` has installed the peers.

The contenders of a row are measured in turns, round by round; each number is the median of the rounds, with the least
and the greatest in brackets. The ratio is the median of each round's ratio to the first line. Ratios are firm; absolute
times are this machine's. The rules are those of `benchmarks/README.md`; this page is made of it, and of
[benchmarks/results.json](../benchmarks/results.json).
"""
README = Path(__file__).parent / "README.md"


def shown(value: float, digits: int) -> str:
    """Return a number for people: three digits and more where it is great, `digits` decimals where it is small."""
    return f"{value:,.{0 if abs(value) >= 1000 else digits}f}"


def cell(found: dict[str, Any] | None, digits: int) -> str:
    """Return a figure with its spread."""
    if found is None:
        return "-"
    middle, least, most = (shown(found[key], digits) for key in ("median", "min", "max"))
    return f"{middle} ({least}-{most})"


def ratio(value: float | None) -> str:
    """Return how many times the first line."""
    if value is None:
        return "-"
    return f"{value:.3f}" if 0.8 < value < 1.25 else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def lines(row: Row) -> Iterator[tuple[str, ...]]:
    """Yield the cells of the table of a row."""
    for one in row["contenders"]:
        figures = one.get("figures")
        if figures is None:
            why = one.get("missing") or f"failed: {one['error']}"
            yield (one["name"], why, *("" for _ in row["figures"]))
            continue
        cells = (cell(figures.get(figure["key"]), figure["digits"]) for figure in row["figures"])
        yield (one["name"], *cells, ratio(one["ratio"]))


def head(row: Row) -> tuple[str, ...]:
    """Return the head of that table."""
    beside = "ratio" if row["beside"] == row["contenders"][0]["name"] else f"x {row['beside']}"
    return (row["title"], *(figure["unit"] for figure in row["figures"]), beside)


def goal_value(row: Row, goal: dict[str, Any]) -> str:
    """Return what was found of a goal."""
    if goal["value"] is None:
        return "-"
    if goal["than"]:
        return f"{ratio(goal['value'])}x"
    return shown(goal["value"], 1)


def load(row: Row) -> str:
    """Return how busy the machine was."""
    found = row["load"]
    if not found["quiet_rounds"]:
        loads = f"load {found['before']:.1f} before, {found['most']:.1f} at most"
        return f"{row['rounds']} rounds, {loads}: never an idle core, so no number is firm"
    return (
        f"load {found['before']:.1f} before, {found['most']:.1f} at most; "
        f"{found['quiet_rounds']} of {row['rounds']} rounds began with an idle core"
    )


def tables(row: Row) -> RenderableType:
    """Return a row for a terminal."""
    table = Table(*head(row), caption=load(row), caption_justify="left", box=None, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for cells in lines(row):
        table.add_row(*cells)
    colours = {True: "green", False: "red", None: "yellow"}
    goals = [
        Text(f"  {MET[goal['met']]:>12}  {goal['says']}: {goal_value(row, goal)}", style=colours[goal["met"]])
        for goal in row["goals"]
    ]
    return Group("", table, *goals)


def page(record: dict[str, Any]) -> str:
    """Return docs/benchmarks.md."""
    at = record["machine"]
    machine = f"{at['cpu']}, {at['cores']} cores, {at['system']}, Python {at['python']}"
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parts = [INTRODUCTION, f"Measured on {record['date']}: {machine}.\n\nVersions: {versions}.\n"]
    parts.append("## Goals\n\n" + markdown(("what", "goal", "found", ""), goal_lines(record), texts=2))
    parts.append(chapter("Where the time goes, and what the limit is"))
    parts.extend(section(row) for row in record["rows"])
    parts.append(chapter("What is not alike"))
    return "\n".join(parts)


def chapter(heading: str) -> str:
    """Return a chapter of the README, which is written by hand."""
    _, _, after = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    text = after.partition("\n## ")[0]
    return f"## {heading}\n{text.rstrip()}\n"


def goal_lines(record: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield all goals of a record."""
    for row in record["rows"]:
        title = row["title"]
        for goal in row["goals"]:
            yield title, goal["says"], goal_value(row, goal), MET[goal["met"]]
            title = ""


def section(row: Row) -> str:
    """Return a row for the page."""
    text = f"## {row['title'][0].upper()}{row['title'][1:]}\n\n{row['how']}\n\n{markdown(head(row), lines(row))}"
    note = f"\n{row['note']}\n" if row["note"] else ""
    return f"{text}{note}\n{row['date']}, {load(row)}.\n"


def markdown(top: tuple[str, ...], body: Iterator[tuple[str, ...]], *, texts: int = 1) -> str:
    """Return a table whose first columns are texts."""
    rule = (*("---" for _ in top[:texts]), *("---:" for _ in top[texts:]))
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n" for cells in (top, rule, *body))
