"""What listeners cost: a run and a governed call, bare and with each listener, interleaved in one process.

CPU time, the median of the rounds; ratios are firm, microseconds are this machine's.

    python benchmarks/listeners.py            a table
    python benchmarks/listeners.py --json     for the record
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

import oao_harness as oao
from oao_harness.listeners.metrics import Metrics
from oao_harness.stores.observed import ObservedStore
from oao_hookspecs import hookimpl

ROUNDS = 9
RUNS = 60
CALLS = 1000


@oao.tool
def add(a: int, b: int) -> int:
    return a + b


@oao.model(name="model-x")
def ask(prompt: str) -> dict[str, object]:
    return {"content": "done", "usage": {"input_tokens": 10, "output_tokens": 5}}


def nothing(task: str) -> str:
    return task


def tools(task: str) -> None:
    for number in range(CALLS):
        add(number, 1)


def models(task: str) -> None:
    for _ in range(CALLS):
        ask("x")


def bare() -> oao.Orchestrator:
    return oao.Orchestrator(store=oao.MemoryStore())


def unobserved() -> oao.Orchestrator:
    return oao.Orchestrator(store=ObservedStore(oao.MemoryStore()))


class Silent:
    """Hears what `Metrics` hears, and does nothing: what telling alone costs."""

    @hookimpl
    def oao_run_started(self, event: object, run: object) -> None: ...

    @hookimpl
    def oao_run_finished(self, event: object, run: object) -> None: ...

    @hookimpl
    def oao_call_decided(self, event: object, run: object) -> None: ...

    @hookimpl
    def oao_call_finished(self, event: object, run: object) -> None: ...


def told() -> oao.Orchestrator:
    return oao.Orchestrator(store=oao.MemoryStore(), plugins=[Silent()])


def counted() -> oao.Orchestrator:
    return oao.Orchestrator(store=oao.MemoryStore(), plugins=[Metrics()])


def counted_with_journal() -> oao.Orchestrator:
    metrics = Metrics()
    return oao.Orchestrator(store=ObservedStore(oao.MemoryStore(), metrics.appended), plugins=[metrics])


VARIANTS: dict[str, Callable[[], oao.Orchestrator]] = {
    "bare": bare,
    "bare again": bare,
    "observed store": unobserved,
    "silent listener": told,
    "metrics": counted,
    "metrics and journal": counted_with_journal,
    # Further listeners, such as traces, are measured here beside them.
}
"""`bare again` shows what of a difference is noise."""
TASKS: dict[str, tuple[Callable[[str], object], int, int]] = {
    "run": (nothing, RUNS, 1),
    "tool call": (tools, 1, CALLS),
    "model call": (models, 1, CALLS),
}
"""The agent, how often it is run in a round, and how many calls each run makes."""


def cost_us(make: Callable[[], oao.Orchestrator], agent: Callable[[str], object], runs: int, calls: int) -> float:
    orchestrator = make()
    orchestrator.run(agent, "warm")
    began = time.process_time()
    for _ in range(runs):
        orchestrator.run(agent, "x")
    return (time.process_time() - began) / (runs * calls) * 1e6


def measured() -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {task: {name: [] for name in VARIANTS} for task in TASKS}
    for number in range(ROUNDS + 1):
        for task, (agent, runs, calls) in TASKS.items():
            names: Sequence[str] = list(VARIANTS)
            for name in names if number % 2 else names[::-1]:
                took = cost_us(VARIANTS[name], agent, runs, calls)
                if number:
                    found[task][name].append(took)
    return found


def main() -> None:
    found = measured()
    medians = {task: {name: statistics.median(took) for name, took in row.items()} for task, row in found.items()}
    if "--json" in sys.argv:
        machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "rounds": ROUNDS}
        print(json.dumps({**machine, "cpu_us": medians}, indent=2))
        return
    table = Table("", *(f"{task}, us" for task in TASKS), title="CPU time, median; in brackets the ratio to bare")
    for name in VARIANTS:
        cells = [f"{row[name]:.1f} ({row[name] / row['bare']:.2f})" for row in medians.values()]
        table.add_row(name, *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
