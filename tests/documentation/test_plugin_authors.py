"""`docs/how-to/plugin_authors.md`: every Python block and command runs, every name is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import pytest_oao.testing as testing
from oao_harness.cli import main
from tests.console_pages import ROOT, executed

TEXT = executed("how-to/plugin_authors.md")
BLOCKS = [
    (TEXT[: found.start()].count("\n") + 1, found[1], found[2])
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", TEXT, re.S | re.M)
]


@pytest.mark.parametrize("block", [b for b in BLOCKS if b[1] == "python"], ids=lambda block: f"line {block[0]}")
def test_python_runs(block: tuple[int, str, str]) -> None:
    """Each by itself."""
    exec(compile(block[2], f"plugin_authors.md:{block[0]}", "exec"), {"__name__": "snippet"})


def test_the_command_that_writes_a_plugin_says_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word."""
    monkeypatch.chdir(tmp_path)
    command, _, expected = next(block[2] for block in BLOCKS if block[1] == "console").partition("\n")
    done = CliRunner().invoke(main, command.removeprefix("$ oao ").split(), prog_name="oao")
    assert done.output == expected


def test_the_conformance_command_tests_the_policy_of_the_page(tmp_path: Path) -> None:
    """The policy of the first block passes, in a process of its own."""
    code = next(block[2] for block in BLOCKS if "ThreeSearches" in block[2])
    (tmp_path / "my_policy.py").write_text(code, encoding="utf-8")
    command = next(block[2] for block in BLOCKS if "--pyargs" in block[2]).removeprefix("$ ").split()
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [sys.executable, "-m", *command, "-q", "-p", "pytest_oao.plugin"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_every_name_and_capability_of_the_page_is_there() -> None:
    """Suites and cases are public, and the table names all that a suite lets a plugin declare."""
    for name in re.findall(r"`(\w+(?:Conformance|Case)|AgentMachine)\b", TEXT):
        assert name in testing.__all__, name
    for kind in ("Store", "Scheduler", "Policy", "Listener"):
        row = re.search(rf"^\| {kind.lower()} \| (`[a-z].*) \|$", TEXT[TEXT.index("| suite | may") :], re.M)
        assert row is not None
        names = re.findall(r"`(\w+)`", row[1])
        assert tuple(names) == getattr(testing, f"{kind}Conformance").capabilities()


def test_every_kind_has_a_way_from_a_command_to_an_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of each row writes a package, the example is there, and the section too."""
    monkeypatch.chdir(tmp_path)
    rows = re.findall(
        r"^\| \[(\w+)\]\(#([\w-]+)\) \| `oao (plugins new \S+ --kind (\w+))` \| \[\w+\]\(([^)]+)\)", TEXT, re.M
    )
    assert {row[0] for row in rows} == {"policy", "listener", "store", "scheduler", "adapter"}
    for kind, section, command, named, example in rows:
        assert kind == named
        assert f"\n## {section.replace('-', ' ').capitalize()}\n" in TEXT
        done = CliRunner().invoke(main, command.split(), prog_name="oao")
        assert done.exit_code == 0, done.output
        assert (ROOT / "docs" / "how-to" / example).exists()
