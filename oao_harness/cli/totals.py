"""Two runs side by side: what each took, spent and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.text import Text

from oao_harness.cli.columns import Column, print_columns
from oao_harness.cli.console import compact, one_line
from oao_harness.cli.units import count, dollars, duration
from oao_harness.journal.recording import Recording
from oao_harness.journal.timeline import Timeline, mapping, number
from oao_hookspecs import Json

__all__ = ["Side", "print_sides"]

_COUNTED: Final = ("steps", "model_calls", "tool_calls", "tokens")
_OUTPUT_WIDTH: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two runs or recordings that are compared."""

    name: str
    """What a person called it, or the start of its id."""
    recording: Recording
    execution_id: str = ""
    """Empty for a recording."""
    forked_from: str = ""
    forked_at: int | None = None
    """Number of the first call that a fork made itself."""
    status: str = ""
    totals: Mapping[str, Json]
    cost_usd: float | None = None
    duration_s: float | None = None
    """Seconds at work."""
    output: Json = None

    @classmethod
    def of_recording(cls, name: str, recording: Recording) -> Side:
        """Return a recording as a side."""
        return cls(name=name, recording=recording, totals=recording.totals)

    @classmethod
    def of_run(cls, timeline: Timeline, recording: Recording) -> Side:
        """Return a stored run as a side.

        Args:
            timeline: The run.
            recording: Its calls, and those of the runs nested in it.
        """
        execution_id = str(timeline.started.get("execution_id", ""))
        forked = mapping(timeline.started, "forked")
        return cls(
            name=execution_id[:8],
            recording=recording,
            execution_id=execution_id,
            forked_from=str(forked.get("run", "")),
            forked_at=int(number(forked, "at")) if forked else None,
            status=timeline.status,
            totals=timeline.totals,
            cost_usd=timeline.cost_usd,
            duration_s=timeline.running_s,
            output=None if timeline.finished is None else timeline.finished.get("output"),
        )

    def to_json(self) -> dict[str, Json]:
        """Return it for programs."""
        return {
            "name": self.name,
            "execution_id": self.execution_id or None,
            "forked_from": self.forked_from or None,
            "forked_at": self.forked_at,
            "status": self.status or None,
            **{key: self.totals.get(key, 0) for key in _COUNTED},
            "cost_usd": self.cost_usd,
            "duration_s": None if self.duration_s is None else round(self.duration_s, 6),
            "output": self.output,
        }


def print_sides(on: Console, old: Side, new: Side) -> None:
    """Print totals, cost, duration, status and output of both, and the difference of what is counted.

    Args:
        on: Where to.
        old: The first.
        new: The other.
    """
    names = [side.name if side.name != other.name else f"{side.name} ({nth})" for side, other, nth in
             ((old, new, "1"), (new, old, "2"))]  # fmt: skip
    rows: list[Sequence[Text]] = []
    sides = (old, new)

    def add(title: str, values: Sequence[str], delta: str = "") -> None:
        if any(values):
            changed = values[0] != values[1]
            cells = [Text(value, style="bold" if changed else "") for value in values]
            cells[1].append(delta, style="yellow")
            rows.append([Text(title, style="dim"), *cells])

    add("status", [side.status for side in sides])
    for key in _COUNTED:
        one, other = (int(number(side.totals, key)) for side in sides)
        add(key.replace("_", " "), [count(one), count(other)], f" ({other - one:+,})" if one != other else "")
    add("cost", [_known(side.cost_usd, dollars) for side in sides])
    add("at work", [_known(side.duration_s, duration) for side in sides])
    add("output", [_output(side) for side in sides])
    columns = [Column(title=""), *(Column(title=one_line(name), wraps=True, shrinks=True) for name in names)]
    print_columns(on, columns, rows)


def _known(value: float | None, shown: Callable[[float], str]) -> str:
    return "" if value is None else shown(value)


def _output(side: Side) -> str:
    told = "" if side.output is None else compact(side.output)
    return told if len(told) <= _OUTPUT_WIDTH else f"{told[: _OUTPUT_WIDTH - 3]}..."
