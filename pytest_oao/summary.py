"""What the terminal shows: the calls of a failed test, and a table of all tests in which an agent ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from oao_hookspecs import Json, Record

__all__ = ["held_calls", "timeline", "write_summary"]

_MOST_ROWS: Final = 20
_COLUMNS: Final = ("steps", "tools", "tokens", "policy", "replay")


def timeline(tape: Sequence[tuple[str, Record]]) -> str:
    """Return the calls of a test, one line each: number, kind, name, tokens, decision.

    Args:
        tape: `(run name, record)` in the order they were written.

    Returns:
        The lines; the last one says what stopped the run, where no line of a call does.
    """
    tokens: dict[tuple[str, Json], str] = {}
    for run, record in tape:
        usage = record.get("usage")
        if record["type"] == "outcome" and isinstance(usage, Mapping):
            mark = "~" if usage.get("estimated") else ""
            tokens[run, record["n"]] = f"{mark}{usage['in']}+{usage['out']} tok"
    calls = [(run, record) for run, record in tape if record["type"] == "call"]
    held = held_calls(tape)
    names = [str(record["name"]) for _, record in calls] + [str(record["tool"]) for _, record in held]
    width = max(map(len, names), default=0)
    lines: list[str] = []
    for run, record in calls:
        decision = cast("Mapping[str, Json]", record["decision"])
        word = str(decision["verdict"])
        verdict = f"{word.upper() if word == 'deny' else word} {decision['rule']}"
        name = str(record["name"]).ljust(width)
        spent = tokens.get((run, record["n"]), "")
        lines.append(f"{record['n']!s:>3} {record['kind']!s:<5} {name}  {spent:>14}  {verdict}")
    for _, record in held:
        name = str(record["tool"]).ljust(width)
        lines.append(f"    {record['kind']!s:<5} {name}  {'':>14}  HELD {record['rule']}")
    stopped = next((record for _, record in tape if record["type"] == "violation"), None)
    if stopped is not None and not any(cast("Any", record["decision"])["verdict"] == "deny" for _, record in calls):
        lines.append(f"stopped {'here' if calls else 'at the first call'}: {stopped['rule']}")
    return "\n".join(lines) or "no call was made"


def held_calls(tape: Sequence[tuple[str, Record]]) -> list[tuple[str, Record]]:
    """Return `(run name, question)` of the calls that nobody let happen, nor refused.

    Args:
        tape: `(run name, record)` in the order they were written.
    """
    answered = {str(record["id"]) for _, record in tape if record["type"] == "approval.answered"}
    asked = [(run, record) for run, record in tape if record["type"] == "approval.requested"]
    return [(run, record) for run, record in asked if str(record["id"]) not in answered]


def write_summary(terminal: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table.

    Args:
        terminal: pytest's terminal reporter.
        rows: From `TestSession.row`, with `outcome`.
    """
    terminal.section("oao")
    ordered = sorted(rows, key=lambda row: (row["outcome"] == "passed", -row["tokens"], row["nodeid"]))
    shown = ordered[:_MOST_ROWS]
    rule = max(14, *(len(row["policy"]) for row in shown))
    names = [_fit(row["nodeid"], max(30, terminal._tw.fullwidth - 36 - rule)) for row in shown]
    width = max(len("test"), *(len(name) for name in names))
    terminal.write_line(
        f"{'test'.ljust(width)}  {'steps':>5} {'tools':>5} {'tokens':>8}  {'policy':<{rule}} replay", bold=True
    )
    for name, row in zip(names, shown, strict=True):
        terminal.write_line(
            f"{name.ljust(width)}  {row['steps']:>5} {row['tool_calls']:>5} {_tokens(row):>8}  "
            f"{row['policy']:<{rule}} {row['replay']}",
            **_colour(row),
        )
    if len(ordered) > len(shown):
        terminal.write_line(f"... and {len(ordered) - len(shown)} more")
    _write_totals(terminal, rows)


def _write_totals(terminal: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    tests = f"{len(rows)} {'test' if len(rows) == 1 else 'tests'}"
    replayed = [row for row in rows if row["replay"] == "ok"]
    steps = sum(row["steps"] for row in rows)
    parts = [f"{tests}, {steps} {'step' if steps == 1 else 'steps'}, {_sum_of_tokens(rows)} tokens"]
    if replayed:
        parts.append(f"saved by replay: {_sum_of_tokens(replayed)} tokens")
    if recorded := [row for row in rows if row["replay"] == "recorded"]:
        parts.append(f"recorded: {len(recorded)}")
    terminal.write_line(" | ".join(parts))
    for row in rows:
        for what in row["ungoverned"]:
            terminal.write_line(f"ungoverned in {row['nodeid']}: {what}", yellow=True)


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else "..." + text[-(width - 3) :]


def _tokens(row: Mapping[str, Any]) -> str:
    return f"{'~' if row['tokens_estimated'] else ''}{row['tokens']}"


def _sum_of_tokens(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the sum, marked as an estimate where any part of it is one."""
    mark = "~" if any(row["tokens_estimated"] for row in rows) else ""
    return f"{mark}{sum(row['tokens'] for row in rows)}"


def _colour(row: Mapping[str, Any]) -> dict[str, bool]:
    if row["outcome"] == "failed":
        return {"red": True}
    return {"green": True} if row["replay"] in {"ok", "recorded"} else {}
