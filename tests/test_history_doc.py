"""Every block of docs/history.md, in order, in one folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")


def masked(text: str) -> str:
    """Ids, hashes and times differ from run to run, and with them how wide a column is."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "ID", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "ID", text)
    text = re.sub(r"\b\d\d:\d\d:\d\d\b", "TIME", text)
    text = re.sub(r"\b\d[\d.]* (us|ms|s|min)( \d+ s)?( ago)?\b|\bnow\b", "TIME", text)
    text = re.sub(r"\b\d+\.\d{3}\b|━+", "TIME", text)
    return re.sub(r" +", " ", text)


def test_the_session_is_what_the_page_shows(tmp_path: Path) -> None:
    """Word for word but for ids, hashes and times."""
    blocks = re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", TEXT, re.S | re.M)
    python = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    env = {**os.environ, "PYTHONPATH": python, "NO_COLOR": "1", "COLUMNS": "100"}
    sessions = 0
    for language, file, body in blocks:
        if file:
            (tmp_path / file).write_text(body, encoding="utf-8")
            continue
        assert language == "console"
        command, _, expected = body.partition("\n")
        done = subprocess.run(
            [sys.executable, "-m", "oao_harness", *shlex.split(command.removeprefix("$ oao "))],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        sessions += 1
        assert masked(done.stdout + done.stderr) == masked(expected), command
    assert sessions == 12
    assert b"ann@example.com" not in b"".join(path.read_bytes() for path in (tmp_path / ".oao").iterdir())
