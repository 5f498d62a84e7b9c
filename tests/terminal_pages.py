"""Plays a page of docs/ as a reader types it: files, edits of files, and commands with what they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests import forked
from tests.console_pages import ROOT, _masked

__all__ = ["BLOCK", "environment", "fits", "follow", "python_blocks", "run_python"]

BLOCK = re.compile(r"^```(\w+)(?: (file|edit)=(\S+))?\n(.*?)^```$", re.S | re.M)
_MODULES = {"oao": "oao_harness", "pytest": "pytest"}


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a reader who has installed oao: `oao`, `pytest` and `python` are in the path.

    Args:
        folder: Where the commands are put; it is made.
    """
    folder.mkdir(exist_ok=True)
    for name in ("python", *_MODULES):
        module = f"-m {_MODULES[name]} " if name in _MODULES else ""
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n', encoding="utf-8")
        (folder / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "-p pytest_oao.plugin -p no:cacheprovider",
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }


def fits(expected: str, actual: str) -> bool:
    """Compare; a line of `...` stands for any lines, `...` within a line for anything, and ids and times for others."""
    pattern = re.escape(_without_days(expected)).replace(r"\.\.\.", "...")
    pattern = re.sub(r"^\.\.\.\\\n", r"(?:[^\n]*\n)*?", pattern, flags=re.M).replace("...", r"[^\n]*")
    return re.fullmatch(pattern, _without_days(actual)) is not None


def follow(text: str, folder: Path, env: dict[str, str]) -> int:
    """Write and edit the files of a page and run its commands, in order; return how many commands there were.

    `bash` blocks with `export` set variables, and their other lines are not run: they install.

    Args:
        text: The page.
        folder: Empty.
        env: See `environment`; it is changed by what the page exports.
    """
    commands = 0
    for language, what, name, body in BLOCK.findall(text):
        if what == "file":
            (folder / name).write_text(body, encoding="utf-8")
        elif what == "edit":
            _edit(folder / name, body)
        elif language == "bash":
            env |= dict(re.findall(r"^export (\w+)=(\S+)", body, re.M))
        elif language in {"console", "shell"}:
            command, _, expected = body.removeprefix("$ ").partition("\n")
            actual = _run(shlex.split(command), folder, env)
            commands += 1
            assert fits(expected, actual), f"{command}\n{actual}"
        else:
            assert language == "text", body
    return commands


def python_blocks(text: str) -> list[str]:
    """Return the Python blocks of a page that are no files: each runs by itself."""
    return [body for language, what, _, body in BLOCK.findall(text) if language == "python" and not what]


def run_python(code: str, folder: Path) -> str:
    """Copy code into a file of an empty folder, run it with warnings as errors, and return what it prints."""
    (folder / "snippet.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "snippet.py"],
        cwd=folder, env=environment(folder / "bin"), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _without_days(text: str) -> str:
    text = re.sub(r"\d{4}-\d\d-\d\d(T[\d:+]+)?", "DAY", text)
    text = re.sub(r"\d+\.\d+s\b", "TIME", re.sub(r"=+ (.*?) =+$", r"= \1 =", text, flags=re.M))
    return "\n".join(line.rstrip() for line in _masked(text).split("\n"))


def _edit(path: Path, body: str) -> None:
    """Apply a `diff` block: the lines with `-` are there, one after the other, and those with `+` take their place."""
    lines = body.splitlines()
    before, after = ("".join(f"{line[1:]}\n" for line in lines if line[0] in signs) for signs in ("- ", "+ "))
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, before
    path.write_text(text.replace(before, after), encoding="utf-8")


def _run(words: list[str], folder: Path, env: dict[str, str]) -> str:
    if words[0] == "python":
        words = [words[1].removesuffix(".py"), *words[2:]]
    done = forked.run([_MODULES.get(words[0], words[0]), *words[1:]], cwd=folder, env=env, frameworks=True)
    return done.stdout + done.stderr
