"""`docs/how-to/policy.md`: every block is loaded, run or executed, every key described."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from oao_harness import ConfigError, FilePolicy
from oao_harness.policy import schema
from oao_harness.policy.facts import CALL_FIELDS, RUN_FIELDS
from tests.console_pages import ROOT, executed

TEXT = executed("how-to/policy.md")
BLOCKS = [
    (TEXT[: found.start()].count("\n") + 1, found[1], found[2] or "", bool(found[3]), found[4])
    for found in re.finditer(r"^```(\w+)(?: file=(\S+))?( fails)?\n(.*?)^```$", TEXT, re.S | re.M)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    for _, _, file, _, code in BLOCKS:
        if file:
            (tmp_path / file).write_text(code, encoding="utf-8")
    return tmp_path


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=60,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("block", [b for b in BLOCKS if b[1] == "toml"], ids=lambda block: f"line {block[0]}")
def test_policies_load(block: tuple[int, str, str, bool, str]) -> None:
    """Each by itself; the one that shows a mistake is refused."""
    if block[3]:
        with pytest.raises(ConfigError):
            FilePolicy.from_text(block[4])
    else:
        assert FilePolicy.from_text(block[4]).rules.items


@pytest.mark.parametrize("block", [b for b in BLOCKS if b[1] == "python"], ids=lambda block: f"line {block[0]}")
def test_python_runs(block: tuple[int, str, str, bool, str], folder: Path) -> None:
    """Copied into a file and run, warnings as errors."""
    (folder / "snippet.py").write_text(block[4], encoding="utf-8")
    done = run(["-W", "error", "snippet.py"], folder)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [b for b in BLOCKS if b[1] == "console"], ids=lambda block: f"line {block[0]}")
def test_commands_say_what_the_page_says(block: tuple[int, str, str, bool, str], folder: Path) -> None:
    """Word for word; the line that installs names an extra that exists."""
    command, _, expected = block[4].partition("\n")
    if command.startswith("$ pip install"):
        extra = re.search(r"\[(\w+)\]", command)
        assert extra is not None
        assert f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        return
    assert command.startswith("$ oao ")
    done = run(["-m", "oao_harness", *command.removeprefix("$ oao ").split()], folder)

    assert done.stdout + done.stderr == expected


def test_every_key_is_described() -> None:
    """A key, or a field of a condition's variables, that the page does not name is a red test."""
    tables = [found for found in vars(schema).values() if isinstance(found, type) and issubclass(found, BaseModel)]
    keys = {field.alias or name for table in tables for name, field in table.model_fields.items()}
    tables_of_the_file = {"limits", "tools", "tool", "rule", "lists", "sequence", "label", "role", "approvals"}

    for key in keys | set(RUN_FIELDS) | set(CALL_FIELDS):
        shown = f"[{key}" if key in tables_of_the_file else key
        assert re.search(rf"`[^`\n]*{re.escape(shown)}\b[^`\n]*`", TEXT), key
