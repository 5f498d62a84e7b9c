"""How a run looks: its head, its calls in columns, its end. Reads a `Timeline`, prints on a console."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from rich.console import Console
from rich.text import Text

from oao_harness.cli import preview
from oao_harness.cli.console import clean, compact, one_line, print_paragraph, status_text, symbol
from oao_harness.cli.timeline import Moment, Timeline, mapping, number, short_id, text, tokens_of
from oao_harness.cli.units import count, duration, plural
from oao_hookspecs import Json, Record

__all__ = ["VERDICT_STYLES", "Column", "print_columns", "print_run", "print_timeline", "print_verdict"]

_KIND_STYLES: Final[Mapping[str, str]] = {"model": "cyan", "tool": "magenta"}
VERDICT_STYLES: Final[Mapping[str, str]] = {"allow": "green", "modify": "yellow", "ask": "yellow", "deny": "bold red"}
_LIMITS: Final[Mapping[str, str]] = {
    "max_steps": "step",
    "max_model_calls": "model call",
    "max_tool_calls": "tool call",
    "max_tokens": "token",
}
_TOTALS: Final[Mapping[str, str]] = {
    "steps": "step",
    "model_calls": "model call",
    "tool_calls": "tool call",
    "tokens": "token",
}
_WOULD: Final[Mapping[str, str]] = {"deny": "denied", "ask": "held for approval"}
_GAP: Final = 2
_LEAST_NAME: Final = 12
# A timeline without details that is longer than this shows its first and last calls only.
_WHOLE: Final = 30
_EDGE: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table without lines."""

    title: str
    right: bool = False
    """Numbers stand to the right."""
    shrinks: bool = False
    """The one column that gives way where the console is too narrow."""
    wraps: bool = False
    """What does not fit into it goes on in the next line, for what must be read whole."""
    optional: bool = False
    """Left out where the console is too narrow even so."""


def print_columns(
    on: Console, columns: Sequence[Column], rows: Sequence[Sequence[Text] | Text], *, under: int = 0
) -> None:
    """Print rows under their titles; a row that is a single text stands on a line of its own.

    Args:
        on: Where to.
        columns: From left to right.
        rows: Cells, as many as there are columns; columns in which no row has anything are left out.
        under: Index of the column at which a single text begins.
    """
    tables = [row for row in rows if not isinstance(row, Text)]
    used = [i for i in range(len(columns)) if any(row[i].cell_len for row in tables)]
    widths = {i: max([len(columns[i].title), *(row[i].cell_len for row in tables)]) for i in used}
    excess = sum(widths.values()) + _GAP * (len(used) - 1) + 1 - on.width
    for i in used:
        if columns[i].shrinks and excess > 0:
            shrunk = min(widths[i], max(_LEAST_NAME, widths[i] - excess))
            excess -= widths[i] - shrunk
            widths[i] = shrunk
    for i in [i for i in used if columns[i].optional]:
        if excess > 0:
            excess -= widths[i] + _GAP
            used.remove(i)
    titles = [Text(column.title, style="dim") for column in columns]
    indent = " " * (1 + sum(widths[i] + _GAP for i in used if i < under))
    for row in [titles, *rows] if used else rows:
        lines = [row] if isinstance(row, Text) else _wrapped(on, row, used, widths, columns)
        for one in lines:
            line = Text(indent) + one if isinstance(one, Text) else _joined(one, used, widths, columns)
            on.print(line, no_wrap=True, overflow="ellipsis", crop=True)


def _wrapped(
    on: Console, row: Sequence[Text], used: Sequence[int], widths: Mapping[int, int], columns: Sequence[Column]
) -> Sequence[Sequence[Text]]:
    """Return a row as the lines it takes: more than one where a cell that wraps is too long."""
    parts = {i: list(row[i].wrap(on, widths[i])) for i in used if columns[i].wraps and row[i].cell_len > widths[i]}
    for lines in parts.values():
        for line in lines:
            line.rstrip()
    height = max((len(lines) for lines in parts.values()), default=1)
    found: list[list[Text]] = []
    for n in range(height):
        cells = [cell if n == 0 else Text() for cell in row]
        for i, lines in parts.items():
            cells[i] = lines[n] if n < len(lines) else Text()
        found.append(cells)
    return found


def _joined(row: Sequence[Text], used: Sequence[int], widths: Mapping[int, int], columns: Sequence[Column]) -> Text:
    line = Text(" ")
    for position, i in enumerate(used):
        cell = row[i].copy()
        cell.truncate(widths[i], overflow="ellipsis")
        room = " " * (widths[i] - cell.cell_len)
        line.append(" " * _GAP if position else "")
        line.append_text(Text(room) + cell if columns[i].right else cell + room)
    line.rstrip()
    return line


