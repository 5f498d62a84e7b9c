"""The landing page: its command is that of the README, its program (`python`) runs, and its pages are there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.console_pages import ROOT, executed
from tests.terminal_pages import BLOCK, python_blocks, run_python

PAGE = executed("index.md")


def test_what_the_landing_page_shows_is_true(tmp_path: Path) -> None:
    """The program runs; the command is the one that the README has and the tests of the installation run."""
    (code,) = python_blocks(PAGE)
    run_python(code, tmp_path)
    (command,) = (body for language, _, _, body in BLOCK.findall(PAGE) if language == "bash")
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_how_to_page_is_in_a_group() -> None:
    """In the table that a reader sees, and in the toctree of the site."""
    index = executed("how-to/index.md")
    pages = {path.stem for path in (ROOT / "docs" / "how-to").glob("*.md")} - {"index"}
    assert set(re.findall(r"^\| \[[^]]+\]\((\w+)\.md\)", index, re.M)) == pages
    toctrees = "\n".join(re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.M | re.S))
    assert set(re.findall(r"^(\w+)$", toctrees, re.M)) == pages


def test_every_file_is_named_where_a_reader_sees_it() -> None:
    """What a fence says beside the language is shown nowhere: a line before the block has the name too."""
    pages = ["index.md", "tutorial.md", *(f"how-to/{path.name}" for path in (ROOT / "docs" / "how-to").glob("*.md"))]
    texts = {page: executed(page) for page in pages} | {"README.md": (ROOT / "README.md").read_text(encoding="utf-8")}
    for page, text in texts.items():
        for found in re.finditer(r"^```\w+ (?:file|edit)=(\S+)", text, re.M):
            before = text[: found.start()].rstrip().splitlines()[-3:]
            assert any(f"`{found[1]}`" in line for line in before), f"{page}: {found[1]}"
