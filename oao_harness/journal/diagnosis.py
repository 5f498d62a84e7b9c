"""Says how a call diverges from a recording, most telling first. Pure; only what it says looks for what is near."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from oao_harness.journal.differences import Comparison, Difference, Lens, brief, compare
from oao_harness.journal.events import HttpCall
from oao_harness.journal.paths import Rules
from oao_harness.journal.recording import RecordedEvent
from oao_harness.journal.records import request_of
from oao_harness.journal.renaming import Conflict, Renaming
from oao_harness.journal.replay import Divergence
from oao_harness.journal.shape import Shape, Shaper
from oao_harness.journal.tokens import Token, cut
from oao_harness.journal.waiting import WaitingRun
from oao_hookspecs import Call, Json

__all__ = ["Situation", "explain"]

_SUFFIX: Final = "(replay diverged)"
_MOST_DETAILS: Final = 8
_MOST_LINES: Final = 3
_MOST_NEIGHBOURS: Final = 20
_MOST_NAMED: Final = 5
_TOKEN_WIDTH: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where a replay stands when a call fits nothing."""

    run: str
    """Name of the live run."""
    playable: Sequence[WaitingRun]
    """The recorded runs that it may play."""
    runs: Sequence[str]
    """Names of all recorded runs."""
    expected: RecordedEvent | None
    """The one event that may come, where the order is strict."""
    shaper: Shaper
    renaming: Renaming

    def lens(self, conflicts: Sequence[Conflict] = ()) -> Lens:
        """Return what differences overlook: what is ignored, and ids that stand for the recorded ones."""
        wrong = {(one.live, one.recorded) for one in conflicts}
        kinds = self.shaper.volatile

        def is_equal(old: str, new: str) -> bool:
            (old_shape, recorded), (new_shape, live) = cut(old, kinds), cut(new, kinds)
            if old_shape != new_shape or len(recorded) != len(live):
                return False
            if conflicts:
                return wrong.isdisjoint(zip(live, recorded, strict=True))
            return not self.renaming.conflicts(live, recorded)

        def translate(new: str) -> str:
            for token in set(cut(new, kinds)[1]):
                new = new.replace(token[1], self.renaming.translated(token)[1])
            return new

        def digest(value: Json, rules: Rules) -> Hashable:
            part, tokens = self.shaper.part(value, rules)
            return part, tuple(self.renaming.translated(token) for token in tokens)

        def recorded_digest(value: Json, rules: Rules) -> Hashable:
            return self.shaper.part(value, rules)

        return Lens(
            rules=self.shaper.rules,
            translate=translate,
            is_equal=is_equal,
            digest=digest,
            recorded_digest=recorded_digest,
        )


def explain(call: Call, shape: Shape, situation: Situation) -> Divergence:
    """Return how a call diverges.

    Args:
        call: The live call; nothing that is left fits it.
        shape: Its shape.
        situation: Where the replay stands.
    """
    if not situation.playable and isinstance(call, HttpCall):
        text = f"{_named_call(call)}: the recording has no such request here {_SUFFIX}"
        return Divergence(kind="unexpected", text=text, name=call.name)
    if not situation.playable:
        names = ", ".join(situation.runs[:_MOST_NAMED])
        what = f"{call.kind} {call.name} of run {situation.run}"
        text = f"{what}: no such run is left; recorded: {names} {_SUFFIX}"
        return Divergence(kind="unexpected", text=text, name=call.name)
    run = next((one for one in situation.playable if one.fitting(shape)), situation.playable[0])
    return _Diagnosis(call, shape, situation, run).told()