def print_run(on: Console, timeline: Timeline, *, details: bool, policy_from: str = "") -> None:
    """Print a whole run: head, timeline, verdict, output.

    Args:
        on: Where to.
        timeline: The run.
        details: True adds states, steps, and previews of what was asked and answered.
        policy_from: Where the policy is named, as `file:line`, where no option names it.
    """
    _print_head(on, timeline, policy_from)
    on.print()
    print_timeline(on, timeline, details=details)
    on.print()
    print_verdict(on, timeline)


def _print_head(on: Console, timeline: Timeline, policy_from: str) -> None:
    started = timeline.started
    on.print(Text(f" {one_line(text(started, 'agent'))}", style="bold"), no_wrap=True, overflow="ellipsis")
    for label, value in (
        ("run", text(started, "execution_id")),
        ("inside", text(started, "parent")),
        ("task", "" if started.get("task") is None else compact(started["task"])),
        ("policy", _policy(timeline.plan)),
        ("from", policy_from),
    ):
        if value:
            line = Text.assemble((f" {label:<8}", "dim"), one_line(value))
            on.print(line, no_wrap=True, overflow="ellipsis", crop=True)


def _policy(plan: Record) -> str:
    """Return the names of the policies, and what they allow to be spent together."""
    policies = plan.get("policy")
    described = policies if isinstance(policies, Sequence) and not isinstance(policies, str) else ()
    names = ", ".join(_policy_name(str(policy)) for policy in described)
    limits = mapping(plan, "limits")
    allowed = [
        plural(int(number(limits, key)), noun) for key, noun in _LIMITS.items() if isinstance(limits.get(key), int)
    ]
    if "max_cost_usd" in limits:
        allowed.append(f"{number(limits, 'max_cost_usd'):g} USD")
    if "timeout_s" in limits:
        allowed.append(duration(number(limits, "timeout_s")))
    return ": ".join(part for part in (names, f"at most {', '.join(allowed)}" if allowed else "") if part)


def _policy_name(described: str) -> str:
    """Return how a person calls a policy: its class, or the file it was read from."""
    found = re.match(r"FilePolicy\('([^']*)'", described)
    return found[1] if found else described.partition("(")[0]


def print_timeline(on: Console, timeline: Timeline, *, details: bool) -> None:
    """Print the calls of a run, one line each; with details their requests and outcomes below them."""
    columns = (
        Column(title="at", right=True),
        Column(title="#", right=True),
        Column(title="kind"),
        Column(title="call", shrinks=True),
        Column(title="decision"),
        Column(title="tokens", right=True),
        Column(title="took", right=True),
    )
    began, calls = number(timeline.started, "at"), timeline.calls
    rows: list[Sequence[Text] | Text] = []
    for position, moment in enumerate(timeline.moments if details else calls):
        if not details and len(calls) > _WHOLE and _EDGE <= position < len(calls) - _EDGE:
            if position == _EDGE:
                rows.append(Text(f"{symbol(on, '…')} {len(calls) - 2 * _EDGE} calls more", style="dim"))
            continue
        at = Text(f"{number(moment.record, 'at') - began:.3f}" if details else "", style="dim")
        if moment.record["type"] in {"call", "http"}:
            rows.append([at, *_call_cells(on, moment)])
            rows.extend(_detail_lines(on, moment, timeline) if details else ())
        else:
            rows.append([at, *_landmark_cells(moment.record)])
    if rows:
        print_columns(on, columns, rows, under=2)
    if not calls:
        on.print(Text(" no call passed the gate", style="dim"))


def _call_cells(on: Console, moment: Moment) -> list[Text]:
    record, outcome = moment.record, moment.outcome
    kind, decision = text(record, "kind"), mapping(record, "decision")
    branch = "  " * (moment.depth - 1) + f"{symbol(on, '└')} " if moment.depth else ""
    tokens = sum(tokens_of(moment))
    estimated = "~" if mapping(outcome or {}, "usage").get("estimated") else ""
    return [
        Text(text(record, "n"), style="dim"),
        Text(kind, style=_KIND_STYLES.get(kind, "")),
        Text(branch + one_line(text(record, "name"))),
        _decision_text(decision, approved=bool(record.get("approvals"))),
        Text(f"{estimated}{count(tokens)}" if tokens else ""),
        _took(outcome, denied=text(decision, "verdict") == "deny"),
    ]


def _decision_text(decision: Mapping[str, Json], *, approved: bool) -> Text:
    verdict, rule = text(decision, "verdict"), one_line(text(decision, "rule"))
    if approved:
        return Text(f"{verdict} {rule}, approved", style="green")
    styled = Text(verdict, style=VERDICT_STYLES.get(verdict, ""))
    return styled if rule in {"", "default"} else Text.assemble(styled, " ", (rule, styled.style))


def _took(outcome: Record | None, *, denied: bool) -> Text:
    if outcome is None:
        return Text("" if denied else "no outcome", style="yellow")
    took = "replayed" if outcome.get("replayed") else duration(number(outcome, "duration_s"))
    return Text(f"failed, {took}", style="red") if mapping(outcome, "error") else Text(took)


