"""What contributors are told to run exists: files, folders, modules, groups of dependencies, tools."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from itertools import pairwise

import pytest

from tests.console_pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS = PROJECT["dependency-groups"]
TEXT = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"^```bash\n(.*?)^```$", TEXT, re.DOTALL | re.M) for line in block.splitlines()]
# What brings a command: the standard library, or a package of a group.
TOOLS = {"mypy": "lint", "pyright": "lint", "ruff": "lint", "sphinx-build": "docs", "towncrier": "docs"}
_OF_GROUP = {"sphinx-build": "sphinx"}


def commands() -> list[list[str]]:
    return [shlex.split(one) for line in LINES for one in line.split("&&")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_can_be_run(words: list[str]) -> None:
    """Its tool is in a group that is there, and so is all that it names."""
    tool, *rest = words
    if tool in {".", "pip", "python3"}:
        for group in [after for word, after in pairwise(rest) if word == "--group"]:
            assert group in GROUPS
        extras = PROJECT["project"]["optional-dependencies"]
        assert all(one in extras for word in rest for one in re.findall(r"\.\[(\w+)\]", word))
    elif tool == "python":
        if rest[0] == "-m":
            assert importlib.util.find_spec(rest[1]) is not None
        rest = rest[2:] if rest[0] == "-m" else rest
        assert [word for word in rest if "/" in word and not (ROOT / word).exists()] == []
    else:
        names = [re.split(r"[\[<>=]", one)[0] for one in GROUPS[TOOLS[tool]]]
        assert _OF_GROUP.get(tool, tool) in names


def test_every_group_and_script_that_is_named_exists() -> None:
    """Also in the sentences."""
    for path in re.findall(r"`((?:\.ci|tests|benchmarks|docs|hookspecs|oao_harness|runtime)/[\w./]*)`", TEXT):
        assert (ROOT / path).exists() or (ROOT / "oao_harness" / path).exists(), path
    assert len(LINES) > 8
