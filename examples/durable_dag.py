"""A graph of agents whose process is killed in the middle, and that goes on without repeating a finished node.

python examples/durable_dag.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from oao_harness import GraphExecutor, TaskGraph, TaskNode


def note(what: str) -> None:
    """Write down that an agent ran."""
    with Path("ran").open("a", encoding="utf-8") as ran:
        ran.write(f"{what}\n")


def research(task: str) -> list[str]:
    """Returns a list: what comes after it runs once for each item."""
    note("research")
    return ["history", "costs", "risks"]


def chapter(task: str) -> str:
    """Writes one chapter."""
    note(f"chapter {task}")
    return f"All about {task}."


def edit(task: str) -> str:
    """Dies the first time, as if somebody had pulled the plug."""
    note("edit")
    if not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), 9)
    return task.partition("Result of chapters:\n")[2]


def publish(text: str) -> str:
    """Has an effect that must not happen twice."""
    note("publish")
    return f"published {len(text)} characters"


graph = TaskGraph(
    [
        TaskNode("research", research),
        TaskNode("chapters", chapter, over="research"),
        TaskNode("edit", edit, "Make one text of it", {"chapters"}),
        TaskNode("publish", publish, lambda outputs: outputs["edit"], {"edit"}),
    ]
)


def main() -> None:
    """Start it, see it killed, start it again: the same id goes on."""
    if len(sys.argv) > 1:
        results = GraphExecutor(graph, store="sqlite:flow.db", workflow_id="book").execute("A book about bridges")
        print(results["publish"].final_output)
        return
    with tempfile.TemporaryDirectory() as folder:
        for number in (1, 2):
            command = [sys.executable, str(Path(__file__).resolve()), "walk"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            print(f"process {number}: {done.stdout.strip() if done.returncode == 0 else 'killed'}")
        ran = Path(folder, "ran").read_text(encoding="utf-8").splitlines()
    print(f"agents that ran: {', '.join(ran)}")
    print(f"finished nodes that ran twice: {sum(ran.count(name) > 1 for name in set(ran) - {'edit'})}")


if __name__ == "__main__":
    main()
