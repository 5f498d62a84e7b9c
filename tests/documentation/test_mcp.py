"""docs/how-to/mcp.md: its agent runs, its client talks to the proxy, and its table names every option."""

from __future__ import annotations

import re
from pathlib import Path

from oao_harness.cli.mcp_proxy import command
from tests.console_pages import executed, play

PAGE = executed("how-to/mcp.md")


def test_the_page_shows_what_happens(tmp_path: Path) -> None:
    """Word for word, but for ids and times."""
    assert play("how-to/mcp.md", tmp_path) == 3


def test_every_option_is_named() -> None:
    """And no other."""
    options = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    table = PAGE.partition("| option |")[2].partition("\n\n")[0]

    assert set(re.findall(r"`(--[a-z-]+)`", table)) == options - {"--host", "--port"} | {"--host", "--port"}
