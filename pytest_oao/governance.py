"""What the policies did over a test session: the decisions of each call, and how much of a policy file was used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from oao_harness.policy.coverage import coverage_of
from oao_harness.policy.file import FilePolicy
from oao_hookspecs import Json, Record
from pytest_oao.summary import held_calls

__all__ = ["coverage_rows", "decision_lines", "write_coverage", "write_decisions"]


def decision_lines(tape: Sequence[tuple[str, Record]]) -> list[str]:
    """Return one line for each call: verdict, rule, file and line, plugin, reason. Calls still held come last.

    Args:
        tape: `(run name, record)` in the order they were written.
    """
    lines: list[str] = []
    for run, record in tape:
        if record["type"] != "call":
            continue
        decision = cast("Mapping[str, Any]", record["decision"])
        approved = ", approved" if record.get("approvals") else ""
        would = f", would {decision['would']}" if decision.get("would") else ""
        where = f" ({decision['source']})" if decision.get("source") else ""
        reason = f": {decision['reason']}" if decision.get("reason") else ""
        what = f"{record['n']!s:>3} {record['kind']} {record['name']}"
        inside = "" if run == "main" else f" in {run}"
        verdict = f"{decision['verdict']}{approved}{would} {decision['rule']}{where}"
        lines.append(f"{what}{inside}  {verdict} by {decision['plugin']}{reason}")
    for run, record in held_calls(tape):
        where = f" ({record['source']})" if record.get("source") else ""
        inside = "" if run == "main" else f" in {run}"
        lines.append(f"    {record['kind']} {record['tool']}{inside}  held {record['rule']}{where}: {record['reason']}")
    return lines


def coverage_rows(policies: Iterable[object], tape: Sequence[tuple[str, Record]]) -> list[dict[str, Json]]:
    """Return what the runs of a test exercised of each policy file, as JSON."""
    found = [policy for policy in policies if isinstance(policy, FilePolicy)]
    if not found:
        return []
    journals: dict[str, list[Record]] = {}
    for run, record in tape:
        journals.setdefault(run, []).append(record)
    return [{"policy": policy.source.name, **coverage_of(policy, journals.values()).to_json()} for policy in found]


def write_decisions(terminal: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print who decided what about each call of each test, for `--oao-explain`."""
    terminal.section("oao decisions")
    for row in rows:
        terminal.write_line(row["nodeid"], bold=True)
        for line in row["decisions"]:
            terminal.write_line(f"  {line}", red="  deny " in line or "  held " in line)


def write_coverage(terminal: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print one line for each policy file: how many of its rules had something to say, and which never had."""
    rules: dict[str, dict[tuple[str, str, str], int]] = {}
    unruled: dict[str, set[str]] = {}
    for row in rows:
        for one in row["coverage"]:
            counted = rules.setdefault(one["policy"], {})
            unruled.setdefault(one["policy"], set()).update(one["unruled"])
            for rule in one["rules"]:
                key = (rule["kind"], rule["name"], rule["source"])
                counted[key] = counted.get(key, 0) + rule["matched"]
    for policy, counted in rules.items():
        never = [f"{name} ({source.rpartition(':')[2]})" for (_, name, source), times in counted.items() if not times]
        line = f"{policy}: {len(counted) - len(never)} of {len(counted)} rules matched"
        if never:
            more = f" and {len(never) - 5} more" if len(never) > 5 else ""
            line += f"; never (line): {', '.join(never[:5])}{more}"
        if unruled[policy]:
            line += f"; no rule over: {', '.join(sorted(unruled[policy]))}"
        terminal.write_line(line)
