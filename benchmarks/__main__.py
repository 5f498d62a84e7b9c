"""Measures every row of the table beside its peers, prints it, and keeps the record.

python -m benchmarks                      all rows; writes benchmarks/results.json and docs/benchmarks.md
python -m benchmarks run call             some rows
python -m benchmarks --quick              few short rounds: does it work? Nothing is written
python -m benchmarks run --save           some rows, into the record beside the others
python -m benchmarks call --json FILE     the record of what was measured, elsewhere; `-` for the standard output
python -m benchmarks --render             only docs/benchmarks.md anew, from the record
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import record
from benchmarks.contending import Row
from benchmarks.measuring import QUICK, Settings, measure, rounds_of
from benchmarks.rendering import page, tables
from benchmarks.rows import all_rows

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
PAGE = FOLDER.parent / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    known = all_rows()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures the rows of the table.", epilog=f"rows: {', '.join(known)}"
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="only these rows")
    parser.add_argument("--all", action="store_true", help="also rows that take minutes")
    parser.add_argument("--quick", action="store_true", help="few short rounds, to see that it works")
    parser.add_argument("--rounds", type=int, help="rounds of each row")
    parser.add_argument(
        "--wait", type=float, default=Settings().wait_s, help="seconds a row may wait for a quiet machine"
    )
    parser.add_argument("--save", action="store_true", help="write results.json and the page also after some rows only")
    parser.add_argument("--json", metavar="FILE", help="write the record of these rows there, and nothing else")
    parser.add_argument("--render", action="store_true", help="only write the page anew, from results.json")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.rows if name not in known]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    if asked.render:
        PAGE.write_text(page(record.read(RESULTS)), encoding="utf-8")
        return
    settings = QUICK if asked.quick else dataclasses.replace(Settings(), wait_s=asked.wait)
    rows = [row for name, row in known.items() if name in asked.rows]
    rows = rows or [row for row in known.values() if asked.all or not row.takes_minutes]
    if asked.rounds:
        rows = [dataclasses.replace(row, rounds=asked.rounds) for row in rows]
    made = measured(rows, settings)
    if asked.json:
        text = record.text_of(made)
        sys.stdout.write(text) if asked.json == "-" else Path(asked.json).write_text(text, encoding="utf-8")
    elif asked.save or not (asked.rows or asked.quick):
        record.write(RESULTS, made, list(known))
        PAGE.write_text(page(record.read(RESULTS)), encoding="utf-8")


def measured(rows: Sequence[Row], settings: Settings) -> dict[str, Any]:
    """Measure rows one after the other, show each as soon as it is there, and return the record of them."""
    made = record.begun(settings.quick)
    # Progress and tables are for people: the standard output is the record's where that was asked for.
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 130)
    columns = (
        TextColumn("{task.fields[row]}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )  # fmt: skip
    steps = sum(rounds_of(row, settings) * len(row.contenders) for row in rows)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=steps, row="", now="")
        for row in rows:

            def tell(now: str, row: Row = row) -> None:
                progress.update(task, row=row.id, now=now)
                progress.advance(task)

            record.add(made, measure(row, settings, tell))
            console.print(tables(made["rows"][-1]))
    return made


if __name__ == "__main__":
    main()