def _landmark_cells(record: Record) -> list[Text]:
    kind = record["type"]
    if kind == "step":
        what = f"step {text(record, 'index')} {one_line(text(record, 'name'))}".rstrip()
    else:
        what = "INIT" if kind == "run.started" else text(record, "state")
    return [Text(), Text(), Text(what, style="dim"), Text(), Text(), Text()]


def _detail_lines(on: Console, moment: Moment, timeline: Timeline) -> list[Text]:
    record, outcome = moment.record, moment.outcome
    given = mapping(record, "given")
    asked = Text.assemble((f"{symbol(on, '→')} ", "dim"), preview.request(record))
    lines = [asked]
    if given:
        before = preview.request({**record, "req": given})
        lines.append(Text(f"  modified; the agent asked for {before}", style="yellow"))
    for retry in moment.retries:
        wait = duration(number(retry, "delay_s"))
        attempt = f"  try {text(retry, 'attempt')} failed, next after {wait}: {one_line(text(retry, 'error'))}"
        lines.append(Text(attempt, style="yellow"))
    if outcome is not None:
        style = "red" if mapping(outcome, "error") else ""
        lines.append(Text.assemble((f"{symbol(on, '←')} ", "dim"), (preview.outcome(record, outcome), style)))
    violation = timeline.violation
    if violation is not None and violation.get("n") == record.get("n"):
        lines.append(Text(f"{symbol(on, '✘')} {one_line(_first_line(violation))}", style="red"))
    return lines


def _first_line(violation: Record) -> str:
    return text(violation, "reason").partition("\n")[0]


def print_verdict(on: Console, timeline: Timeline) -> None:
    """Print how a run ended: status, totals, why it failed, what was ungoverned, and its output."""
    finished, violation, totals = timeline.finished, timeline.violation, timeline.totals
    dot = f" {symbol(on, '·')} "
    took = timeline.duration_s
    line = Text.assemble(status_text(on, timeline.status), "" if took is None else f" in {duration(took)}")
    for key, noun in _TOTALS.items():
        if totals.get(key) or key == "steps":
            line.append(f"{dot}{plural(totals.get(key, 0), noun)}")
    print_paragraph(on, line)
    if finished is None:
        if timeline.suspended is not None:
            _print_questions(on, timeline)
        else:
            print_paragraph(on, Text("no end was journaled: it is still running, or its process died", style="yellow"))
            resume = f"if it died: oao resume {text(timeline.started, 'execution_id')[:8]}"
            print_paragraph(on, Text(resume, style="dim"), indent=3)
    elif violation is not None:
        where = f", call #{text(violation, 'n')}" if violation.get("n") is not None else ""
        where += f", {text(violation, 'source')}" if violation.get("source") else ""
        rule = f"{one_line(text(violation, 'rule'))} ({one_line(text(violation, 'plugin'))}{where})"
        first, *rest = clean(text(violation, "reason")).split("\n")
        print_paragraph(on, Text.assemble((rule, "bold red"), (f": {first}", "red")))
        for detail in rest:
            print_paragraph(on, Text(detail, style="dim"))
    elif finished.get("error"):
        print_paragraph(on, Text(clean(text(finished, "error")), style="red"))
    for record in timeline.observed:
        print_paragraph(on, Text(_observed(record), style="yellow"))
    for what in timeline.ungoverned:
        print_paragraph(on, Text(f"ungoverned: {one_line(what)}", style="yellow"))
    output = None if finished is None else finished.get("output")
    if output is not None:
        on.print()
        print_paragraph(on, _output(output))


def _observed(record: Record) -> str:
    decision = mapping(record, "decision")
    what = f"{text(record, 'kind')} {one_line(text(record, 'name'))} #{text(record, 'n')}"
    rule, reason = one_line(text(decision, "rule")), one_line(text(decision, "reason"))
    return f"observed: {what} would be {_WOULD[text(decision, 'would')]}: {rule}: {reason}"


def _print_questions(on: Console, timeline: Timeline) -> None:
    """Print what a person must answer, and how."""
    held = mapping({"questions": timeline.suspended or {}}, "questions").get("approvals")
    for id_ in held if isinstance(held, Sequence) and not isinstance(held, str) else ():
        asked = timeline.questions.get(str(id_), {})
        call = f"{one_line(text(asked, 'tool'))} {compact(asked.get('arguments'))}"
        print_paragraph(on, Text.assemble((f"held: {call}", "yellow")))
        by = one_line(text(asked, "rule")) + (f" ({text(asked, 'source')})" if text(asked, "source") else "")
        print_paragraph(on, Text(f"by {by}: {one_line(text(asked, 'reason'))}", style="dim"), indent=3)
        print_paragraph(on, Text(f"oao approve {short_id(str(id_))}", style="dim"), indent=3)


def _output(output: Json) -> str:
    written = output if isinstance(output, str) else json.dumps(cast("object", output), indent=2, ensure_ascii=False)
    return clean(written).strip("\n")
