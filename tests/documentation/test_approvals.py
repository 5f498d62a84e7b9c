"""Every block of docs/how-to/approvals.md, in order, in one folder."""

from __future__ import annotations

from pathlib import Path

from tests.console_pages import play


def test_the_session_is_what_the_page_shows(tmp_path: Path) -> None:
    """Run, refused, approved, resumed: word for word but for ids and times."""
    assert play("how-to/approvals.md", tmp_path) == 5