class _Diagnosis:
    def __init__(self, call: Call, shape: Shape, situation: Situation, run: WaitingRun) -> None:
        self._call = call
        self._shape = shape
        self._situation = situation
        self._run = run
        self._what = _named_call(call)
        self._left = list(run.left())
        reach = run.reach()
        expected = situation.expected
        self._free = [one for one in self._left if (one.start <= reach if expected is None else one.n == expected.n)]

    def told(self) -> Divergence:
        fitting = self._run.fitting(self._shape)
        conflicts = {
            one.n: self._situation.renaming.conflicts(self._shape.tokens, self._tokens(one)) for one in fitting
        }
        if early := [one for one in fitting if not conflicts[one.n] and one not in self._free]:
            return self._too_early(early[0])
        if fitting:
            event = min(fitting, key=lambda one: (one not in self._free, len(conflicts[one.n])))
            return self._mistaken(event, conflicts[event.n])
        if alike := [one for one in self._free if (one.kind, one.name) == (self._call.kind, self._call.name)]:
            return self._changed(alike)
        return self._unforeseen()

    def _unforeseen(self) -> Divergence:
        step = self._free[0].n if self._free else self._run.events[-1].n + 1 if self._run.events else 1
        line = f"step {step} {self._what}"
        same = [one.n for one in self._run.events if self._digest(one) == self._shape.digest]
        if same:
            count = f"{_ordinal(len(same) + 1)} identical call, recorded {len(same)}"
            where = f"recorded as {'step' if len(same) == 1 else 'steps'} {_numbers(same)}"
            return self._divergence("repeat", f"{line}: {count} {_SUFFIX}", step, [where, *self._next()])
        if not self._left:
            steps = len(self._run.events)
            text = f"{line}: the recording ends after {steps} {'step' if steps == 1 else 'steps'} {_SUFFIX}"
            return self._divergence("exhausted", text, step)
        models = [one for one in self._free if one.kind == self._call.kind == "model"]
        if models:
            return self._changed(models)
        details = [*(f"- {_asked(one.call)}" for one in self._free[:3]), f"+ {_asked(self._call)}", *self._progress()]
        expected = " or ".join(list(dict.fromkeys(f"{one.kind} {one.name}" for one in self._free))[:3])
        return self._divergence(
            "unexpected", f"step {step}: {self._what} instead of {expected} {_SUFFIX}", step, details
        )

    def _changed(self, alike: Sequence[RecordedEvent]) -> Divergence:
        """Compare with the nearest event that may come now; for the message, never to serve it."""
        live = request_of(self._call)
        lens = self._situation.lens()
        found = [(one, compare(one.kind, one.request, live, lens)) for one in alike[:_MOST_NEIGHBOURS]]
        event, comparison = min(found, key=lambda pair: (len(pair[1].differences), -pair[1].equal))
        if event.name == self._call.name:
            line = f"step {event.n} {self._what}: {comparison.headline} {_SUFFIX}"
        else:
            line = f"step {event.n} model: {event.name} -> {self._call.name} {_SUFFIX}"
        return self._divergence("changed", line, event.n, self._details(comparison), comparison.differences)

    def _mistaken(self, event: RecordedEvent, conflicts: Sequence[Conflict]) -> Divergence:
        """Say which id is not the one that stands for the recorded one."""
        first = conflicts[0]
        crossed = next((one for one in conflicts if (one.live, one.recorded) == (first.recorded, first.live)), None)
        if crossed is not None:
            said = f"{_shown(first.recorded)} and {_shown(first.live)} are swapped"
        else:
            said = f"{_shown(first.live)} is used where the recording has {_shown(first.recorded)}"
        comparison = compare(event.kind, event.request, request_of(self._call), self._situation.lens(conflicts))
        reasons = list(dict.fromkeys(_reason(one) for one in conflicts))[:2] if crossed is None else []
        details = [*self._details(comparison), *reasons]
        line = f"step {event.n} {self._what}: {said} {_SUFFIX}"
        return self._divergence("identity", line, event.n, details, comparison.differences)

    def _too_early(self, event: RecordedEvent) -> Divergence:
        strict = self._situation.expected is not None
        blockers = [one for one in self._left if (one.start < event.start if strict else one.end < event.start)]
        if strict and self._situation.expected not in blockers:
            blockers = [one for one in [self._situation.expected] if one is not None]
        line = f"step {event.n} {self._what} came before {_named(blockers, ', ')} {_SUFFIX}"
        reason = ["the order is strict: calls that overlapped when they were recorded may not swap"] if strict else []
        return self._divergence("order", line, event.n, [*reason, *self._progress()])

    def _divergence(
        self, kind: str, line: str, step: int, details: Iterable[str] = (), differences: tuple[Difference, ...] = ()
    ) -> Divergence:
        text = "\n".join([line, *(f"  {detail}" for detail in details)])
        return Divergence(kind=kind, text=text, step=step, name=self._call.name, differences=differences)  # type: ignore[arg-type]

    def _details(self, comparison: Comparison) -> list[str]:
        shown = list(_abridged(comparison.differences))
        lines = shown[:_MOST_DETAILS]
        if (more := len(shown) - _MOST_DETAILS) > 0:
            lines.append(f"... and {more} more")
        other = "other " if comparison.differences else ""
        equal = f"{comparison.equal} {other}{'value is' if comparison.equal == 1 else 'values are'} equal"
        end = [*([equal] if comparison.equal else []), *self._progress()]
        return [*lines, *(["; ".join(end)] if end else [])]

    def _progress(self) -> list[str]:
        """Say how far the replay came."""
        served = [one.n for one in self._run.events if not self._run.waits(one)]
        if not served:
            return []
        of_run = f" of run {self._run.name}" if len(self._situation.runs) > 1 else ""
        return [f"{'step' if len(served) == 1 else 'steps'} {_numbers(served)}{of_run} matched"]

    def _next(self) -> list[str]:
        return [f"expected now: {_named(self._free, ' or ')}"] if self._free else ["nothing else is left to replay"]

    def _tokens(self, event: RecordedEvent) -> Sequence[Token]:
        return self._situation.shaper.shape(event.kind, event.name, event.request).tokens

    def _digest(self, event: RecordedEvent) -> str:
        return self._situation.shaper.shape(event.kind, event.name, event.request).digest


