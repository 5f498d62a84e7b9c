"""What the terminal shows: the calls of a failed test, and a table of all tests in which an agent ran."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from oao_hookspecs import Json, Record
from pytest_oao.totals import totals_of

__all__ = ["held_calls", "money", "timeline", "write_findings", "write_summary"]

_MOST_ROWS: Final = 20
_MOST_MISSED: Final = 8


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
    sent: dict[tuple[str, Json], list[Record]] = {}
    for run, record in tape:
        if record["type"] == "http":
            sent.setdefault((run, record.get("parent")), []).append(record)
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
        lines += [f"    {_sent(one)}" for one in sent.pop((run, record["n"]), ())]
    lines += [_sent(one) for left in sent.values() for one in left]
    for _, record in held:
        name = str(record["tool"]).ljust(width)
        lines.append(f"    {record['kind']!s:<5} {name}  {'':>14}  HELD {record['rule']}")
    stopped = next((record for _, record in tape if record["type"] == "violation"), None)
    if stopped is not None and not any(cast("Any", record["decision"])["verdict"] == "deny" for _, record in calls):
        lines.append(f"stopped {'here' if calls else 'at the first call'}: {stopped['rule']}")
    return "\n".join(lines) or "no call was made"


def _sent(record: Record) -> str:
    request = cast("Mapping[str, Json]", record["req"])
    return f"    http  {request['method']} {request['url']}"


def held_calls(tape: Sequence[tuple[str, Record]]) -> list[tuple[str, Record]]:
    """Return `(run name, question)` of the calls that nobody let happen, nor refused.

    Args:
        tape: `(run name, record)` in the order they were written.
    """
    answered = {str(record["id"]) for _, record in tape if record["type"] == "approval.answered"}
    asked = [(run, record) for run, record in tape if record["type"] == "approval.requested"]
    return [(run, record) for run, record in asked if str(record["id"]) not in answered]


def write_summary(terminal: Any, rows: Sequence[Mapping[str, Any]], what: str = "auto") -> None:
    """Print the table.

    Args:
        terminal: pytest's terminal reporter.
        rows: From `report.row_of`, with `outcome`.
        what: `auto` shows failures, then the costliest; `all` every test; `slowest` the longest; `none` no table.
    """
    terminal.section("oao")
    if what != "none":
        _write_table(terminal, _ordered(rows, what), None if what == "all" else _MOST_ROWS)
    _write_totals(terminal, rows)


def _ordered(rows: Sequence[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
    if what == "slowest":
        return sorted(rows, key=lambda row: (-row["duration_s"], row["nodeid"]))
    return sorted(rows, key=lambda row: (row["outcome"] == "passed", -row["tokens"], row["nodeid"]))


def _write_table(terminal: Any, ordered: Sequence[Mapping[str, Any]], most: int | None) -> None:
    shown = ordered[:most]
    rule = max(14, *(len(row["policy"]) for row in shown))
    names = [_fit(row["nodeid"], max(30, terminal._tw.fullwidth - 46 - rule)) for row in shown]
    # Two tests of the same name are told apart by what is before it.
    names = [
        _end(row["nodeid"], len(name) + 20) if names.count(name) > 1 else name
        for name, row in zip(names, shown, strict=True)
    ]
    width = max(len("test"), *(len(name) for name in names))
    terminal.write_line(
        f"{'test'.ljust(width)}  {'steps':>5} {'tools':>5} {'tokens':>8} {'cost':>8}  {'policy':<{rule}} replay",
        bold=True,
    )
    for name, row in zip(names, shown, strict=True):
        terminal.write_line(
            f"{name.ljust(width)}  {row['steps']:>5} {row['tool_calls']:>5} {_tokens(row):>8} "
            f"{money(row['cost_usd']):>8}  {row['policy']:<{rule}} {_replay(row)}",
            **_colour(row),
        )
    if len(ordered) > len(shown):
        terminal.write_line(f"... and {len(ordered) - len(shown)} more; --oao-summary=all shows all")


def _replay(row: Mapping[str, Any]) -> str:
    replay = row["replay"]
    return f"diverged @{replay['step']}" if replay["status"] == "diverged" and replay["step"] else replay["status"]


def money(cost_usd: float | None) -> str:
    """Return US dollars as a person reads them; nothing where nobody knows."""
    if cost_usd is None:
        return ""
    return f"${cost_usd:.2f}" if cost_usd >= 1 or cost_usd == 0 else f"${cost_usd:.4f}"


def _write_totals(terminal: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    totals = totals_of(rows)
    replayed = [row for row in rows if row["replay"]["status"] == "ok"]
    parts = [f"{_many(totals['tests'], 'test')}, {_many(totals['steps'], 'step')}, {_sum_of_tokens(rows)} tokens"]
    if replayed:
        saved = f", {money(totals['saved_usd'])}" if totals["saved_usd"] else ""
        parts.append(f"saved by replay: {_sum_of_tokens(replayed)} tokens{saved}")
    if totals["live_usd"]:
        parts.append(f"live: {money(totals['live_usd'])}")
    if totals["recorded"]:
        parts.append(f"recorded: {totals['recorded']}")
    for name in ("violations", "divergences"):
        if totals[name]:
            parts.append(f"{totals[name]} {name if totals[name] > 1 else name[:-1]}")
    terminal.write_line(" | ".join(parts))
    _write_strength(terminal, rows)
    for what in dict.fromkeys(one for row in rows for one in row["uncovered"]):
        terminal.write_line(f"HTTP is not recorded nor played: {what}", yellow=True)
    for row in rows:
        changes = row["replay"]["changes"]
        if changes:
            terminal.write_line(f"{row['replay']['status']}: {row['nodeid']}: {changes}", yellow=True)
        for what in row["ungoverned"]:
            terminal.write_line(f"ungoverned in {row['nodeid']}: {what}", yellow=True)
        for waiver in row["waived"]:
            terminal.write_line(f"waived in {row['nodeid']}: {waiver['why']}", yellow=True)


def _write_strength(terminal: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    measured = [row for row in rows if row["strength"] is not None]
    if not measured:
        return
    caught = sum(row["strength"]["caught"] for row in measured)
    total = sum(row["strength"]["total"] for row in measured)
    terminal.write_line(f"strength: {caught} of {total} altered requests caught", green=caught == total)
    for row in measured:
        for missed in row["strength"]["missed"][:_MOST_MISSED]:
            terminal.write_line(f"  not caught in {row['nodeid']}: {missed}", yellow=True)
        left = len(row["strength"]["missed"]) - _MOST_MISSED
        if left > 0:
            terminal.write_line(f"  and {left} more; --oao-report holds all", yellow=True)


def write_findings(terminal: Any, findings: Mapping[str, Sequence[str]], max_age_days: int | None) -> None:
    """Print what was found about recordings beside the tests: without a test, waiting for a review, old."""
    advice = {
        "orphans": ("orphan", "no test plays it; oao prune"),
        "pending": ("pending recording", "oao review"),
        "old": (f"recording older than {max_age_days} days", "pytest --oao-record=all compares it with today"),
    }
    for name, (word, what) in advice.items():
        found = findings.get(name, ())
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            words = (
                word if len(found) == 1 else word.replace("recording", "recordings") if name != "orphans" else "orphans"
            )
            terminal.write_line(f"{len(found)} {words}: {', '.join(found[:3])}{more} ({what})", yellow=True)


def _many(number: int, word: str) -> str:
    return f"{number} {word if number == 1 else word + 's'}"


def _fit(nodeid: str, width: int) -> str:
    """Return the end of a node id; what it is cut to starts with a whole name where one fits."""
    if len(nodeid) <= width:
        return nodeid
    starts = [found.end() for found in re.finditer("/|::", nodeid)]
    whole = next((nodeid[at:] for at in starts if len(nodeid) - at <= width), "")
    return whole or _end(nodeid, width)


def _end(nodeid: str, width: int) -> str:
    return nodeid if len(nodeid) <= width else "..." + nodeid[-(width - 3) :]


def _tokens(row: Mapping[str, Any]) -> str:
    return f"{'~' if row['tokens_estimated'] else ''}{row['tokens']}"


def _sum_of_tokens(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the sum, marked as an estimate where any part of it is one."""
    mark = "~" if any(row["tokens_estimated"] for row in rows) else ""
    return f"{mark}{sum(row['tokens'] for row in rows)}"


def _colour(row: Mapping[str, Any]) -> dict[str, bool]:
    if row["outcome"] == "failed":
        return {"red": True}
    return {"green": True} if row["replay"]["status"] in {"ok", "same", "recorded"} else {}
