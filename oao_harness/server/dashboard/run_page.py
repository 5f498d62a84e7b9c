"""The page of one run as values: head, lifecycle, budgets, questions, doubts, kin. No markup, no I/O."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from oao_harness.journal.questions import Question, Questions
from oao_harness.journal.timeline import Timeline, mapping, number, text, tokens_of
from oao_harness.server.dashboard.landmarks import person
from oao_harness.wording.numbers import count, dollars, duration
from oao_harness.wording.texts import clean, one_line
from oao_hookspecs import ApprovalRequest, Json, Record

__all__ = [
    "Head",
    "Meter",
    "QuestionView",
    "Stage",
    "head_of",
    "meters_of",
    "pretty",
    "question_view",
    "questions_of",
    "stages_of",
]

_FILE_POLICY: Final = re.compile(r"FilePolicy\('(.+)', digest='(\w+)'\)")
_STAGES: Final = ("INIT", "PLAN", "EXECUTE", "REVIEW", "TERMINATE")
_LIMITS: Final = (
    ("max_steps", "steps", "steps"),
    ("max_model_calls", "model calls", "model_calls"),
    ("max_tool_calls", "tool calls", "tool_calls"),
    ("max_tokens", "tokens", "tokens"),
)


def pretty(value: Json) -> str:
    """Return a JSON value over several lines, without what would act on its reader; a text as it is."""
    written = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return clean(written).encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A state of the lifecycle."""

    name: str
    is_entered: bool
    is_now: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """A budget of a run."""

    name: str
    used: float
    limit: float
    shown: str
    """Used of the limit, with units."""
    source: str
    """Where the limit is written; empty where nobody wrote it."""

    @property
    def percent(self) -> float:
        """Used of the limit, 0 to 100."""
        return round(min(100.0, 100.0 * self.used / self.limit), 1) if self.limit else 100.0

    @property
    def level(self) -> str:
        """`fine`, `high` from four fifths on, or `full`."""
        return "full" if self.used >= self.limit else "high" if self.percent >= 80 else "fine"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionView:
    """A question to a person."""

    request: ApprovalRequest
    state: str
    arguments: str
    """As indented JSON."""
    answers: Sequence[str]
    """Who has said what so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the top of the page tells."""

    execution_id: str
    agent: str
    status: str
    task: str
    started_at: float
    facts: Sequence[tuple[str, str]]
    """Name and value, in order: what changes while it runs."""
    about: Sequence[tuple[str, str]]
    """Name and value, in order: what does not."""
    forked_from: str
    forked_at: str
    parent: str
    error: str
    output: str | None
    violation: Mapping[str, str]
    """rule, plugin, reason, source, n; empty where nothing stopped it."""
    notes: Sequence[str]
    """Ungoverned effects, and what a policy that only observes would have stopped."""
    now_s: float
    """Running time until now, in seconds."""

    @property
    def is_over(self) -> bool:
        """True where it never goes on."""
        return self.status in {"SUCCESS", "FAILED"}

    @property
    def waits(self) -> str:
        """What it waits for, in words; empty where it does not."""
        return {"SUSPENDED": "a person", "QUEUED": "a worker", "DEAD": "somebody who drives it again"}.get(
            self.status, ""
        )


def head_of(timeline: Timeline) -> Head:
    """Return what the top of a run's page tells."""
    started = timeline.started
    finished, violation = timeline.finished or {}, timeline.violation or {}
    forked = mapping(started, "forked")
    output = finished.get("output")
    error = "" if violation else text(finished, "error")
    if timeline.status == "DEAD":
        error = text(timeline.suspended or {}, "reason")
    return Head(
        execution_id=text(started, "execution_id"),
        agent=one_line(text(started, "agent")) or "agent",
        status=timeline.status,
        task=pretty(started.get("task")) if started.get("task") is not None else "",
        started_at=number(started, "at"),
        facts=list(_facts(timeline)),
        about=list(_about(timeline)),
        forked_from=text(forked, "run"),
        forked_at=text(forked, "at"),
        parent=text(started, "parent"),
        error=pretty(error),
        output=None if output is None else pretty(output),
        violation={key: pretty(text(violation, key)) for key in ("rule", "plugin", "reason", "source", "n")}
        if violation
        else {},
        notes=[*_observed(timeline), *(f"ungoverned: {one_line(what)}" for what in timeline.ungoverned)],
        now_s=_now_s(timeline),
    )


def _now_s(timeline: Timeline) -> float:
    """Return the running time until now: that of a run that nobody has heard of for long stands still."""
    if timeline.status != "RUNNING":
        return timeline.running_s
    return timeline.running_s + max(0.0, min(time.time() - timeline.last_at, 3600.0))


