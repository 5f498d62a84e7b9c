"""Every block of docs/tutorial.md, in order, in one folder: `bash` and `console`, and what is printed then."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.console_pages import ROOT, executed
from tests.terminal_pages import environment, follow

PAGE = executed("tutorial.md")


def test_the_tutorial_goes_as_it_is_printed(tmp_path: Path) -> None:
    """Recorded, replayed, changed twice, denied, approved, looked at: word for word but for ids and times."""
    pytest.importorskip("langchain_openai", reason="the agent of the page needs langchain and langchain-openai")
    pytest.importorskip("genai_prices", reason="the page shows costs (extra prices)")
    pytest.importorskip("cel", reason="the policy of the page has a condition (extra policy)")
    folder = tmp_path / "desk"
    folder.mkdir()

    assert follow(PAGE, folder, environment(tmp_path / "bin")) == 16


def test_what_the_tutorial_installs_is_there() -> None:
    """Its extras exist, and they are those that the page needs: conditions, prices and pytest."""
    (line,) = re.findall(r'^pip install "\.\./oao\[(.*)\]"', PAGE, re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

    assert set(line.split(",")) <= set(extras)
