"""What happened to a run between its calls, in words: pauses, answers, nested runs. For pages, as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oao_harness.journal.timeline import Moment, Timeline, mapping, number, short_id, text
from oao_harness.wording.numbers import duration, plural
from oao_harness.wording.texts import compact, one_line
from oao_hookspecs import Json, Record

__all__ = ["Landmark", "landmark_of", "person"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Landmark:
    """One line between calls."""

    icon: str
    """Name of the icon."""
    tone: str
    """`quiet`, `good`, `bad`, `wait` or `note`: a class of the style sheet."""
    text: str
    run: str = ""
    """Id of a nested run that it names."""


def landmark_of(moment: Moment, timeline: Timeline) -> Landmark | None:
    """Return what a record that is no call tells; None for what the page shows elsewhere.

    Args:
        moment: The record.
        timeline: The run that it is of.
    """
    record = moment.record
    kind = text(record, "type")
    if kind == "step":
        return Landmark(icon="step", tone="quiet", text=_joined("step", text(record, "index"), text(record, "name")))
    if kind == "run.suspended":
        what, tone = ("dead letter", "bad") if record.get("dead") else ("suspended", "wait")
        return Landmark(icon="pause", tone=tone, text=f"{what}: {one_line(text(record, 'reason'))}")
    if kind == "run.queued":
        return Landmark(icon="clock", tone="wait", text=_queued(record))
    if kind == "plan" and moment.after_s:
        return Landmark(icon="play", tone="note", text=f"begun by a worker after {duration(moment.after_s)}")
    if kind == "run.resumed":
        return Landmark(icon="play", tone="note", text=_resumed(moment))
    if kind == "approval.answered":
        return _answered(moment, timeline)
    if kind == "resolved":
        said = "landed" if record.get("landed") else "did not happen"
        told = f"call #{text(record, 'n')} {said}, says {person(record.get('by'))}{_note(record)}"
        return Landmark(icon="person", tone="good" if record.get("landed") else "wait", text=told)
    if kind == "child":
        return _child(record)
    if kind == "node":
        told = _joined("node", text(record, "node"), text(record, "status").lower())
        return Landmark(
            icon="step",
            tone="quiet",
            text=told + (f": {one_line(text(record, 'reason'))}" * bool(record.get("reason"))),
        )
    if kind == "redaction":
        listed = record.get("records")
        count = len(listed) if isinstance(listed, Sequence) else 0
        told = f"{plural(count, 'record')} redacted by {one_line(text(record, 'by'))}{_note(record)}"
        return Landmark(icon="eye-off", tone="wait", text=told)
    return None


def _joined(*parts: str) -> str:
    return one_line(" ".join(filter(None, parts)))


def _note(record: Record) -> str:
    return f": {one_line(text(record, 'note'))}" if record.get("note") else ""


def _queued(record: Record) -> str:
    later_s = number(record, "not_before") - number(record, "at")
    when = f", in {duration(later_s)}" if later_s > 0.0005 else ""
    which = f", try {text(record, 'attempt')}" if record.get("attempt") else ""
    why = one_line(text(record, "reason"))
    return f"queued again{which}{when}" + (f": {why}" if why else "")


def _resumed(moment: Moment) -> str:
    record, took = moment.record, duration(moment.after_s)
    if record.get("is_fork"):
        return "forked here: what is above was served, what is below was made"
    waited = record.get("waited") or record.get("was_queued")
    changed = ", under another policy" if record.get("policy_changed") else ""
    return (f"resumed after waiting {took}" if waited else f"resumed after an interruption of {took}") + changed


def _answered(moment: Moment, timeline: Timeline) -> Landmark:
    record = moment.record
    asked = timeline.questions.get(text(record, "id"), {})
    is_approved = text(record, "verdict") != "reject"
    edited = mapping(record, "arguments")
    verb = ("edited and approved" if edited else "approved") if is_approved else "rejected"
    what = f" as {compact(dict(edited))}" if edited else ""
    by = f"{verb} by {person(record.get('by'))} after {duration(moment.after_s)}{what}{_note(record)}"
    about = f"{short_id(text(record, 'id'))} {one_line(text(asked, 'tool'))}".rstrip()
    return Landmark(icon="person", tone="good" if is_approved else "bad", text=f"{about} {by}")


def _child(record: Record) -> Landmark:
    node, name = one_line(text(record, "node")), one_line(text(record, "agent"))
    named = ", ".join(filter(None, [f"node {node}" if node else "", name, one_line(text(record, "status")).lower()]))
    gone = " (not in this store)" if record.get("gone") else ""
    run = text(record, "execution_id")
    return Landmark(icon="branch", tone="note", text=f"nested run {named}{gone}", run="" if gone else run)


def person(by: Json | Record) -> str:
    """Return a principal as a person reads it: `alice (manager, finance) of acme`."""
    if not isinstance(by, Mapping):
        return one_line(str(by or "nobody"))
    roles = by.get("roles")
    named = ", ".join(map(str, roles)) if isinstance(roles, Sequence) and not isinstance(roles, str) else ""
    tenant = text(by, "tenant")
    return one_line(text(by, "id") + (f" ({named})" if named else "") + (f" of {tenant}" if tenant else ""))
