"""What happened to a run between its calls, in words: pauses, answers, nested runs, redactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import compact, one_line, status_text, symbol
from oao_harness.cli.units import duration, plural
from oao_harness.journal.timeline import Moment, Timeline, mapping, number, short_id, text
from oao_hookspecs import Json, Record

__all__ = ["answer_text", "landmark_text", "person"]


def landmark_text(on: Console, moment: Moment, timeline: Timeline) -> Text:
    """Return one line that says what a record that is no call tells.

    Args:
        on: Where it will be printed.
        moment: The record.
        timeline: The run that it is of.
    """
    record = moment.record
    kind = record["type"]
    if kind == "step":
        return Text(f"step {text(record, 'index')} {one_line(text(record, 'name'))}".rstrip(), style="dim")
    if kind == "run.suspended":
        if record.get("dead"):
            return Text(f"{symbol(on, '✘')} dead letter: {one_line(text(record, 'reason'))}", style="bold red")
        return Text(f"{symbol(on, '◆')} suspended: {one_line(text(record, 'reason'))}", style="yellow")
    if kind == "run.queued":
        return _queued(on, record)
    if kind == "plan":
        return Text(f"{symbol(on, '●')} begun by a worker; waited {duration(moment.after_s)}", style="cyan")
    if kind == "run.resumed":
        return _resumed(on, moment)
    if kind == "approval.answered":
        asked = timeline.questions.get(text(record, "id"), {})
        about = f"{short_id(text(record, 'id'))} {one_line(text(asked, 'tool'))}".rstrip()
        return Text.assemble((f"{symbol(on, '→')} {about}: ", "dim"), answer_text(moment))
    if kind == "resolved":
        said = ("landed", "green") if record.get("landed") else ("did not happen", "yellow")
        note = f": {one_line(text(record, 'note'))}" if record.get("note") else ""
        call = (f"{symbol(on, '→')} call #{text(record, 'n')} ", "dim")
        return Text.assemble(call, said, f", says {person(record.get('by'))}{note}")
    if kind == "child":
        return _child(on, moment)
    if kind == "node":
        return _node(on, record)
    if kind == "redaction":
        listed = record.get("records")
        number = len(listed) if isinstance(listed, Sequence) else 0
        note = f": {one_line(text(record, 'note'))}" if record.get("note") else ""
        return Text(f"{plural(number, 'record')} redacted by {one_line(text(record, 'by'))}{note}", style="yellow")
    if kind == "run.started" and record.get("job") is not None:
        return Text("INIT, queued", style="dim")
    return Text("INIT" if kind == "run.started" else text(record, "state"), style="dim")


def _queued(on: Console, record: Record) -> Text:
    """Return why a run waits for a worker again, from when on, and who wanted that."""
    later_s = number(record, "not_before") - number(record, "at")
    when = f", in {duration(later_s)}" if later_s > 0.0005 else ""
    which = f", try {text(record, 'attempt')}" if record.get("attempt") else ""
    why = one_line(text(record, "reason"))
    who = person(record["by"]) if record.get("by") else ""
    by = f" by {who}" if who and who not in why else ""
    reason = f": {why}" if why else ""
    return Text(f"{symbol(on, '◌')} queued again{which}{when}{by}{reason}", style="yellow")


def _node(on: Console, record: Record) -> Text:
    """Return what became of a part of a run."""
    status, reason = text(record, "status"), one_line(text(record, "reason"))
    told = Text.assemble((f"{symbol(on, '└')} node {one_line(text(record, 'node'))} ", "cyan"), status_text(on, status))
    return told + Text(f": {reason}" if reason else "")


def _resumed(on: Console, moment: Moment) -> Text:
    record, took = moment.record, duration(moment.after_s)
    if record.get("is_fork"):
        return Text(f"{symbol(on, '●')} forked here: what is above was served, what is below was made", style="cyan")
    waited = record.get("waited") or record.get("was_queued")
    what = f"resumed; waited {took}" if waited else f"resumed; was interrupted for {took}"
    policies = record.get("policy")
    changed = f", under another policy: {compact(policies)}" if record.get("policy_changed") else ""
    return Text(f"{symbol(on, '●')} {what}{changed}", style="cyan")


def _child(on: Console, moment: Moment) -> Text:
    record = moment.record
    branch = "  " * max(0, moment.depth - 1) + f"{symbol(on, '└')} "
    node = one_line(text(record, "node"))
    name = one_line(text(record, "agent"))
    name = f"node {node}, {name}".removesuffix(", ") if node else name
    gone = " (not in this store)" if record.get("gone") else ""
    status = one_line(text(record, "status")).lower()
    told = ", ".join(filter(None, [name, status]))
    return Text.assemble((f"{branch}run {text(record, 'execution_id')}", "cyan"), f" {told}".rstrip(), (gone, "yellow"))


def answer_text(moment: Moment) -> Text:
    """Return who answered a question, how, and after how long: `approved by alice (manager) after 3 min: go ahead`."""
    record = moment.record
    is_approved = text(record, "verdict") != "reject"
    edited = mapping(record, "arguments")
    verb = ("edited and approved" if edited else "approved") if is_approved else "rejected"
    note = f": {one_line(text(record, 'note'))}" if record.get("note") else ""
    what = f" {compact(dict(edited))}" if edited else ""
    by = f" by {person(record.get('by'))} after {duration(moment.after_s)}{what}{note}"
    return Text.assemble((verb, "green" if is_approved else "red"), by)


def person(by: Json | Record) -> str:
    """Return a principal as a person reads it: `alice (manager, finance) of acme`."""
    if not isinstance(by, Mapping):
        return one_line(str(by or "nobody"))
    roles = by.get("roles")
    named = ", ".join(map(str, roles)) if isinstance(roles, Sequence) and not isinstance(roles, str) else ""
    tenant = text(by, "tenant")
    return one_line(text(by, "id") + (f" ({named})" if named else "") + (f" of {tenant}" if tenant else ""))
