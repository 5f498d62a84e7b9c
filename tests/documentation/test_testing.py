"""Every block of docs/how-to/testing.md, in order, in one folder: files, edits, and sessions with what they print."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests import forked
from tests.console_pages import ROOT, executed

TEXT = executed("how-to/testing.md")


def masked(line: str) -> str:
    """Days differ from run to run."""
    return re.sub(r"\d{4}-\d\d-\d\d", "DAY", line).rstrip()


def appear_in_order(expected: list[str], output: list[str]) -> str | None:
    """Return the first expected line that is missing; `...` stands for any lines, and within a line for anything."""
    rest = [masked(line) for line in output]
    gap = False
    for line in map(masked, expected):
        if line == "...":
            gap = True
            continue
        pattern = line.replace("[", "[[]").replace("...", "*")
        found = next((i for i, one in enumerate(rest) if fnmatchcase(one, pattern)), None)
        if found is None or (found and not gap and line):
            return line
        rest, gap = rest[found + 1 :], False
    return None


def test_the_page_is_what_happens(tmp_path: Path) -> None:
    """Recorded, replayed, changed, reviewed, accepted, measured: as the page shows it."""
    pytest.importorskip("genai_prices", reason="the page shows costs (extra prices)")
    pytest.importorskip("time_machine", reason="the page shows a prompt with the time in it")
    blocks = re.findall(r"^```(\w+)(?: (file|edit)=(\S+))?\n(.*?)^```$", TEXT, re.S | re.M)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")]),
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "-p pytest_oao.plugin -p no:cacheprovider",
    }
    sessions = 0
    for language, what, file, body in blocks:
        if what == "file":
            (tmp_path / file).write_text(body, encoding="utf-8")
        elif what == "edit":
            before, after = body.strip().split(" -> ")
            path = tmp_path / file
            assert before in path.read_text(encoding="utf-8")
            path.write_text(path.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
        elif language == "console":
            command, *expected = body.splitlines()
            program, *arguments = shlex.split(command.removeprefix("$ "))
            module = {"pytest": "pytest", "oao": "oao_harness"}[program]
            done = forked.run([module, *arguments], cwd=tmp_path, env=env, frameworks=True)
            sessions += 1
            missing = appear_in_order(["...", *expected], done.stdout.splitlines())
            assert missing is None, f"{command}\nmissing: {missing}\n{done.stdout}{done.stderr}"
    assert sessions == 8
    last = forked.run(["pytest", "--oao-policy=strict", "-q", "test_property.py"], cwd=tmp_path, env=env)
    assert "1 passed" in last.stdout, last.stdout
    if importlib.util.find_spec("openai") is None:
        return
    for mode in ("once", "none"):
        words = ["pytest", f"--oao-record={mode}", "-q", "test_server.py"]
        served = forked.run(words, cwd=tmp_path, env=env, frameworks=True)
        assert "1 passed" in served.stdout, served.stdout
