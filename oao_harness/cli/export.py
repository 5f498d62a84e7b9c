"""`oao export`: a stored run becomes a recording, the fixture of a test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import click
from rich.text import Text

from oao_harness.cli.console import console
from oao_harness.cli.recorded import shown
from oao_harness.cli.stores import find_outer_run, kept, open_store, store_option
from oao_harness.cli.units import count, plural
from oao_harness.config import project_scrubber
from oao_harness.errors import UsageError
from oao_harness.journal.nesting import tape_of
from oao_harness.journal.places import recording_place
from oao_harness.journal.recording import Recording
from oao_harness.journal.timeline import text

__all__ = ["command"]


@click.command("export", short_help="Make a stored run a recording file.")
@click.argument("id", metavar="ID")
@click.option(
    "-o", "--output", metavar="FILE", help="Where to; by default where --test keeps it, else AGENT-ID.oao.json."
)
@click.option("--test", default="", metavar="NODEID", help="The test that it is for: tests/test_x.py::test_y.")
@click.option("--force", is_flag=True, help="Replace FILE where it exists.")
@store_option
def command(id: str, *, output: str | None, test: str, force: bool, store: str) -> None:
    """Make a stored run, and the runs nested in it, a recording file.

    A run of production becomes the fixture of a test. Secrets are taken out, see [tool.oao.redact].

    \b
    Examples:
      oao export last
      oao export 3f2a --test tests/test_refunds.py::test_refund
      oao export 3f2a -o before.oao.json
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if test and "::" not in test:
        raise UsageError(f"--test {test!r} is no node id; write for example tests/test_refunds.py::test_refund")
    if not kept(store):
        raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
    with open_store(store) as opened:
        records = find_outer_run(opened, id)
        execution_id = text(records[0], "execution_id")
        tape = tape_of(execution_id, lambda one: list(opened.read(one)))
    recording = Recording.from_records(
        tape, test=test, header={"run": execution_id, "task": records[0].get("input", records[0]["task"])}
    )
    if not recording.events:
        raise UsageError(f"run {execution_id[:8]} made no call, so there is nothing to record")
    agent = re.sub(r"[^\w.-]+", "-", text(records[0], "agent")) or "run"
    path = Path(output or (_place(test) if test else f"{agent}-{execution_id[:8]}.oao.json"))
    if path.exists() and not force:
        raise UsageError(f"{shown(path)!r} exists; name another with -o FILE, or replace it with --force")
    recording.save(path, scrubber=project_scrubber())
    on = console()
    totals = recording.totals
    tokens = count(cast("int", totals["tokens"]))
    line = f" {shown(path)}: {plural(len(recording.events), 'step')}, {tokens} tokens"
    on.print(Text.assemble(("exported", "green"), line), soft_wrap=True)
    open_ended = sum(not event.finished for event in recording.events)
    if open_ended:
        on.print(Text(f"{plural(open_ended, 'call')} had not ended; a replay stops there", style="yellow"))
    replay = f"pytest {test}" if test else f"oao replay {shown(path)} --agent MODULE:AGENT"
    on.print(Text(f"replay it with: {replay}", style="dim"), soft_wrap=True)


def _place(test: str) -> Path:
    return recording_place(Path(test.partition("::")[0]), test)
