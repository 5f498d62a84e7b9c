"""What changes between two policies: recorded calls as both judge them, call by call and counted. Judges nothing.

```text
denied     the second policy denies it, the first did not
allowed    the first denied it, the second lets it pass
asked      the second holds it for approval, the first did not; also what the first denied
released   the first held it for approval, the second lets it pass
modified   both let it pass, with other arguments
same       nothing changes
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias, get_args

from oao_hookspecs import Call, Decision, Json, Usage

__all__ = ["CHANGES", "FORMAT", "Change", "JudgedRun", "PolicyDiff", "RecordedCall", "RunChange", "Side", "changed"]

FORMAT: Final = "oao-policy-diff/1"
What: TypeAlias = Literal["denied", "allowed", "asked", "released", "modified"]
CHANGES: Final[tuple[What, ...]] = get_args(What)
_ANY: Final = "any"
POLICY_ERROR: Final = "policy-error"
_MOST_LISTED: Final = 10_000


class RecordedCall(Protocol):
    """A call that was judged."""

    @property
    def call(self) -> Call:
        """The call."""
        ...

    @property
    def agent(self) -> str:
        """Whose it was."""
        ...

    @property
    def place(self) -> str:
        """How a person finds it in its run."""
        ...

    @property
    def usage(self) -> Usage | None:
        """Tokens, where they are recorded."""
        ...


class StopLike(Protocol):
    """What ends or holds a run."""

    @property
    def stage(self) -> str:
        """`task`, `call`, `outcome`, `batch`, `step` or `output`."""
        ...

    @property
    def index(self) -> int:
        """Of the call; -1 for the run as a whole."""
        ...

    @property
    def decision(self) -> Decision:
        """The denial, or the question."""
        ...


class Side(Protocol):
    """What one policy says to one run."""

    @property
    def decisions(self) -> Sequence[Decision]:
        """One for each call."""
        ...

    @property
    def stops(self) -> Sequence[StopLike]:
        """What it refuses or holds beside single calls."""
        ...

    @property
    def modified(self) -> Mapping[int, Call]:
        """Calls as it left them, where it changed them."""
        ...

    @property
    def halt(self) -> StopLike | None:
        """Where the run would have been halted."""
        ...

    @property
    def held(self) -> StopLike | None:
        """Where a person would have been asked first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRun:
    """A recorded run and what both policies say to it."""

    name: str
    agent: str
    calls: Sequence[RecordedCall]
    before: Side
    after: Side
    recording: str = ""
    """Name of the recorded run that it is a part of, where that has several parties; by default its own name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that the policies judge differently."""

    run: str
    agent: str
    stage: str
    """`call`, or what else of the run; see `StopLike`."""
    place: str
    """Of the call; empty for the run as a whole."""
    kind: str
    name: str
    """Of the tool or model; empty for the run as a whole."""
    what: What
    before: Decision | None
    after: Decision | None

    @property
    def rule(self) -> str:
        """Name of the rule that makes the difference: that of the stricter answer."""
        found = self.after if self.what in {"denied", "asked", "modified"} else self.before
        return found.rule if found is not None else ""

    def to_json(self) -> dict[str, Json]:
        """Return the change as JSON."""
        return {
            "run": self.run, "agent": self.agent, "stage": self.stage, "call": self.place, "kind": self.kind,
            "name": self.name, "change": self.what, "rule": self.rule,
            "from": _decision_json(self.before), "to": _decision_json(self.after),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChange:
    """What a real run would have done: where each policy halts it. None: nowhere."""

    run: str
    agent: str
    before: StopLike | None
    after: StopLike | None
    before_place: str
    after_place: str
    saved_before: int | None
    saved_after: int | None
    """Tokens of the model calls that would not have been made; None where they are not recorded."""

    @property
    def is_changed(self) -> bool:
        """True where one halts the run and the other does not, or not there."""
        return _point(self.before) != _point(self.after)

    def to_json(self) -> dict[str, Json]:
        """Return the change as JSON."""
        saved: dict[str, Json] = {"from": _known(self.saved_before), "to": _known(self.saved_after)}
        return {
            "run": self.run, "agent": self.agent,
            "from": _stop_json(self.before, self.before_place), "to": _stop_json(self.after, self.after_place),
            "tokens_saved": saved,
        }  # fmt: skip


@dataclass(slots=True)
class Row:
    """Counts of one rule, tool or agent."""

    calls: int = 0
    """Calls of the tool or agent; for a rule those that it decides under either policy."""
    changes: Counter[str] = field(default_factory=Counter[str])
    before: Counter[str] = field(default_factory=Counter[str])
    """Calls by verdict (`deny`, `ask`) under the first policy; `allow` is the rest."""
    after: Counter[str] = field(default_factory=Counter[str])
    """The same under the second one."""

    def to_json(self) -> dict[str, Json]:
        """Return the counts as JSON."""
        return {
            "calls": self.calls,
            **{what: self.changes[what] for what in CHANGES},
            "from": {"deny": self.before["deny"], "ask": self.before["ask"]},
            "to": {"deny": self.after["deny"], "ask": self.after["ask"]},
        }


def changed(before: Decision, after: Decision) -> What | None:
    """Return what changes between two decisions about one call; None where nothing does.

    Whether two policies that modify the call modify it alike is not looked at here.
    """
    first, second = before.verdict, after.verdict
    if first == second:
        return None
    if second == "deny":
        return "denied"
    if second == "ask":
        return "asked"
    if first == "deny":
        return "allowed"
    return "released" if first == "ask" else "modified"


class PolicyDiff:
    """Counts what two policies judge differently, run by run.

    Args:
        before: What the first policy is called.
        after: What the second one is called.
    """

    def __init__(self, before: str, after: str) -> None:
        self.before, self.after = before, after
        self.calls = 0
        self._runs: set[str] = set()
        self.changes: Counter[str] = Counter()
        """Of single calls, by what changes."""
        self.stops: Counter[tuple[str, str]] = Counter()
        """Of anything else, by stage and by what changes."""
        self.rules: dict[str, Row] = {}
        self.tools: dict[str, Row] = {}
        self.models: dict[str, Row] = {}
        self.agents: dict[str, Row] = {}
        self.listed: list[Change] = []
        self.left_out = 0
        """Changes that are counted and not listed."""
        self.run_changes: list[RunChange] = []
        self.halted: tuple[set[str], set[str]] = set(), set()
        """Names of the recorded runs that the first and the second policy halt."""
        self.held: tuple[set[str], set[str]] = set(), set()
        """Names of those that wait for a person first."""
        self.errors: Counter[tuple[str, str]] = Counter()
        """Errors of policies, which are denials: by side (`from`, `to`) and reason."""
        self.tokens_more = 0
        """Tokens that the second policy saves over the first, as far as they are known; may be below 0."""
        self.tokens_unknown = 0
        """Runs whose halt changes, and of whose model calls the tokens are not recorded."""

    @property
    def runs(self) -> int:
        """Recorded runs so far; one with several parties counts once."""
        return len(self._runs)

    @property
    def same(self) -> int:
        """Calls that nothing changes for."""
        return self.calls - sum(self.changes.values())

    def fails_on(self, what: str) -> bool:
        """Return True where something changed in a way: one of `CHANGES`, or `any`."""
        stops: Counter[str] = Counter()
        for (_, change), count in self.stops.items():
            stops[change] += count
        both = self.changes + stops
        return both.total() > 0 if what == _ANY else both[what] > 0

    def add(self, run: JudgedRun) -> None:
        """Count a run."""
        before, after = run.before, run.after
        first, second = before.decisions, after.decisions
        self._runs.add(run.recording or run.name)
        self.calls += len(run.calls)
        made = Counter([(told.call.kind, told.call.name, told.agent) for told in run.calls])
        for (kind, name, agent), times in made.items():
            self._row(self.tools if kind == "tool" else self.models, name).calls += times
            self._row(self.agents, agent).calls += times
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            # Most calls are allowed by both, with the same object.
            if one is not other or one.verdict != "allow":
                told = run.calls[i]
                table = self.tools if told.call.kind == "tool" else self.models
                self._count(run, i, table[told.call.name], self.agents[told.agent])
        if before.stops or after.stops:
            self._count_stops(run)
        self._count_halt(run)

    @staticmethod
    def _row(table: dict[str, Row], name: str) -> Row:
        row = table.get(name)
        if row is None:
            row = table[name] = Row()
        return row

    def _count(self, run: JudgedRun, i: int, tool: Row, agent: Row) -> None:
        before, after = run.before.decisions[i], run.after.decisions[i]
        what = changed(before, after)
        if what is None and (i in run.before.modified or i in run.after.modified):
            one, other = (side.modified.get(i, run.calls[i].call).request for side in (run.before, run.after))
            what = "modified" if before.verdict not in {"deny", "ask"} and one != other else None
        named: set[str] = set()
        for decision, side in ((before, "before"), (after, "after")):
            self._note_error(decision, side)
            if decision.verdict not in {"deny", "ask"}:
                continue
            rule = self._row(self.rules, decision.rule)
            rule.calls += decision.rule not in named
            named.add(decision.rule)
            for row in (rule, tool, agent):
                getattr(row, side)[decision.verdict] += 1
        if what is None:
            return
        self.changes[what] += 1
        told = run.calls[i]
        change = Change(
            run=run.name, agent=told.agent, stage="call", place=told.place, kind=told.call.kind,
            name=told.call.name, what=what, before=before, after=after,
        )  # fmt: skip
        for row in (tool, agent, self._row(self.rules, change.rule)):
            row.changes[what] += 1
        self._list(change)

    def _note_error(self, decision: Decision, side: str) -> None:
        if decision.rule == POLICY_ERROR:
            self.errors["from" if side == "before" else "to", decision.reason] += 1

    def _list(self, change: Change) -> None:
        if len(self.listed) < _MOST_LISTED:
            self.listed.append(change)
        else:
            self.left_out += 1

    def _count_stops(self, run: JudgedRun) -> None:
        """Count what is refused or held beside single calls: at most one thing for each place and stage."""
        places: dict[tuple[str, int], list[Decision | None]] = {}
        for side, judged in enumerate((run.before, run.after)):
            for stop in judged.stops:
                found = places.setdefault((stop.stage, stop.index), [None, None])
                known = found[side]
                if known is None or (known.verdict == "ask" and stop.decision.verdict == "deny"):
                    found[side] = stop.decision
                if stop.stage != "batch":  # its calls are judged one by one as well
                    self._note_error(stop.decision, "before" if side == 0 else "after")
        for (stage, index), (before, after) in places.items():
            what = _stop_change(before, after)
            if what is None:
                continue
            self.stops[stage, what] += 1
            told = run.calls[index] if index >= 0 else None
            self._list(
                Change(
                    run=run.name,
                    agent=run.agent if told is None else told.agent,
                    stage=stage,
                    place="" if told is None else told.place,
                    kind="" if told is None else told.call.kind,
                    name="" if told is None else told.call.name,
                    what=what,
                    before=before,
                    after=after,
                )
            )

    def _count_halt(self, run: JudgedRun) -> None:
        before, after = run.before.halt, run.after.halt
        for which, side in enumerate((run.before, run.after)):
            if side.halt is not None:
                self.halted[which].add(run.recording or run.name)
            if side.held is not None:
                self.held[which].add(run.recording or run.name)
        if before is None and after is None:
            return
        found = RunChange(
            run=run.name,
            agent=run.agent,
            before=before,
            after=after,
            before_place=_place(run, before),
            after_place=_place(run, after),
            saved_before=_saved(run.calls, before),
            saved_after=_saved(run.calls, after),
        )
        if not found.is_changed:
            return
        self.run_changes.append(found)
        if found.saved_before is None or found.saved_after is None:
            self.tokens_unknown += 1
        else:
            self.tokens_more += found.saved_after - found.saved_before

    @property
    def newly_halted(self) -> int:
        """Runs that only the second policy halts."""
        return len(self.halted[1] - self.halted[0])

    @property
    def no_longer_halted(self) -> int:
        """Runs that only the first policy halts."""
        return len(self.halted[0] - self.halted[1])

    @property
    def halted_elsewhere(self) -> int:
        """Parties of runs that both policies halt, and not at the same place."""
        return sum(one.before is not None and one.after is not None for one in self.run_changes)

    def to_json(self) -> dict[str, Json]:
        """Return the whole diff as JSON, without what the command adds: its files and their errors."""
        stops: dict[str, Json] = {f"{stage}.{what}": count for (stage, what), count in sorted(self.stops.items())}
        errors: list[Json] = [
            {"policy": side, "reason": reason, "calls": count} for (side, reason), count in self.errors.most_common()
        ]
        runs: list[Json] = [one.to_json() for one in self.run_changes]
        listed: list[Json] = [one.to_json() for one in self.listed]
        return {
            "format": FORMAT,
            "from": self.before,
            "to": self.after,
            "runs": self.runs,
            "calls": self.calls,
            "changes": {**{what: self.changes[what] for what in CHANGES}, "same": self.same},
            "beside_calls": stops,
            "halted": {
                "from": len(self.halted[0]), "to": len(self.halted[1]), "newly": self.newly_halted,
                "no_longer": self.no_longer_halted, "elsewhere": self.halted_elsewhere,
            },
            "held": {"from": len(self.held[0]), "to": len(self.held[1])},
            "tokens_saved": {"known": self.tokens_more, "runs_unknown": self.tokens_unknown},
            "rules": _table(self.rules),
            "tools": _table(self.tools),
            "models": _table(self.models),
            "agents": _table(self.agents),
            "policy_errors": errors,
            "changed_runs": runs,
            "changed_calls": listed,
            "changed_calls_left_out": self.left_out,
        }  # fmt: skip


def _table(rows: Mapping[str, Row]) -> dict[str, Json]:
    return {name: rows[name].to_json() for name in sorted(rows)}


def _stop_change(before: Decision | None, after: Decision | None) -> What | None:
    first, second = (None if one is None else one.verdict for one in (before, after))
    if first == second:
        return None
    if second == "deny":
        return "denied"
    if second == "ask":
        return "asked"
    return "allowed" if first == "deny" else "released"


def _point(stop: StopLike | None) -> tuple[str, int] | None:
    return None if stop is None else (stop.stage, stop.index)


def _place(run: JudgedRun, stop: StopLike | None) -> str:
    return run.calls[stop.index].place if stop is not None and stop.index >= 0 else ""


def _saved(calls: Sequence[RecordedCall], stop: StopLike | None) -> int | None:
    """Return the tokens of the model calls that come after a halt; None where those of one are not recorded."""
    if stop is None or stop.stage == "output":
        return 0
    if stop.stage == "step":
        return None  # no call tells when it was
    first = 0 if stop.index < 0 else stop.index + (stop.stage != "call")
    total = 0
    for told in calls[first:]:
        if told.call.kind != "model":
            continue
        if told.usage is None:
            return None
        total += told.usage.total_tokens
    return total


def _known(tokens: int | None) -> Json:
    return "unknown" if tokens is None else tokens


def _decision_json(decision: Decision | None) -> Json:
    if decision is None:
        return None
    found: dict[str, Json] = {"verdict": decision.verdict, "rule": decision.rule}
    return found | {key: said for key in ("plugin", "source", "reason") if (said := getattr(decision, key))}


def _stop_json(stop: StopLike | None, place: str) -> Json:
    if stop is None:
        return None
    found = _decision_json(stop.decision)
    return {"stage": stop.stage, "call": place, **(found if isinstance(found, dict) else {})}
