"""`oao run NAME`: an agent that the project has registered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Oao = Callable[..., Result]
Write = Callable[[str, str], Path]

SHOP = """
import os, pathlib
def support(task):
    if task == "die" and not pathlib.Path("dead").exists():
        pathlib.Path("dead").touch()
        os._exit(9)
    return f"done {task}"
"""
PROJECT = """
[tool.oao]
policy = 'off'
[tool.oao.agents.desk]
agent = 'by_name_shop:support'
policy = 'observe'
"""


def test_a_registered_agent_is_run_by_its_name(oao: Oao, write: Write, folder: Path) -> None:
    """The policy that it is registered with holds, unless one is given; a word that is no name is refused as ever."""
    write("by_name_shop", SHOP)
    (folder / "pyproject.toml").write_text(PROJECT)
    done = oao("run", "desk", "x")
    assert done.exit_code == 0, done.output
    assert "done x" in done.output
    assert "policy  observe" in done.output
    assert "from    pyproject.toml:4" in done.output
    assert "policy  StrictPolicy" in oao("run", "desk", "x", "--policy", "strict").output

    refused = oao("run", "desks", "x")
    assert refused.exit_code == 2
    assert "'desks' is not of the form module:agent" in refused.output


def test_who_goes_on_finds_it_by_its_name(oao: Oao, write: Write, folder: Path) -> None:
    """The journal keeps the name, and `oao resume` looks it up again."""
    write("by_name_shop", SHOP)
    (folder / "pyproject.toml").write_text(PROJECT)
    command = [sys.executable, "-m", "oao_harness", "run", "desk", "die"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 9
    went_on = oao("resume", "last", "--json")
    assert went_on.exit_code == 0, went_on.output
    assert json.loads(went_on.stdout)["final_output"] == "done die"
