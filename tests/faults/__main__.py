"""`python -m tests.faults [PART]`: do everything bad that a durable run must survive, and print the counts."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.faults.fleet import FLEET
from tests.faults.scenarios import SCENARIOS

CAPTION = "lost, doubled: effects; in doubt: calls that a person was asked about, in a fleet those made again"


def main() -> int:
    """Print the table; return 1 where something was lost, doubled or wrong."""
    table = Table("fault", "done", "runs", "calls", "lost", "doubled", "in doubt", "wrong", "s", caption=CAPTION)
    wanted = {name: one for name, one in (SCENARIOS | FLEET).items() if all(part in name for part in sys.argv[1:])}
    wrong: list[str] = []
    console = Console()
    for name, (scenario, faults) in track(wanted.items(), description="faults", console=console, transient=True):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            found = scenario(Path(folder), faults)
        counts = (found.faults, found.runs, found.calls, found.lost, found.doubled, found.in_doubt, len(found.wrong))
        table.add_row(name, *map(str, counts), f"{time.monotonic() - began:.0f}")
        wrong += [f"{name}: {what}" for what in found.wrong]
        wrong += [f"{name}: {found.lost} lost, {found.doubled} doubled"] if found.lost or found.doubled else []
    console.print(table)
    for line in wrong:
        console.print(f"[red]{line}[/red]")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
