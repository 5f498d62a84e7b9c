"""The examples run as a reader would run them, and show what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
SHOWS = {
    "multi_agent_review": [
        "facts  SUCCESS  facts checked against 3 earlier reviews of the draft",
        "style  FAILED   ValueError: cannot read the draft",
        "eager  FAILED   ",
        "mails that were sent: 0",
        "one budget over all: SUCCESS, SUCCESS, FAILED",
    ],
    "durable_dag": [
        "process 1: killed",
        "process 2: published 62 characters",
        "agents that ran: research, chapter ",
        ", edit, edit, publish",
        "finished nodes that ran twice: 0",
    ],
    "failure_prevention": [
        "runs away            FAILED  max_tool_calls: tool search: call 4, the limit is 3",
        "swallows the denial  FAILED  tools.deny: tool send_mail is denied",
        "spends               FAILED  max_tokens: model gpt-x:",
        "leaks                FAILED  secrets-stay: ",
        "mails that were sent: 0",
    ],
    "deterministic_replay": [
        "kill -9: ",
        "done after 3 kills: The Gate: 12 chapters",
        "published: 12 chapters, 0 of them twice",
        "paid for: 12 answers; cut off by a kill and asked again: ",
        "replayed offline: SUCCESS, 0 answers paid for",
    ],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_shows_what_it_says(name: str, tmp_path: Path) -> None:
    """In another folder, with warnings as errors; an example without a line here is not tested."""
    python = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py")]

    env = {**os.environ, "PYTHONPATH": python}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 0, done.stderr
    for line in SHOWS[name]:
        assert line in done.stdout
    assert not list(tmp_path.iterdir())
