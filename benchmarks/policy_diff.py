"""How many recorded calls `oao policy diff` judges in a second, on one core: both policies and the counting together.

Run: `python benchmarks/policy_diff.py [FOLDER...]`; without folders made-up runs are judged. Files are read, and calls
are frozen for the policies, before the clock starts; what that costs is a column of its own. Five rounds, the median;
seconds of the processor, so that other processes of the machine count less.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from oao_harness import FilePolicy
from oao_harness.importing.forms import UnknownFormError, import_runs
from oao_harness.journal.histories import HistoricCall, History, histories_of_recording
from oao_harness.policy.diff import JudgedRun, PolicyDiff
from oao_harness.runtime.preparing import prepare
from oao_harness.runtime.rejudging import Rejudge
from oao_hookspecs import ModelCall, Outcome, ToolCall, Usage

ROUNDS = 5
GUARD = Path(__file__).parent / "agentdojo" / "policies" / "write-guard.toml"
LISTS = '[tools]\ndeny = ["delete_*", "send_money"]\nask = ["update_*"]\n'
LIMITS = LISTS + "[limits]\nmax_tool_calls = 10\nmax_steps = 40\n"
SEQUENCES = LIMITS + '[[sequence]]\nname = "quiet"\nafter = ["read_*", "get_webpage"]\nnever = ["send_*"]\n'
PAIRS: Sequence[tuple[str, object, object]] = (
    ("off, strict", "off", "strict"),
    ("standard, strict", "standard", "strict"),
    ("lists, lists and limits", LISTS, LIMITS),
    ("lists and limits, with a sequence", LIMITS, SEQUENCES),
    ("write-guard (CEL, regular expressions, values), off", GUARD, "off"),
    ("write-guard, write-guard", GUARD, GUARD),
)


def made_up(runs: int = 500, turns: int = 6) -> list[History]:
    found: list[History] = []
    for n in range(runs):
        history = History(name=f"run-{n}", agent="agent", task="Pay the rent of 100 to GB29.")
        talk: list[dict[str, str]] = [{"role": "user", "content": "Pay the rent of 100 to GB29."}]
        for turn in range(turns):
            calls = [
                (ModelCall(name="m", messages=list(talk)), Outcome(value="x", usage=Usage(input_tokens=99))),
                (ToolCall(name=f"get_{turn % 4}", arguments={"id": str(turn), "n": turn}), Outcome(value="some text")),
            ]
            for call, outcome in calls:
                history.calls.append(HistoricCall(call=call, agent="agent", place=f"#{turn}", outcome=outcome))
                index = len(history.calls) - 1
                history.moments += [("begin", index), ("end", index)]
            talk += [{"role": "assistant", "content": "call"}, {"role": "tool", "content": "some text"}]
        found.append(history)
    return found


def read(folders: Sequence[str]) -> list[History]:
    found: list[History] = []
    for file in sorted(path for folder in folders for path in Path(folder).rglob("*.json")):
        try:
            runs = import_runs(file)
        except UnknownFormError:
            continue
        for run in runs:
            found += histories_of_recording(run.recording, f"{file.name}:{run.name}")
    return found


def policy_of(given: object) -> Rejudge:
    if isinstance(given, str) and "\n" in given:
        return Rejudge([FilePolicy.from_text(given)])
    return Rejudge([str(given)])


def reference() -> float:
    """Return nanoseconds for one turn of a plain loop: what this machine does with Python now."""
    found: list[float] = []
    for _ in range(ROUNDS):
        began, total = time.process_time(), 0
        for n in range(1_000_000):
            total += n & 3
        found.append((time.process_time() - began) * 1e3)
    return statistics.median(found)


def main() -> None:
    histories = read(sys.argv[1:]) if len(sys.argv) > 1 else made_up()
    calls = sum(len(history.calls) for history in histories)
    load = f"load of the machine {os.getloadavg()[0]:.1f}, one turn of a plain loop {reference():.0f} ns"
    title = f"{len(histories)} runs, {calls:,} calls; {load}"
    table = Table("policies", "prepare, us", "judge, us", "calls a second", "slowest", "fastest", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, before, after in PAIRS:
        judges = [policy_of(before), policy_of(after)]
        began = time.process_time()
        prepared = [prepare(history, judges) for history in histories]
        preparing = time.process_time() - began
        gc.collect()
        gc.freeze()
        rounds: list[float] = []
        for _ in range(ROUNDS):
            diff = PolicyDiff("before", "after")
            began = time.process_time()
            for one in prepared:
                history = one.history
                first, second = judges[0].judge(one, 0), judges[1].judge(one, 1)
                diff.add(
                    JudgedRun(name=history.name, agent=history.agent, calls=history.calls, before=first, after=second)
                )
            rounds.append(time.process_time() - began)
        gc.unfreeze()
        median = statistics.median(rounds)
        speeds = [f"{calls / seconds:,.0f}" for seconds in (median, max(rounds), min(rounds))]
        table.add_row(name, f"{preparing / calls * 1e6:.1f}", f"{median / calls * 1e6:.1f}", *speeds)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
