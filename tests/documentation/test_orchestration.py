"""Every block of docs/how-to/orchestration.md, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.console_pages import ROOT, executed

PAGE = executed("how-to/orchestration.md")


_REMOTE = """
import asyncio
from oao_harness import Agents, Fleet, FleetNodes, GraphExecutor, TaskGraph, TaskNode
{remote}

async def main():
    agents = Agents.of({{"searcher": lambda task: task.upper()}})
    fleet, stop = Fleet("local:", "sqlite:.oao/fleet.db", agents), asyncio.Event()
    worker = asyncio.create_task(fleet.work(stop=stop))
    results = await write(fleet)
    stop.set()
    await worker
    await fleet.close()
    print(results["left"].final_output, results["right"].final_output)

asyncio.run(main())
"""


def run(folder: Path, *command: str) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")]), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    """Its files run, its command prints what it shows, and its snippets resume and fork."""
    blocks = re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", PAGE, re.S | re.M)
    files = {file: body for _, file, body in blocks if file}
    for file, body in files.items():
        (tmp_path / file).write_text(body, encoding="utf-8")
    told = "researcher SUCCESS three facts about bridges\ncritic FAILED ValueError: I have seen nothing yet\n"
    assert run(tmp_path, "team.py") == told
    assert run(tmp_path, "discussion.py") == "researcher SUCCESS\ncritic SUCCESS\n"
    assert run(tmp_path, "article.py") == ""
    (session,) = [body for language, _, body in blocks if language == "console"]
    command, _, shown = session.partition("\n")
    assert run(tmp_path, "-m", "oao_harness", *command.removeprefix("$ oao ").split()) == shown
    snippet, remote = [body for language, file, body in blocks if language == "python" and not file]
    (tmp_path / ".oao").mkdir()
    program = f"from flow import book\nfrom oao_harness import GraphExecutor\n{snippet}"
    ends = 'print(executor.fork(results={"outline": ["risks"]})["chapters"].final_output)'
    assert run(tmp_path, "-c", f"{program}\n{ends}") == "['All about risks.']\n"
    assert run(tmp_path, "-c", _REMOTE.format(remote=remote)) == "BEES ANTS\n"
    for line in re.findall(r"`oao (fork last[^`]*)`", PAGE.replace("\n", " ")):
        assert "SUCCESS" in run(tmp_path, "-m", "oao_harness", *line.replace("'", "").split(), "flow:book")
    assert "shorten" in run(tmp_path, "-m", "oao_harness", "graph", "show", "last", "flow:book", "--mermaid")
