"""Every block of docs/how-to/unmodified.md, in order, in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.console_pages import play


def test_the_session_is_what_the_page_shows(tmp_path: Path) -> None:
    """The script runs as it is, and then is stopped by a policy."""
    pytest.importorskip("langchain_core", reason="the script of the page has tools of LangChain")
    assert play("how-to/unmodified.md", tmp_path) == 2
