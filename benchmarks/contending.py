"""What a row of the table is made of: contenders, the figures that each gives, and goals. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OURS = "ours"
"""The process in which what is ours is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number that every contender of a row gives, each round."""

    key: str
    unit: str
    digits: int = 1


CPU_US = Figure(key="cpu_us", unit="us")
WALL_US = Figure(key="wall_us", unit="us wall")
WALL_MS = Figure(key="wall_ms", unit="ms wall")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One line of a row."""

    name: str
    make: str
    """`module:function` that returns what measures: a function of nothing that returns figures by key."""
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    """Keyword arguments of that function, as JSON."""
    process: str = OURS
    """Contenders that name the same process share one for all rounds. Empty: a fresh one for every round."""
    packages: Sequence[str] = ()
    """The distributions that are measured, for the record of versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound on the first figure of a contender, or on another one that is named."""

    says: str
    contender: str
    at_most: float | None = None
    at_least: float | None = None
    than: Sequence[str] = ()
    """The bound is a multiple of the best of these contenders; of nobody, if empty."""
    figure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the issue's table."""

    id: str
    title: str
    how: str
    """What is measured, in a sentence or two."""
    figures: Sequence[Figure]
    contenders: Sequence[Contender]
    goals: Sequence[Goal]
    beside: str = ""
    """The contender that ratios are against; the first one by default."""
    rounds: int = 7
    limit_s: float = 90.0
    """For one round of one contender."""
    takes_minutes: bool = False
    """Measured only where it is named, or all are."""
    note: str = ""
    """Why a goal is missed, and what would reach it; what is not alike about the contenders."""

    @property
    def base(self) -> str:
        """The name of the contender that ratios are against."""
        return self.beside or self.contenders[0].name
