"""Every block of docs/how-to/fleet.md, in order, in one folder."""

from __future__ import annotations

from pathlib import Path

from tests.console_pages import play


def test_the_session_is_what_the_page_shows(tmp_path: Path) -> None:
    """Submitted, listed, done by a worker, tried again: word for word but for ids and times."""
    assert play("how-to/fleet.md", tmp_path) == 8
