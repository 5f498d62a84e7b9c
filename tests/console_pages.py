"""Plays the console sessions that a page of docs/ shows: every block, in order, in one folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "executed", "play"]

ROOT = Path(__file__).parent.parent


def _masked(text: str) -> str:
    """Ids, hashes and times differ from run to run, and with them how wide a column is."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "ID", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "ID", text)
    text = re.sub(r"\b\d\d:\d\d:\d\d\b", "TIME", text)
    text = re.sub(r"\b\d[\d.]* (us|ms|s|min)( \d+ s)?( ago)?\b|\bnow\b", "TIME", text)
    text = re.sub(r"\b\d+\.\d{3}\b|━+", "TIME", text)
    text = re.sub(r"\bworker \d+\b", "worker PID", text)
    # In JSON: times, and with what it was written.
    text = re.sub(r'"(at|clock|\w+_at|\w+_s|timestamp|started)": ("[^"]*"|[\d.e-]+)', r'"\1": TIME', text)
    text = re.sub(r'"(oao|oao-harness|python|langchain-core|langgraph)": "[^"]*"', r'"\1": "VERSION"', text)
    text = re.sub(r"[A-Za-z0-9+/]{86}==|ed25519:[A-Za-z0-9+/]{43}=|sha256:[0-9a-f]{64}|oao_ID_\w+", "KEY", text)
    text = re.sub(r"\b([0-9a-f]{4}-){3}[0-9a-f]{4}\b|\b[0-9a-f]{12}\b", "ID", text)
    return re.sub(r" +", " ", text)


def executed(page: str) -> str:
    """Return the text of a page whose blocks the calling module plays in a way of its own.

    Which test plays which page is read from the calls of `play` and of this: tests/documentation/test_every_page.py.

    Args:
        page: Name of a file in docs/.
    """
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def play(page: str, folder: Path) -> int:
    """Write the files of a page, run its commands, and compare what they print; return how many commands there were.

    Args:
        page: Name of a file in docs/.
        folder: Empty.
    """
    blocks = re.findall(r"^```(\w+)(?: file=(\S+))?(?: \w+)?\n(.*?)^```$", executed(page), re.S | re.M)
    python = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    env = {**os.environ, "PYTHONPATH": python, "NO_COLOR": "1", "COLUMNS": "100"}
    sessions = 0
    for language, file, body in blocks:
        if file:
            (folder / file).write_text(body, encoding="utf-8")
            continue
        if language in {"json", "text"}:
            continue
        assert language in {"console", "shell"}, body
        command, _, expected = body.partition("\n")
        program = ["-m", "oao_harness"] if language == "console" else []
        words = command.removeprefix("$ oao ") if program else command.removeprefix("$ python ")
        done = subprocess.run(
            [sys.executable, *program, *shlex.split(words)],
            cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        sessions += 1
        assert _masked(done.stdout + done.stderr) == _masked(expected), command
    return sessions