def _facts(timeline: Timeline) -> Iterator[tuple[str, str]]:
    totals = timeline.totals
    yield "Duration", duration(_now_s(timeline))
    if waited_s := timeline.waited_s + timeline.queued_s:
        yield "Waited", duration(waited_s)
    yield "Calls", count(int(totals.get("steps", 0)))
    tokens_in, tokens_out = (sum(found) for found in zip((0, 0), *map(tokens_of, timeline.calls), strict=True))
    tokens = int(totals.get("tokens", 0))
    apart = tokens_in or tokens_out
    yield "Tokens", f"{count(tokens)} ({count(tokens_in)} in, {count(tokens_out)} out)" if apart else count(tokens)
    if timeline.cost_usd is not None:
        yield "Cost", dollars(timeline.cost_usd)


def _about(timeline: Timeline) -> Iterator[tuple[str, str]]:
    if principal := timeline.started.get("principal"):
        yield "For", person(principal)
    policies = timeline.plan.get("policy")
    if isinstance(policies, Sequence) and not isinstance(policies, str):
        yield from (("Policy", _policy(str(one))) for one in policies)
    if adapter := text(timeline.plan, "adapter"):
        yield "Adapter", one_line(adapter)
    if written_by := text(timeline.plan, "oao"):
        yield "oao", one_line(written_by)


def _policy(written: str) -> str:
    """Return a policy as it is named: of a file its path and the start of its digest."""
    found = _FILE_POLICY.fullmatch(written)
    return one_line(f"{found[1]} ({found[2][:7]})" if found else written)


def _observed(timeline: Timeline) -> Iterator[str]:
    for record in timeline.observed:
        decision = mapping(record, "decision")
        would = {"deny": "denied", "ask": "held"}.get(text(decision, "would"), text(decision, "would"))
        name, rule = one_line(text(record, "name")), one_line(text(decision, "rule"))
        yield f"observed: #{text(record, 'n')} {name} would be {would} by {rule}"


def stages_of(timeline: Timeline) -> list[Stage]:
    """Return the lifecycle, and how far the run is in it."""
    entered = {"INIT", *(text(one.record, "state") for one in timeline.moments if one.record["type"] == "state")}
    now = next((name for name in reversed(_STAGES) if name in entered), "INIT")
    is_over = timeline.finished is not None
    return [Stage(name=name, is_entered=name in entered, is_now=name == now and not is_over) for name in _STAGES]


def meters_of(timeline: Timeline) -> list[Meter]:
    """Return the budgets of a run and what of them is used, the fullest first."""
    limits, totals = mapping(timeline.plan, "limits"), timeline.totals
    sources = mapping(limits, "sources")
    found = [
        _meter(name, float(totals.get(key, 0)), number(limits, limit), text(sources, limit))
        for limit, name, key in _LIMITS
        if limits.get(limit) is not None
    ]
    tokens = [tokens_of(one) for one in timeline.calls]
    for limit, name, index in (("max_input_tokens", "input tokens", 0), ("max_output_tokens", "output tokens", 1)):
        if limits.get(limit) is not None:
            used = float(sum(one[index] for one in tokens))
            found.append(_meter(name, used, number(limits, limit), text(sources, limit)))
    if limits.get("max_cost_usd") is not None:
        used, most = timeline.cost_usd or 0.0, number(limits, "max_cost_usd")
        shown = f"{dollars(used)} of {dollars(most)}"
        found.append(Meter(name="cost", used=used, limit=most, shown=shown, source=text(sources, "max_cost_usd")))
    if limits.get("timeout_s") is not None:
        used, most = _now_s(timeline), number(limits, "timeout_s")
        shown = f"{duration(used)} of {duration(most)}"
        found.append(Meter(name="time", used=used, limit=most, shown=shown, source=text(sources, "timeout_s")))
    of_tools = mapping(limits, "tool_limits")
    names = [text(one.record, "name") for one in timeline.calls if one.record.get("kind") == "tool"]
    for glob in of_tools:
        made = float(sum(fnmatchcase(name, glob) for name in names))
        found.append(_meter(one_line(glob), made, number(of_tools, glob), text(sources, f"tool_limits.{glob}")))
    return found


def _meter(name: str, used: float, limit: float, source: str) -> Meter:
    return Meter(name=name, used=used, limit=limit, shown=f"{count(int(used))} of {count(int(limit))}", source=source)


def questions_of(records: Sequence[Record], now: float) -> list[QuestionView]:
    """Return the questions of one run that were not used yet.

    Args:
        records: Its journal.
        now: Unix seconds.
    """
    questions = Questions(records)
    at = questions.now(now)
    return [question_view(one, one.state(at)) for one in questions.all() if not one.used]


def question_view(question: Question, state: str) -> QuestionView:
    """Return a question as it is shown.

    Args:
        question: With the answers so far.
        state: Where it stands.
    """
    return QuestionView(
        request=question.request,
        state=state,
        arguments=pretty(dict(question.request.arguments)),
        answers=[
            f"{'approved' if answer.verdict == 'approve' else 'rejected'} by {one_line(answer.by.id)}"
            + (f": {one_line(answer.note)}" if answer.note else "")
            for answer in question.answers
        ],
    )
