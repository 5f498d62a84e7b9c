"""Every block of docs/how-to/debug.md, in order, in one folder (`console`)."""

from __future__ import annotations

from pathlib import Path

from tests.console_pages import executed
from tests.terminal_pages import environment, follow


def test_the_session_is_what_the_page_shows(tmp_path: Path) -> None:
    """Failed, found, mended, forked, and kept as a test: word for word but for ids and times."""
    folder = tmp_path / "trips"
    folder.mkdir()

    assert follow(executed("how-to/debug.md"), folder, environment(tmp_path / "bin")) == 10
