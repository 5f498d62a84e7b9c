"""Shows what is not released yet at the top of the changelog, as towncrier will write it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent.parent


def draft() -> str:
    """Return the fragments as one text; raise where towncrier finds something wrong with them."""
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "Unreleased", "--date", "DAY"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return done.stdout.replace("## Unreleased (DAY)", "## Unreleased", 1).strip() + "\n"


def add_draft(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the draft where towncrier will put it."""
    if docname == "changelog":
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
        start = settings["start_string"]
        app.env.note_reread()
        source[0] = source[0].replace(start, f"{start}\n{draft()}", 1)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it."""
    app.connect("source-read", add_draft)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
