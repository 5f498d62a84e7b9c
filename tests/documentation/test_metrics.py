"""docs/reference/metrics.md: its program runs, and its table is what is exposed."""

from __future__ import annotations

import re
from pathlib import Path

from oao_harness.listeners.metrics_labels import MOST
from oao_harness.listeners.metrics_table import FAMILIES, LIMITS
from tests.console_pages import executed, play

PAGE = executed("reference/metrics.md")


def test_the_program_prints_what_the_page_shows(tmp_path: Path) -> None:
    """Word for word."""
    assert play("reference/metrics.md", tmp_path) == 1


def test_the_table_is_what_is_exposed() -> None:
    """Every metric with its type, labels and meaning, and no other; tests/listeners shows that these are exposed."""
    rows = [tuple(cell.strip() for cell in row.split("|")[1:-1]) for row in re.findall(r"^\| `oao_.*\|$", PAGE, re.M)]
    assert rows == [
        (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.meaning) for one in FAMILIES
    ]


def test_the_page_names_no_metric_that_is_not_there() -> None:
    """But those of which it says that they are no more."""
    known = {one.name for one in FAMILIES} | {"oao_failures_total", "oao_job_requeued_total", "oao_approvals_"}
    assert set(re.findall(r"\boao_(?!harness|alerts)[a-z_]+", PAGE)) <= known


def test_the_limits_and_the_bound_are_said() -> None:
    """As they are in the code."""
    assert all(f"`{limit}`" in PAGE for limit, _ in LIMITS)
    assert f"The first {MOST} agents" in PAGE
