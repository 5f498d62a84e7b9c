"""Every block of docs/how-to/fuzzing.md, in order, in one folder."""

from __future__ import annotations

import re
import shlex
import sys
from fnmatch import fnmatchcase

import pytest
from click.testing import CliRunner

import pytest_oao.session  # noqa: F401 - before pytester takes its picture of sys.modules
from oao_harness.cli import main
from pytest_oao.testing.fuzz import rules, saving, search  # noqa: F401 - as above
from tests.console_pages import ROOT, executed

TEXT = executed("how-to/fuzzing.md")


def is_said(expected: list[str], output: list[str]) -> str | None:
    """Return the first expected line that is missing; `...` stands for any lines, and within a line for anything."""
    rest, gap = [line.rstrip() for line in output], False
    for line in expected:
        if line == "...":
            gap = True
            continue
        pattern = line.rstrip().replace("[", "[[]").replace("...", "*")
        found = next((i for i, one in enumerate(rest) if fnmatchcase(one, pattern)), None)
        if found is None or (found and not gap):
            return line
        rest, gap = rest[found + 1 :], False
    return None


def test_the_page_is_what_happens(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found, saved, red, mended, green, searched again: as the page shows it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(sys, "path", [str(pytester.path), *sys.path])
    ran = 0
    for language, file, body in re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", TEXT, re.S | re.M):
        if file:
            (pytester.path / file).write_text(body, encoding="utf-8")
            continue
        assert language == "console"
        command, *expected = body.splitlines()
        if command.startswith("$ pip install"):
            for extra in re.findall(r"\w+", command.partition("[")[2].partition("]")[0]):
                assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
            continue
        program, *args = shlex.split(command.removeprefix("$ "))
        if program == "pytest":
            output = pytester.runpytest_inprocess("-p", "pytest_oao.plugin", "-p", "no:cacheprovider", *args).outlines
            output = [line.strip("= ") if re.match(r"=+ \d", line) else line for line in output]
        else:
            done = CliRunner(env={"COLUMNS": "120", "NO_COLOR": "1"}).invoke(main, args, prog_name="oao")
            output = done.output.splitlines()
        missing = is_said(expected, output)
        assert missing is None, f"{command}: {missing!r} is missing in:\n" + "\n".join(output)
        ran += 1
    assert ran == 5
