"""One call in full: request, result, decision, retries. Values for templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oao_harness.journal.timeline import Moment, Timeline, mapping, number, text, tokens_of
from oao_harness.server.dashboard.landmarks import landmark_of
from oao_harness.server.dashboard.rows import state_of
from oao_harness.server.dashboard.run_page import pretty
from oao_harness.wording.numbers import count, duration
from oao_harness.wording.texts import clean, one_line
from oao_hookspecs import Json

__all__ = ["Detail", "Said", "detail_of"]

_LONGEST = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """Everything that the journal knows of a call."""

    n: int
    run: str
    kind: str
    name: str
    state: str
    facts: Sequence[tuple[str, str]]
    decision: Sequence[tuple[str, str]]
    """verdict, rule, plugin, source and reason, as far as they are told."""
    messages: Sequence[Said]
    """Of a model call; empty where the request has none."""
    request: str
    """What else is asked for."""
    given: str
    """The request as the agent made it, where a policy changed it."""
    result: str
    error: str
    retries: Sequence[str]
    answers: Sequence[str]


def detail_of(timeline: Timeline, n: int) -> Detail | None:
    """Return a call of a run, or None where it has none of that number.

    Args:
        timeline: The run, without those nested in it.
        n: Number of the call.
    """
    found = next((one for one in timeline.calls if int(number(one.record, "n")) == n), None)
    return None if found is None else _detail(found, timeline, n)


def _detail(moment: Moment, timeline: Timeline, n: int) -> Detail:
    record, outcome = moment.record, moment.outcome or {}
    said = outcome or moment.resolved or {}
    request = dict(mapping(record, "req"))
    messages = request.pop("messages", None) if record.get("kind") == "model" else None
    decision = mapping(record, "decision")
    error = mapping(said, "error")
    doubts = {(doubt.execution_id, doubt.n) for doubt in timeline.doubts}
    approvals = record.get("approvals")
    ids = approvals if isinstance(approvals, Sequence) and not isinstance(approvals, str) else ()
    return Detail(
        n=n,
        run=text(timeline.started, "execution_id"),
        kind=text(record, "kind"),
        name=one_line(text(record, "name")),
        state=state_of(moment, doubts),
        facts=_facts(moment),
        decision=[(key, clean(text(decision, key))) for key in _DECISION if decision.get(key)],
        messages=[_message(one) for one in messages] if isinstance(messages, list) else [],
        request=_cut(pretty(request)) if request else "",
        given=_cut(pretty(dict(mapping(record, "given")))) if mapping(record, "given") else "",
        result=_cut(pretty(said.get("res"))) if "res" in said else "",
        error=_cut(clean(f"{text(error, 'type')}: {text(error, 'message')}")) if error else "",
        retries=[
            f"try {text(one, 'attempt')} failed, next after {duration(number(one, 'delay_s'))}: "
            + one_line(text(one, "error"))
            for one in moment.retries
        ],
        answers=[
            told.text
            for id_ in ids
            for answer in timeline.answers.get(str(id_), ())
            if (told := landmark_of(answer, timeline)) is not None
        ],
    )


_DECISION = ("verdict", "would", "rule", "plugin", "source", "reason")


def _facts(moment: Moment) -> list[tuple[str, str]]:
    record, outcome = moment.record, moment.outcome or {}
    facts = [("Began", f"{duration(moment.at_s)} into the run" if moment.at_s else "with the run")]
    if "duration_s" in outcome:
        facts.append(("Took", duration(number(outcome, "duration_s"))))
    tokens_in, tokens_out = tokens_of(moment)
    if tokens_in or tokens_out:
        facts.append(("Tokens", f"{count(tokens_in)} in, {count(tokens_out)} out"))
    if effect := text(record, "effect"):
        facts.append(("Effect", one_line(effect)))
    if outcome.get("attempts"):
        facts.append(("Tries", text(outcome, "attempts")))
    if moment.again:
        facts.append(("Made again", f"{moment.again} x after an interruption"))
    if call_id := text(record, "call_id"):
        facts.append(("Call id", one_line(call_id)))
    return facts


def _message(message: Json) -> Said:
    if not isinstance(message, dict):
        return Said(role="message", content=_cut(pretty(message)))
    rest = {key: value for key, value in message.items() if key != "role" and value not in (None, "", [])}
    content = rest.get("content") if set(rest) == {"content"} else rest
    return Said(role=one_line(text(message, "role")) or "message", content=_cut(pretty(content)))


def _cut(written: str) -> str:
    left = len(written) - _LONGEST
    return written if left <= 0 else f"{written[:_LONGEST]}\n… {count(left)} more characters: see the raw journal"
