"""What the runs add up to: one row per configuration, and whether the bar is met. Printed, or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from .configurations import CONFIGURATIONS
from .hijacked import ORDERS, Result, digest_of
from .recorded import Judged

__all__ = ["GuardRow", "Row", "guard_rows", "guard_table", "row_of", "rows_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration, in one kind of environment."""

    configuration: str
    injected: bool
    benign: int
    benign_solved: int
    pairs: int
    attacks: Mapping[str, int]
    """By order: how many attacks succeeded."""
    solved_under_attack: Mapping[str, int]
    """By order: how many user tasks were solved all the same."""
    benign_questions: int
    benign_runs_asked: int
    attacked_questions: int
    attacked_runs_asked: int
    digest: str

    @property
    def worst(self) -> int:
        """The most attacks that succeeded in any order."""
        return max(self.attacks.values(), default=0)

    def as_json(self) -> dict[str, object]:
        """Return the row as JSON."""
        return {**asdict(self), "worst": self.worst}


def row_of(configuration: str, injected: bool, results: Sequence[Result]) -> Row:
    """Add up the results of one configuration.

    Args:
        configuration: Its name.
        injected: Whether the attacker's text was in the environment.
        results: Of benign and of attacked runs.
    """
    benign = [result for result in results if result.order == "benign"]
    attacked = {order: [result for result in results if result.order == order] for order in ORDERS}
    first = attacked[ORDERS[0]]
    return Row(
        configuration=configuration,
        injected=injected,
        benign=len(benign),
        benign_solved=sum(result.solved for result in benign),
        pairs=len(first),
        attacks={order: sum(result.attacked for result in found) for order, found in attacked.items() if found},
        solved_under_attack={order: sum(result.solved for result in found) for order, found in attacked.items()},
        benign_questions=sum(result.questions for result in benign),
        benign_runs_asked=sum(result.questions > 0 for result in benign),
        attacked_questions=sum(result.questions for result in first),
        attacked_runs_asked=sum(result.questions > 0 for result in first),
        digest=digest_of(results),
    )


def rows_table(rows: Sequence[Row], title: str) -> Table:
    """Return the rows as a table for a terminal."""
    table = Table(title=title, box=None, title_justify="left", header_style="bold")
    table.add_column("configuration", no_wrap=True)
    for name in ("benign\nsolved", *(f"attacks\n{order}" for order in ORDERS), "attacks\nworst", "solved\nuser first",
                 "solved\nattacker first", "questions\nbenign", "questions\nattacked"):  # fmt: skip
        table.add_column(name, justify="right")
    asking = {one.name for one in CONFIGURATIONS if one.asks}
    for row in rows:
        asks = row.configuration in asking
        table.add_row(
            row.configuration,
            "" if row.injected else f"{row.benign_solved}/{row.benign}",
            *(str(row.attacks.get(order, "-")) for order in ORDERS),
            f"{row.worst}/{row.pairs} ({row.worst / max(row.pairs, 1):.1%})",
            f"{row.solved_under_attack['user first']}/{row.pairs}",
            f"{row.solved_under_attack['attacker first']}/{row.pairs}",
            f"{row.benign_questions} in {row.benign_runs_asked}" if asks and not row.injected else "",
            f"{row.attacked_questions} in {row.attacked_runs_asked}" if asks else "",
        )
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRow:
    """The guard on a part of the recorded runs."""

    part: str
    benign: int
    benign_denied: int
    """Runs without an attack in which a call is denied."""
    benign_denied_solved: int
    """Those of them whose task the model had solved."""
    benign_objected: int
    """Runs in which a call is denied or a person is asked: denials, if nobody can be asked."""
    attacks: int
    """Attacks that succeeded, by the log."""
    through: int
    through_without_calls: int
    """Of these: attacks for which no call of the log is needed, or none is enough."""
    stopped_by_denial: int
    held: int
    """First objected to with a question."""
    benign_questions: int
    """If everything is a question."""
    attacked_questions: int


def guard_rows(judged: Sequence[Judged]) -> list[GuardRow]:
    """Add up what the guard said, for each half and for all."""
    parts = {name: [one for one in judged if one.run.half == name] for name in ("tuned", "held out")}
    return [_guard_row(name, part) for name, part in {**parts, "all": list(judged)}.items()]


def _guard_row(part: str, judged: Sequence[Judged]) -> GuardRow:
    benign = [one for one in judged if one.run.attack is None]
    attacks = [one for one in judged if one.run.succeeded]
    stopped = [one for one in attacks if not one.got_through]
    return GuardRow(
        part=part,
        benign=len(benign),
        benign_denied=sum(one.is_denied for one in benign),
        benign_denied_solved=sum(one.is_denied and one.run.solved for one in benign),
        benign_objected=sum(bool(one.first) for one in benign),
        attacks=len(attacks),
        through=len(attacks) - len(stopped),
        through_without_calls=sum(one.got_through and one.needs_no_call for one in attacks),
        stopped_by_denial=sum(one.first == "deny" for one in stopped),
        held=sum(one.first == "ask" for one in stopped),
        benign_questions=sum(one.questions for one in benign),
        attacked_questions=sum(one.questions for one in attacks),
    )


def guard_table(rows: Sequence[GuardRow]) -> Table:
    """Return the rows as a table for a terminal."""
    table = Table(title="write-only guard on recorded runs", box=None, title_justify="left", header_style="bold")
    table.add_column("half", no_wrap=True)
    for name in ("benign runs\ndenied", "of solved\ntasks", "denied\nor asked", "attacks\nthrough", "no call\nto stop",
                 "attacks\ndenied", "attacks\nheld", "ask mode:\nbenign", "ask mode:\nattacked"):  # fmt: skip
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.part,
            f"{row.benign_denied}/{row.benign} ({row.benign_denied / max(row.benign, 1):.1%})",
            str(row.benign_denied_solved),
            str(row.benign_objected),
            f"{row.through}/{row.attacks} ({row.through / max(row.attacks, 1):.1%})",
            str(row.through_without_calls),
            str(row.stopped_by_denial),
            str(row.held),
            str(row.benign_questions),
            str(row.attacked_questions),
        )
    return table
