"""docs/reference/frameworks.md: its agent runs as shown; its table has a row for every framework that oao governs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.console_pages import play
from tests.frameworks.table import BEGIN, COLUMNS, END, FRAMEWORKS, PAGE, versions

TABLE = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def test_the_page_shows_what_happens(tmp_path: Path) -> None:
    """Word for word."""
    pytest.importorskip("pydantic_ai")
    assert play("reference/frameworks.md", tmp_path) == 1


def test_every_framework_has_a_row() -> None:
    """With the version that its extra names, and no cell that no test filled."""
    rows = {cells[2].strip(" `"): cells for line in TABLE.splitlines() if len(cells := line.split("|")) > 5}

    assert {*FRAMEWORKS} <= {*rows}
    for extra, oldest in versions().items():
        assert rows[extra][3].strip() == oldest, extra
    assert not [extra for extra in FRAMEWORKS for cell in rows[extra][5:-1] if cell.strip() in {"", "?"}]


def test_every_hole_is_explained() -> None:
    """A note for each, and none that no cell points to."""
    notes = {int(number) for number in re.findall(r"^(\d+)\. \S", TABLE, re.MULTILINE)}

    assert {int(number) for number in re.findall(r"\[(\d+)\]", TABLE)} == notes
    assert len(COLUMNS) == TABLE.splitlines()[2].count("|") - 5
