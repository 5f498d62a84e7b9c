"""docs/changes/: fragments that towncrier takes, one change in a user's words each."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.console_pages import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
TYPES = [one["directory"] for one in SETTINGS["type"]]
FRAGMENTS = sorted(path for path in (ROOT / SETTINGS["directory"]).iterdir() if not path.name.startswith("."))
# The number of an issue, or + and a word where there is none.
NAME = re.compile(rf"(\d+|\+[a-z0-9-]+)\.({'|'.join(TYPES)})(\.\d+)?\.md")


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_one(path: Path) -> None:
    """Its name says what kind of change it is; its text is sentences, without a heading or a list."""
    assert NAME.fullmatch(path.name), f"{path.name}: name it NUMBER.TYPE.md or +WORD.TYPE.md, TYPE one of {TYPES}"
    text = path.read_text(encoding="utf-8")
    assert text.strip().endswith(".")
    assert not re.search(r"^(#|- |\* )", text, re.MULTILINE)


def test_the_types_are_those_that_people_are_told() -> None:
    """In CONTRIBUTING.md."""
    told = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert TYPES == ["feature", "change", "fix", "security", "removal"]
    assert [one for one in TYPES if f"`{one}`" not in told] == []


def test_the_changelog_has_the_place_where_notes_go() -> None:
    """Once."""
    text = (ROOT / SETTINGS["filename"]).read_text(encoding="utf-8")
    assert text.count(SETTINGS["start_string"]) == 1
