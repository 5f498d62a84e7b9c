"""What the plugin costs tests that have no agent: 2,000 of them, with and without it.

Every round runs pytest once for each way, in processes of their own, in an order that turns; processor time of the
whole process and of what it starts, so that other work on the machine counts little. Median of all rounds, and the
median of each round's ratio to bare pytest. Run: `python -m benchmarks.plain_tests [rounds]`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

TESTS = 2_000
FILES = 20
ROUNDS = 7
MOST_S = 120
# Of what else is installed, only the plugin under test.
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
OURS = ("-p", "pytest_oao.plugin")
WAYS = {
    "bare pytest": (),
    "bare pytest again": (),
    "oao installed, idle": OURS,
    "--oao-policy=strict": (*OURS, "--oao-policy=strict"),
    "--oao-record=once": (*OURS, "--oao-record=once"),
}
BARE = next(iter(WAYS))


def write_tests(folder: Path) -> None:
    """Write the tests: they do nothing."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for file in range(FILES):
        tests = "\n\n".join(f"def test_{n}():\n    assert {n} + 1 == {n + 1}\n" for n in range(TESTS // FILES))
        (folder / f"test_plain_{file:02}.py").write_text(tests, encoding="utf-8")


def seconds(folder: Path, options: tuple[str, ...]) -> float:
    """Return the processor time of one pytest session, in seconds."""
    before = os.times()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | ALONE, capture_output=True, text=True, timeout=MOST_S, check=False
    )
    after = os.times()
    if f"{TESTS} passed" not in done.stdout:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        write_tests(Path(folder))
        for options in WAYS.values():
            seconds(Path(folder), options)  # so that byte code is there for all of them
        for turn in range(rounds):
            names = list(WAYS)
            shift = turn % len(names)
            for way in names[shift:] + names[:shift]:
                took[way].append(seconds(Path(folder), WAYS[way]))
    table = Table(f"{TESTS:,} plain tests", "processor time", "to bare pytest", "each test")
    bare = took[BARE]
    for way, times in took.items():
        ratio = median(one / other for one, other in zip(times, bare, strict=True))
        extra = (median(times) - median(bare)) / TESTS * 1e6
        table.add_row(way, f"{median(times):.3f} s", f"{(ratio - 1) * 100:+.1f} %", f"{extra:+.0f} us")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
