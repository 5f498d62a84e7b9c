"""2,000 tests that have nothing to do with agents, with the pytest plugin and without."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import plain_tests
from benchmarks.contending import Contender, Figure, Goal, Row
from benchmarks.timing import Measure

HERE = "benchmarks.rows.plain"
BARE, AGAIN, IDLE, STRICT, RECORD = plain_tests.WAYS


def row() -> Row:
    return Row(
        id="plain-tests",
        title="2,000 plain tests",
        how="One pytest session of 2,000 tests that do nothing, in a process of its own: all of its processor time. "
        "The second bare line shows what of a ratio is noise.",
        figures=(Figure(key="cpu_s", unit="s", digits=2),),
        contenders=tuple(
            Contender(name=way, make=f"{HERE}:session", options={"way": way}, packages=("pytest",))
            for way in (BARE, AGAIN, IDLE, STRICT)
        ),
        goals=(Goal(says="the idle plugin costs under 1 %", contender=IDLE, at_most=1.01, than=(BARE,)),),
        rounds=7,
    )


def session(*, way: str) -> Measure:
    folder = Path(tempfile.mkdtemp(prefix="oao-bench-"))
    plain_tests.write_tests(folder)
    return lambda: {"cpu_s": plain_tests.seconds(folder, plain_tests.WAYS[way])}
