"""How a run looks: its head, its calls in columns, its end. Reads a `Timeline`, prints on a console."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Final, cast

from rich.console import Console
from rich.text import Text

from oao_harness.cli.bars import bars_of, fitting_width
from oao_harness.cli.columns import GAP, Column, print_columns, widths_of
from oao_harness.cli.console import clean, compact, one_line, print_paragraph, status_text, symbol
from oao_harness.cli.landmarks import answer_text, landmark_text
from oao_harness.cli.units import ago, count, dollars, duration, plural
from oao_harness.journal.timeline import Moment, Timeline, mapping, number, short_id, text, tokens_of
from oao_harness.wording import preview
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
_CALL_COLUMNS: Final = (
    Column(title="at", right=True, optional=True),
    Column(title="#", right=True),
    Column(title="kind"),
    Column(title="call", shrinks=True),
    Column(title="decision", shrinks=True),
    Column(title="tokens", right=True, optional=True),
    Column(title="took", right=True),
)
# A timeline without details that is longer than this shows its first and last calls only.
_WHOLE: Final = 30
_EDGE: Final = 10


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
    print_verdict(on, timeline, details=details)


def _print_head(on: Console, timeline: Timeline, policy_from: str) -> None:
    started = timeline.started
    on.print(Text(f" {one_line(text(started, 'agent'))}", style="bold"), no_wrap=True, overflow="ellipsis")
    for label, value in (
        ("run", text(started, "execution_id")),
        ("inside", text(started, "parent")),
        ("fork of", _source(timeline)),
        ("forks", ", ".join(f"{id_[:8]} {status.lower()}" for id_, status in timeline.kin.forks)),
        ("task", "" if started.get("task") is None else compact(started["task"])),
        ("policy", _policy(timeline.plan)),
        ("from", policy_from),
    ):
        if value and label == "fork of":
            # What was changed stands at its end.
            first, *rest = Text(one_line(value)).wrap(on, max(20, on.width - 9))
            first.rstrip()
            on.print(Text.assemble((f" {label:<8}", "dim"), first), soft_wrap=True)
            for part in rest:
                part.rstrip()
                on.print(Text(" " * 9) + part, soft_wrap=True)
        elif value:
            line = Text.assemble((f" {label:<8}", "dim"), one_line(value))
            on.print(line, no_wrap=True, overflow="ellipsis", crop=True)


def _source(timeline: Timeline) -> str:
    """Return what a run was forked from, where, and with what changed."""
    forked = mapping(timeline.started, "forked")
    if not forked:
        return ""
    at = f"node {forked['at']}" if isinstance(forked.get("at"), str) else f"call #{text(forked, 'at')}"
    told = f"{text(forked, 'run')}, at {at}" + (", whose result was edited" if forked.get("edited") else "")
    told += f", with model {text(forked, 'model')}" if forked.get("model") else ""
    return f"{told}; that run is gone" if timeline.kin.is_source_gone else told


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
    calls = timeline.calls
    moments = timeline.moments if details else calls
    rows: list[Sequence[Text] | Text] = []
    told: set[str] = set()
    # Which row is which moment's, for its bar.
    of: list[int] = []
    for position, moment in enumerate(moments):
        if not details and len(calls) > _WHOLE and _EDGE <= position < len(calls) - _EDGE:
            if position == _EDGE:
                rows.append(Text(f"{symbol(on, '…')} {len(calls) - 2 * _EDGE} calls more", style="dim"))
            continue
        at = Text(_clock(moment.at_s) if details else "", style="dim")
        if moment.record["type"] in {"call", "http"}:
            of.append(len(rows))
            rows.append([at, *_call_cells(on, moment, timeline)])
            rows.extend(_detail_lines(on, moment, timeline, told) if details else ())
        else:
            rows.append([at, Text(), landmark_text(on, moment, timeline)])
    columns: tuple[Column, ...] = _CALL_COLUMNS
    left = on.width - 1 - sum(width + GAP for width in widths_of(columns, rows).values())
    width = fitting_width(left) if details and len(of) > 1 else 0
    if width:
        columns = (*columns, Column(title=""))
        shown = [moment for moment in moments if moment.record["type"] in {"call", "http"}]
        for row, bar in zip(of, bars_of(on, shown, width, timeline.running_s), strict=True):
            cells = rows[row]
            rows[row] = [*cells, bar] if not isinstance(cells, Text) else cells
    if rows:
        print_columns(on, columns, rows, under=2)
    if not calls:
        on.print(Text(" no call passed the gate", style="dim"))


def _clock(seconds: float) -> str:
    if seconds < 1000:
        return f"{seconds:.3f}"
    return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{int(seconds % 60):02d}"


def _call_cells(on: Console, moment: Moment, timeline: Timeline) -> list[Text]:
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
        _took(moment, timeline),
    ]


def _decision_text(decision: Mapping[str, Json], *, approved: bool) -> Text:
    verdict, rule = text(decision, "verdict"), one_line(text(decision, "rule"))
    if approved:
        return Text(f"{verdict} {rule}, approved", style="green")
    styled = Text(verdict, style=VERDICT_STYLES.get(verdict, ""))
    return styled if rule in {"", "default"} else Text.assemble(styled, " ", (rule, styled.style))


def _took(moment: Moment, timeline: Timeline) -> Text:
    outcome, resolved = moment.outcome, moment.resolved
    if outcome is None:
        if timeline.suspended is not None and _is_in_doubt(moment, timeline):
            return Text("in doubt", style="bold red")
        if resolved is not None:
            return Text("landed" if resolved.get("landed") else "did not happen", style="yellow")
        denied = text(mapping(moment.record, "decision"), "verdict") == "deny"
        return Text("" if denied else "no outcome", style="yellow")
    marks = (("abandoned", "never made"), ("edited", "edited"), ("replayed", "replayed"))
    took = next((told for mark, told in marks if outcome.get(mark)), duration(number(outcome, "duration_s")))
    return Text(f"failed, {took}", style="red") if mapping(outcome, "error") else Text(took)


def _is_in_doubt(moment: Moment, timeline: Timeline) -> bool:
    return any((doubt.execution_id, doubt.n) == (moment.run, moment.record.get("n")) for doubt in timeline.doubts)


def _detail_lines(on: Console, moment: Moment, timeline: Timeline, told: set[str]) -> list[Text]:
    record, outcome = moment.record, moment.outcome
    given = mapping(record, "given")
    asked = Text.assemble((f"{symbol(on, '→')} ", "dim"), preview.request(record))
    lines = [asked]
    if given:
        before = preview.request({**record, "req": given})
        lines.append(Text(f"  modified; the agent asked for {before}", style="yellow"))
    lines += _judged(moment, timeline, told)
    for retry in moment.retries:
        wait = duration(number(retry, "delay_s"))
        attempt = f"  try {text(retry, 'attempt')} failed, next after {wait}: {one_line(text(retry, 'error'))}"
        lines.append(Text(attempt, style="yellow"))
    if moment.failed is not None:
        error = preview.outcome(record, moment.failed)
        lines.append(Text.assemble(("  it failed, and was made again: ", "yellow"), error))
    elif moment.again:
        lines.append(Text("  it was in doubt after an interruption, and made again", style="yellow"))
    outcome = outcome or (moment.resolved if moment.resolved is not None and "res" in moment.resolved else None)
    if outcome is not None:
        style = "red" if mapping(outcome, "error") else ""
        lines.append(Text.assemble((f"{symbol(on, '←')} ", "dim"), (preview.outcome(record, outcome), style)))
    violation = timeline.violation
    if violation is not None and violation.get("n") == record.get("n"):
        lines.append(Text(f"{symbol(on, '✘')} {one_line(_first_line(violation))}", style="red"))
    return lines


def _judged(moment: Moment, timeline: Timeline, told: set[str]) -> list[Text]:
    """Return where the rule that decided is written, once for each rule, and what people said about the call."""
    record = moment.record
    decision = mapping(record, "decision")
    rule, source = one_line(text(decision, "rule")), one_line(text(decision, "source"))
    where = f"  {rule}: {source}"
    lines = [Text(where, style="dim")] if source and rule and where not in told else []
    told.add(where)
    ids = record.get("approvals")
    for id_ in ids if isinstance(ids, Sequence) and not isinstance(ids, str) else ():
        lines += [Text("  ") + answer_text(answer) for answer in timeline.answers.get(str(id_), ())]
    return lines


def _first_line(violation: Record) -> str:
    return text(violation, "reason").partition("\n")[0]


def print_verdict(on: Console, timeline: Timeline, *, details: bool = False) -> None:
    """Print how a run ended: status, totals, why it failed, what was ungoverned, and its output."""
    finished, violation, totals = timeline.finished, timeline.violation, timeline.totals
    dot = f" {symbol(on, '·')} "
    took = timeline.duration_s
    line = Text.assemble(status_text(on, timeline.status), "" if took is None else f" in {duration(took)}")
    for key, noun in _TOTALS.items():
        if totals.get(key) or key == "steps":
            line.append(f"{dot}{plural(totals.get(key, 0), noun)}")
    if timeline.cost_usd is not None:
        line.append(f"{dot}{dollars(timeline.cost_usd)}")
    print_paragraph(on, line)
    if details:
        _print_pauses(on, timeline)
    if finished is None:
        _print_open(on, timeline)
    elif violation is not None:
        _print_violation(on, violation)
    elif finished.get("error"):
        print_paragraph(on, Text(clean(text(finished, "error")), style="red"))
    for record in timeline.observed:
        print_paragraph(on, Text(_observed(record), style="yellow"))
    for what in timeline.ungoverned:
        print_paragraph(on, Text(f"ungoverned: {one_line(what)}", style="yellow"))
    for record in timeline.redactions:
        note = f": {one_line(text(record, 'note'))}" if record.get("note") else ""
        told = f"redacted by {one_line(text(record, 'by'))}{note}; oao verify tells which records"
        print_paragraph(on, Text(told, style="yellow"))
    output = None if finished is None else finished.get("output")
    if output is not None:
        on.print()
        print_paragraph(on, _output(output))


def _print_pauses(on: Console, timeline: Timeline) -> None:
    pauses = [f"waited {duration(timeline.waited_s)} for a person"] if timeline.waited_s else []
    pauses += [f"waited {duration(timeline.queued_s)} for a worker"] if timeline.queued_s else []
    pauses += [f"was interrupted for {duration(timeline.down_s)}"] if timeline.down_s else []
    if pauses:
        print_paragraph(on, Text(f"not counted: {', '.join(pauses)}", style="dim"), indent=3)


def _print_open(on: Console, timeline: Timeline) -> None:
    if timeline.status == "DEAD":
        id_ = text(timeline.started, "execution_id")[:8]
        print_paragraph(on, Text(one_line(text(timeline.suspended or {}, "reason")), style="red"))
        print_paragraph(on, Text(f"mend its agent, then: oao jobs retry {id_}", style="dim"), indent=3)
    elif timeline.suspended is not None:
        _print_questions(on, timeline)
    elif timeline.queued is not None:
        since = ago(max(0.0, time.time() - number(timeline.queued, "at")))
        print_paragraph(on, Text(f"waits for a worker, queued {since}; workers: oao jobs", style="yellow"))
    else:
        since = ago(max(0.0, time.time() - timeline.last_at))
        told = f"no end was journaled, the last record {since}: it is still running, or its process died"
        print_paragraph(on, Text(told, style="yellow"))
        resume = f"if it died: oao resume {text(timeline.started, 'execution_id')[:8]} (refused while it is running)"
        print_paragraph(on, Text(resume, style="dim"), indent=3)
    _print_doubts(on, timeline)


def _print_violation(on: Console, violation: Record) -> None:
    where = f", call #{text(violation, 'n')}" if violation.get("n") is not None else ""
    where += f", {text(violation, 'source')}" if violation.get("source") else ""
    rule = f"{one_line(text(violation, 'rule'))} ({one_line(text(violation, 'plugin'))}{where})"
    first, *rest = clean(text(violation, "reason")).split("\n")
    print_paragraph(on, Text.assemble((rule, "bold red"), (f": {first}", "red")))
    for detail in rest:
        print_paragraph(on, Text(detail, style="dim"))


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


def _print_doubts(on: Console, timeline: Timeline) -> None:
    """Print the calls of which a person must say what became of them, and how."""
    for doubt in timeline.doubts:
        call = f"{one_line(doubt.tool)} {compact(dict(doubt.arguments))}"
        print_paragraph(on, Text(f"in doubt, #{doubt.n}: {call}", style="bold red"))
        print_paragraph(on, Text("it began, and nobody knows whether it happened", style="dim"), indent=3)
        id_ = f"{doubt.execution_id[:8].rstrip('-')}#{doubt.n}"
        print_paragraph(on, Text(f"oao resolve {id_} --landed | --did-not-happen", style="dim"), indent=3)


def _output(output: Json) -> str:
    written = output if isinstance(output, str) else json.dumps(cast("object", output), indent=2, ensure_ascii=False)
    return clean(written).strip("\n")
