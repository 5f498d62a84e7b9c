"""Blocks that belong to no session: settings that oao accepts, and commands with options that it has."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

import oao_harness
from oao_harness.cli import main
from oao_harness.config import find_project_redaction
from tests.console_pages import executed

BYPASSES = executed("explanation/bypasses.md")
UNMODIFIED = executed("how-to/unmodified.md")
PLUGINS = executed("how-to/plugins.md")
TESTING = executed("how-to/testing.md")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def parsed(line: str) -> click.Context:
    """Return how `oao` understands a command, without running it."""
    words = shlex.split(line.removeprefix("$ ").partition(" 2>")[0])
    assert words[0] == "oao"
    context = main.make_context("oao", words[1:])
    while isinstance(context.command, click.Group):
        name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(name, rest, parent=context)
    return context


def test_commands_are_understood() -> None:
    """Those of "console" and of "sh"."""
    lines = [line for block in blocks(UNMODIFIED, "console") for line in block.splitlines() if line.startswith("$ ")]
    lines += [block.replace("\\\n", " ") for block in blocks(PLUGINS, "sh")]
    assert len(lines) >= 2
    for line in lines:
        assert parsed(line).command.name in {"run", "verify"}, line


def test_a_command_with_an_unknown_option_is_not_understood() -> None:
    """The test above can fail."""
    with pytest.raises(click.ClickException):
        parsed("oao run --unmodifed agent.py")


def test_settings_are_accepted(tmp_path: Path) -> None:
    """Each block of "toml" that no session uses."""
    (redaction,) = blocks(TESTING, "toml")
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text(redaction, encoding="utf-8")
    found = find_project_redaction(tmp_path)
    assert found.patterns
    assert found.paths
    (plugin,) = blocks(PLUGINS, "toml")
    assert set(tomllib.loads(plugin)["project"]["entry-points"]) == {"oao"}


def test_pieces_of_python_run() -> None:
    """Each block of "python", with the names that the page is about."""
    pieces = blocks(BYPASSES, "python")
    assert pieces
    for piece in pieces:
        names = {"oao_harness": oao_harness, "StrictPolicy": oao_harness.StrictPolicy}
        exec(compile(piece, "bypasses.md", "exec"), names)
