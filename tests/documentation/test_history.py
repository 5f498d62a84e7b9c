"""Every block of docs/how-to/history.md, in order, in one folder."""

from __future__ import annotations

from pathlib import Path

from tests.console_pages import play


def test_the_session_is_what_the_page_shows(tmp_path: Path) -> None:
    """Word for word but for ids, hashes and times; and what was redacted is in no file any more."""
    assert play("how-to/history.md", tmp_path) == 12
    assert b"ann@example.com" not in b"".join(path.read_bytes() for path in (tmp_path / ".oao").iterdir())