def _abridged(differences: Sequence[Difference]) -> Iterable[str]:
    """Return differences as lines, few of any one text: the next place tells more than its tenth line."""
    for text, group in groupby(differences, key=lambda one: one.path.partition(" line ")[0]):
        lines = [one.line for one in group]
        yield from lines[:_MOST_LINES]
        if len(lines) > _MOST_LINES:
            yield f"... and {len(lines) - _MOST_LINES} more lines of {text}"


def _named_call(call: Call) -> str:
    """Return kind and name of a call; of an HTTP request the whole URL but for the query."""
    if isinstance(call, HttpCall):
        return f"http {call.request['method']} {call.request['url']}"
    return f"{call.kind} {call.name}"


def _asked(call: Call) -> str:
    """Return a call in a few words: a tool with its arguments, a model with the last message."""
    if isinstance(call, HttpCall):
        return _named_call(call)
    if call.kind == "model":
        content = call.messages[-1].get("content") if call.messages else None
        said = f", last {brief(content, 60)}" if isinstance(content, str) and content else ""
        return f"model {call.name}: {len(call.messages)} messages{said}"
    shown = [f"{name}={brief(value)}" for name, value in list(call.arguments.items())[:_MOST_NAMED]]
    more = ", ..." if len(call.arguments) > _MOST_NAMED else ""
    return f"tool {call.name}({', '.join(shown)}{more})"


def _reason(conflict: Conflict) -> str:
    """Say since when the ids mean something else."""
    live, recorded = _shown(conflict.live), _shown(conflict.recorded)
    since = f" since step {conflict.since}" if conflict.since is not None else " in this request"
    if conflict.meant is not None and conflict.meant != conflict.recorded:
        stands = "is itself" if conflict.meant == conflict.live else f"stands for {_shown(conflict.meant)}"
        return f"{live} {stands}{since}"
    if conflict.answered:
        return f"{recorded} came with the answer of step {conflict.since}: nothing else may stand for it"
    if conflict.expected is not None:
        stands = "is itself" if conflict.expected == conflict.recorded else f"stands for {recorded}"
        return f"{_shown(conflict.expected)} {stands}{since}"
    return f"{live} already stands for another id of this request"


def _shown(token: Token) -> str:
    text = token[1] if token[0] != "port" else f"port {token[1]}"
    return text if len(text) <= _TOKEN_WIDTH else f"{text[:10]}..{text[-6:]}"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _named(events: Sequence[RecordedEvent], joined: str) -> str:
    """Return events by their names: `tool search #3, #4 or model gpt-x #5`."""
    names = [
        f"{kind} {name} {', '.join(f'#{one.n}' for one in same)}"
        for (kind, name), same in groupby(events[:_MOST_NAMED], key=lambda one: (one.kind, one.name))
    ]
    more = f" and {len(events) - _MOST_NAMED} more" if len(events) > _MOST_NAMED else ""
    return joined.join(names) + more


def _numbers(numbers: Sequence[int]) -> str:
    """Return numbers as ranges: `1-6, 9`."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    texts = ["-".join(map(str, one)) for one in ranges]
    return ", ".join(texts[:_MOST_NAMED]) + (" ..." if len(texts) > _MOST_NAMED else "")
