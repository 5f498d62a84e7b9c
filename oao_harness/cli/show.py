"""`oao show`: one run from its journal, or one recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.text import Text

from oao_harness.cli.console import compact, console, one_line, print_json
from oao_harness.cli.decisions import print_decisions
from oao_harness.cli.recorded import is_file_name, records_of, shown
from oao_harness.cli.render import print_run, print_timeline
from oao_harness.cli.stores import find_outer_run, kept, open_store, store_option
from oao_harness.cli.trees import forks_of
from oao_harness.cli.units import count, plural
from oao_harness.errors import UsageError
from oao_harness.journal.attempts import read_attempt
from oao_harness.journal.recording import Recording
from oao_harness.journal.timeline import Kin, Timeline, mapping, text
from oao_hookspecs import Record, Store

__all__ = ["command"]


@click.command("show", short_help="Show what happened in one run, call by call.")
@click.argument("id", metavar="[ID|FILE]", default="last")
@click.option("--json", "as_json", is_flag=True, help="Print the journal's records, one JSON document a line.")
@click.option("--decisions", is_flag=True, help="Print who decided what about each call: rule, file and line, reason.")
@store_option
def command(id: str, as_json: bool, decisions: bool, store: str) -> None:
    """Show what happened in one run, call by call.

    ID is the id of a run, the unique start of one, or `last`, the default. FILE is a recording, or
    an attempt at one in .oao/failed.

    \b
    Examples:
      oao show last
      oao show 3f2a
      oao show last --decisions
      oao show tests/recordings/test_refund/test_refund.oao.json
      oao show last --json | jq 'select(.type == "call")'
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if is_file_name(id):
        _show_file(id, as_json=as_json, decisions=decisions)
        return
    if not kept(store):
        raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
    with open_store(store) as opened:
        records = find_outer_run(opened, id)
        timeline = Timeline.of(records, lambda nested: list(opened.read(nested)))
        timeline.kin = _kin(opened, records)
    if as_json:
        for record in records:
            print_json(record)
        return
    if decisions:
        print_decisions(console(), timeline)
        return
    print_run(console(), timeline, details=True)


def _kin(store: Store, records: Sequence[Record]) -> Kin:
    """Return where a run comes from and what came of it."""
    source = text(mapping(records[0], "forked"), "run")
    forks = forks_of(store, text(records[0], "execution_id"))
    return Kin(
        forks=[(run.execution_id, run.status) for run in forks],
        is_source_gone=bool(source) and next(iter(store.read(source)), None) is None,
    )


def _show_file(path: str, *, as_json: bool, decisions: bool) -> None:
    is_attempt = path.endswith(".jsonl")
    recording = Recording.from_records(read_attempt(Path(path))) if is_attempt else Recording.load(path)
    records = records_of(recording)
    if as_json:
        for record in records:
            print_json(record)
        return
    on, timeline = console(), Timeline.of(records)
    if decisions:
        print_decisions(on, timeline)
        return
    on.print(Text(f" {one_line(recording.test) or shown(Path(path))}", style="bold"), soft_wrap=True)
    header = recording.header
    versions = header.get("sdk")
    sdk = ", ".join(f"{name} {one}" for name, one in versions.items()) if isinstance(versions, Mapping) else ""
    for label, value in (
        ("file", shown(Path(path)) if recording.test else ""),
        ("recorded", compact(header.get("at", ""))),
        ("policy", compact(header.get("policy", ""))),
        ("with", ", ".join(filter(None, [f"oao {header['oao']}" if "oao" in header else "", sdk]))),
    ):
        if value:
            on.print(Text.assemble((f" {label:<9}", "dim"), one_line(value)), no_wrap=True, overflow="ellipsis")
    on.print()
    # The start of a run is nothing that a recording knows.
    timeline.moments = [one for one in timeline.moments if one.record["type"] in {"call", "http"}]
    print_timeline(on, timeline, details=True)
    on.print()
    nouns = {"steps": "step", "model_calls": "model call", "tool_calls": "tool call"}
    parts = [plural(int(str(recording.totals[key])), noun) for key, noun in nouns.items()]
    on.print(Text(f" {', '.join(parts)}, {count(int(str(recording.totals['tokens'])))} tokens"), soft_wrap=True)
