"""Who decided what about each call of a run, and where that is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import one_line
from oao_harness.cli.render import VERDICT_STYLES, Column, print_columns, print_verdict
from oao_harness.journal.timeline import Moment, Timeline, mapping, text
from oao_hookspecs import Json

__all__ = ["print_decisions"]

_COLUMNS = (
    Column(title="#", right=True),
    Column(title="call"),
    Column(title="decision"),
    Column(title="rule"),
    Column(title="written in"),
    Column(title="plugin", optional=True),
    Column(title="reason", shrinks=True, wraps=True),
)


def print_decisions(on: Console, timeline: Timeline) -> None:
    """Print one line for each call: verdict, rule, file and line, plugin, reason.

    Args:
        on: Where to.
        timeline: The run.
    """
    print_columns(on, _COLUMNS, [_cells(moment) for moment in timeline.calls])
    if not timeline.calls:
        on.print(Text(" no call passed the gate", style="dim"))
    on.print()
    print_verdict(on, timeline)


def _cells(moment: Moment) -> Sequence[Text]:
    record = moment.record
    decision = mapping(record, "decision")
    return [
        Text(text(record, "n"), style="dim"),
        Text(f"{text(record, 'kind')} {one_line(text(record, 'name'))}"),
        _verdict(record, decision),
        Text(one_line(text(decision, "rule"))),
        Text(text(decision, "source"), style="dim"),
        Text(one_line(text(decision, "plugin")), style="dim"),
        Text(one_line(text(decision, "reason"))),
    ]


def _verdict(record: Mapping[str, Json], decision: Mapping[str, Json]) -> Text:
    verdict, would = text(decision, "verdict"), text(decision, "would")
    if record.get("approvals"):
        return Text(f"{verdict}, approved", style="green")
    return Text(f"{verdict}, would {would}" if would else verdict, style=VERDICT_STYLES.get(verdict, ""))
