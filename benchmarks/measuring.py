"""Measures rows: all contenders of a row in turns, round by round, and what the rounds say together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.contending import Contender, Goal, Row
from benchmarks.processes import FailedError, MissingError, processes

Rounds = list[dict[str, float]]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How thoroughly is measured."""

    quick: bool = False
    slice_s: float = 0.15
    """Seconds of one round of one contender, where that can be chosen."""
    wait_s: float = 20.0
    """Seconds that the rounds of a row wait for quiet moments, together."""


QUICK = Settings(quick=True, slice_s=0.005, wait_s=0.0)
QUICK_ROUNDS = 2


def rounds_of(row: Row, settings: Settings) -> int:
    """Return how many rounds of a row are measured."""
    return QUICK_ROUNDS if settings.quick else row.rounds


def measure(row: Row, settings: Settings, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Return the record of a row: see `results.json`.

    Every second round goes through the contenders backwards, so that none of them is always the one after another.
    """
    count = rounds_of(row, settings)
    found: dict[str, Rounds] = {one.name: [] for one in row.contenders}
    errors: dict[str, tuple[str, str]] = {}
    loads, quiet, waited_s = [machine.load()], 0, 0.0
    with processes(settings.slice_s) as at:
        for number in range(count):
            was_quiet, seconds = machine.wait_for_quiet(settings.wait_s - waited_s)
            quiet, waited_s = quiet + was_quiet, waited_s + seconds
            for one in row.contenders if number % 2 == 0 else reversed(row.contenders):
                tell(one.name)
                if one.name in errors:
                    continue
                try:
                    found[one.name].append(at.measure(one, row.limit_s))
                except MissingError as missing:
                    errors[one.name] = "missing", str(missing)
                except FailedError as failed:
                    errors[one.name] = "error", str(failed)
            loads.append(machine.load())
    # One that failed at all has no numbers: those of its better rounds would flatter it.
    sound = {name: rounds for name, rounds in found.items() if name not in errors}
    return {
        "id": row.id,
        "title": row.title,
        "how": row.how,
        "rounds": count,
        "load": {
            "before": round(loads[0], 2),
            "after": round(loads[-1], 2),
            "most": round(max(loads), 2),
            "quiet_rounds": quiet,
        },
        "figures": [{"key": one.key, "unit": one.unit, "digits": one.digits} for one in row.figures],
        "beside": row.base,
        "contenders": [_contender(row, one, sound, errors) for one in row.contenders],
        "goals": [_goal(row, goal, sound) for goal in row.goals],
        "note": row.note,
    }


def _contender(
    row: Row, one: Contender, sound: Mapping[str, Rounds], errors: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    told: dict[str, Any] = {"name": one.name, "packages": list(one.packages)}
    if one.name in errors:
        kind, why = errors[one.name]
        return {**told, kind: why}
    told["figures"] = {}
    for figure in row.figures:
        values = [values[figure.key] for values in sound[one.name] if figure.key in values]
        if values:
            told["figures"][figure.key] = {
                "median": significant(median(values)),
                "min": significant(min(values)),
                "max": significant(max(values)),
                "rounds": [significant(value) for value in values],
            }
    ratio = ratio_of(sound, one.name, (row.base,), row.figures[0].key, least=True)
    return {**told, "ratio": None if ratio is None else significant(ratio)}


def _goal(row: Row, goal: Goal, sound: Mapping[str, Rounds]) -> dict[str, Any]:
    key = goal.figure or row.figures[0].key
    bound = goal.at_most if goal.at_most is not None else goal.at_least
    assert bound is not None
    value = ratio_of(sound, goal.contender, goal.than, key, least=goal.at_most is not None)
    met = None if value is None else value <= bound if goal.at_most is not None else value >= bound
    return {
        "says": goal.says,
        "contender": goal.contender,
        "value": None if value is None else significant(value),
        "bound": bound,
        "kind": "at_most" if goal.at_most is not None else "at_least",
        "than": list(goal.than),
        "met": met,
    }


def ratio_of(sound: Mapping[str, Rounds], name: str, than: Sequence[str], key: str, *, least: bool) -> float | None:
    """Return a contender's figure, as a multiple of the least or greatest of some others; None where one is missing.

    Of one other it is the median of the ratios of each round: what slows a round slows both.
    """
    if not sound.get(name):
        return None
    ours = [values[key] for values in sound[name] if key in values]
    theirs = [[values[key] for values in sound[other] if key in values] for other in than if other in sound]
    theirs = [values for values in theirs if values]
    if not ours or (than and not theirs):
        return None
    if not than:
        return median(ours)
    if len(theirs) == 1 and len(theirs[0]) == len(ours):
        return median(a / b for a, b in zip(ours, theirs[0], strict=True)) if all(theirs[0]) else None
    best = (min if least else max)(median(values) for values in theirs)
    return median(ours) / best if best else None


def significant(value: float) -> float:
    """Return a number with the digits that mean something."""
    return float(f"{value:.4g}")
