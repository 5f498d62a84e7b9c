"""The rows of the table, one module each: its `row()` returns what is measured."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.contending import Row
from benchmarks.rows import (
    agent,
    call,
    concurrent,
    fleet,
    graphs,
    imports,
    observed,
    plain,
    policy,
    recordings,
    replay,
    run,
)

ROWS: tuple[Callable[[], Row], ...] = (
    run.row,
    call.row,
    agent.row,
    observed.row,
    concurrent.row,
    graphs.row,
    fleet.row,
    fleet.takeover,
    replay.row,
    replay.thousand,
    recordings.row,
    recordings.thousand,
    plain.row,
    imports.row,
    policy.row,
)
"""In the order of the table."""


def all_rows() -> dict[str, Row]:
    """Return the rows by id."""
    return {row.id: row for row in (make() for make in ROWS)}
