"""A workflow that a test kills in the middle: run as `python durable_flow.py STORE LOG [kill]`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from oao_harness import GraphExecutor, TaskGraph, TaskNode

log = Path(sys.argv[2])
kills = len(sys.argv) > 3


def note(text: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


def plain(task: str) -> str:
    note(task.partition("\n")[0])
    return "done"


def deadly(task: str) -> str:
    note("deadly begins")
    if kills:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def items(task: str) -> list[int]:
    note("items")
    return [0, 1, 2]


def each(task: int) -> int:
    note(f"item {task}")
    return task * 10


graph = TaskGraph(
    [
        TaskNode("first", plain, "first"),
        TaskNode("items", items),
        TaskNode("each", each, over="items"),
        TaskNode("deadly", deadly, "deadly", {"first", "each"}),
        TaskNode("last", plain, "last", {"deadly"}),
    ]
)

if __name__ == "__main__":
    results = GraphExecutor(graph, store=f"sqlite:{sys.argv[1]}", workflow_id="flow").execute("topic")
    print(*(f"{name}={report.status}" for name, report in results.items()), results["each"].final_output)
