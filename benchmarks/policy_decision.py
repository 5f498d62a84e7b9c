"""What one decision of a policy file costs, beside bare CEL and Cedar in the same process.

Run: `python benchmarks/policy_decision.py`. Each number is the best of seven rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cedarpy
import cel
from rich.console import Console
from rich.table import Table

from oao_harness import FilePolicy
from oao_harness.runtime.clock import SystemClock
from oao_harness.runtime.dispatch import Hooks
from oao_harness.runtime.run import Run
from oao_hookspecs import Principal, ToolCall

RULE = '[[rule]]\nname = "r{i}"\ntools = ["{tool}"]\nwhen = "args.amount > {i}000000"\nthen = "deny"\n'
CALL = ToolCall(name="pay", arguments={"amount": 5, "to": "GB29"}, id="1")
ROUNDS, TIMES = 7, 3000


def microseconds(once: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(TIMES):
            once()
        best = min(best, (time.perf_counter() - started) / TIMES)
    return best * 1e6


def policy_of(text: str) -> Callable[[], object]:
    policy = FilePolicy.from_text(text)
    run = Run(
        execution_id="r", agent_name="bank", task="pay GB29", hooks=Hooks({}, 5.0), clock=SystemClock(),
        principal=Principal(id="ann", roles=("teller",)),
    )  # fmt: skip
    return lambda: policy.oao_decide_tool_call(CALL, run)


def rules(count: int, tool: str = "pay") -> str:
    return "".join(RULE.format(i=i, tool=tool.format(i=i)) for i in range(1, count + 1))


def cedar(count: int) -> Callable[[], object]:
    forbids = "".join(
        f'forbid(principal, action, resource == Tool::"pay") when {{ context.amount > {i}000000 }};'
        for i in range(1, count + 1)
    )
    policies: Any = cedarpy.PolicySet.from_str(f"permit(principal, action, resource);{forbids}")
    entities: Any = cedarpy.Entities.from_json_str("[]")
    request = {
        "principal": {"type": "User", "id": "ann"}, "action": {"type": "Action", "id": "call_tool"},
        "resource": {"type": "Tool", "id": "pay"}, "context": {"amount": 5},
    }  # fmt: skip
    return lambda: cedarpy.is_authorized(request, policies, entities)


def main() -> None:
    program, values = cel.compile("args.amount > 1000000"), {"args": {"amount": 5, "to": "GB29"}}
    lists = '[tools]\nallow = ["pay", "get_*"]\n'
    sequence = '[[sequence]]\nname = "s"\nafter = ["read"]\nnever = ["pay"]\n'
    source = '[[rule]]\nname = "v"\ntools = ["pay"]\nvalues_from = { to = ["task"] }\n'
    cases: list[tuple[str, Callable[[], object]]] = [
        ("bare CEL, one condition", lambda: program.execute(values)),
        ("allow list", policy_of(lists)),
        ("one sequence rule", policy_of(sequence)),
        ("one values_from", policy_of(source)),
        ("1 condition", policy_of(rules(1))),
        ("10 conditions", policy_of(rules(10))),
        ("100 conditions", policy_of(rules(100))),
        ("1 condition beside 100 rules of other tools", policy_of(rules(1) + rules(100, "t{i}").replace('"r', '"o'))),
        ("cedarpy, 1 forbid", cedar(1)),
        ("cedarpy, 10 forbids", cedar(10)),
        ("cedarpy, 100 forbids", cedar(100)),
    ]
    measured = [(name, microseconds(once)) for name, once in cases]
    base = measured[0][1]
    table = Table("decision", "us", "x bare CEL", title=f"one decision, best of {ROUNDS} rounds of {TIMES}")
    table.columns[1].justify = table.columns[2].justify = "right"
    for name, cost in measured:
        table.add_row(name, f"{cost:.1f}", f"{cost / base:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
