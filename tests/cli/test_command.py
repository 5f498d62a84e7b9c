"""The group `oao` as a program: help, version, exit codes, colours."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from oao_harness.cli.app import COMMANDS, main

if TYPE_CHECKING:
    from tests.cli.conftest import Oao

ROOT = Path(__file__).parents[2]


def python(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a user would."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    full = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **env}
    command = [sys.executable, *args]
    return subprocess.run(command, cwd=cwd, env=full, capture_output=True, encoding="utf-8", timeout=60, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(oao: Oao, name: str) -> None:
    """The summary in the list is the command's own, and its help shows how it is used."""
    command = main.get_command(click.Context(main), name)

    assert command is not None
    assert command.short_help == COMMANDS[name]
    shown = oao(name, "--help").stdout
    examples = shown.split("\n  Examples:\n")[1].split("\n\n")[0].splitlines()
    assert examples
    assert all(line.startswith(f"    oao {name}") for line in examples)
    assert max(map(len, shown.splitlines())) <= 80


def test_the_list_of_commands_is_complete(oao: Oao) -> None:
    """`oao --help` names every command."""
    shown = oao("--help").stdout

    assert all(f"\n  {name} " in shown and summary in shown for name, summary in COMMANDS.items())


def test_the_version_is_the_distributions(oao: Oao) -> None:
    """`oao --version` is one line."""
    assert oao("--version").stdout == f"oao {version('oao-harness')}\n"


def test_an_unknown_command_suggests_a_near_one(oao: Oao) -> None:
    """A typing error in the command is answered with the nearest one; exit code 2."""
    result = oao("shw")

    assert result.exit_code == 2
    assert result.stderr == "error: there is no command 'shw'; did you mean 'show'?\n"
    assert f"known: {', '.join(sorted(COMMANDS))}" in oao("qqqq").stderr


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """`oao --help` answers at once: neither pydantic nor rich nor the machine is imported for it."""
    code = (
        "import sys\n"
        "from oao_harness.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted({'pydantic', 'rich', 'asyncio', 'oao_harness.runtime'} & set(sys.modules)))\n"
    )

    assert python("-c", code, cwd=tmp_path).stdout.endswith("\n[]\n")


def test_it_runs_as_a_module_and_its_exit_codes_reach_the_shell(tmp_path: Path) -> None:
    """`python -m oao_harness` is `oao`: 0 for a success, 1 for a failed run, 2 for a mistake."""
    (tmp_path / "mine.py").write_text("def good(task): return task\ndef bad(task): raise ValueError(task)\n")

    good = python("-m", "oao_harness", "run", "mine:good", "x", cwd=tmp_path)
    bad = python("-m", "oao_harness", "run", "mine:bad", "x", "--json", cwd=tmp_path)
    wrong = python("-m", "oao_harness", "run", "mine:ugly", "x", cwd=tmp_path)

    assert (good.returncode, bad.returncode, wrong.returncode) == (0, 1, 2)
    assert wrong.stderr == "error: 'mine:ugly': 'mine' has no 'ugly'; it has good, bad\n"


def test_colours_are_used_only_where_they_are_wanted(tmp_path: Path) -> None:
    """A pipe gets plain text; FORCE_COLOR colours it, without a spinner; NO_COLOR takes the colours away again."""
    (tmp_path / "mine.py").write_text("def good(task): return task\n")
    command = ("-m", "oao_harness", "run", "mine:good", "x")

    plain = python(*command, cwd=tmp_path)
    forced = python(*command, cwd=tmp_path, FORCE_COLOR="1", TERM="xterm-256color")
    refused = python(*command, cwd=tmp_path, FORCE_COLOR="1", NO_COLOR="1", TERM="xterm-256color")

    assert "\x1b" not in plain.stdout
    assert "\x1b[32m✔ SUCCESS" in forced.stdout
    assert "\x1b[2K" not in forced.stdout
    assert "\x1b[32m" not in refused.stdout


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    """Where the encoding has no check mark, a plain one is printed and nothing breaks."""
    (tmp_path / "mine.py").write_text("def good(task): return 'grüße'\n", encoding="utf-8")

    result = python("-m", "oao_harness", "run", "mine:good", "x", cwd=tmp_path, PYTHONIOENCODING="ascii")

    assert result.returncode == 0
    assert "+ SUCCESS" in result.stdout
    assert "gr\\xfc\\xdfe" in result.stdout
