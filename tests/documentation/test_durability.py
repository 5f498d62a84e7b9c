"""Every block of docs/how-to/durability.md, in order, in one folder."""

from __future__ import annotations

from pathlib import Path

from tests.console_pages import play


def test_the_session_is_what_the_page_shows(tmp_path: Path) -> None:
    """Killed, asked, resolved, resumed, forked: word for word but for ids and times; and paid once."""
    assert play("how-to/durability.md", tmp_path) == 7
    assert (tmp_path / "payments").read_text(encoding="utf-8") == "120\n"
