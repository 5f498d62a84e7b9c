"""`oao resume`: go on with a run that was suspended or interrupted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import click

from oao_harness.cli.console import console
from oao_harness.cli.finding import find_agent
from oao_harness.cli.origins import agent_of, policies_of
from oao_harness.cli.outcome import end_with
from oao_harness.cli.progress import Progress
from oao_harness.cli.stores import find_outer_run, kept, open_store, store_option, store_url
from oao_harness.cli.unmodified import is_script, resume_script
from oao_harness.errors import UsageError
from oao_harness.journal.timeline import Timeline, text
from oao_harness.loading import import_policies, prefer_working_folder
from oao_harness.runtime.orchestrator import Orchestrator
from oao_hookspecs import Record, RunQuery, Store

__all__ = ["command"]


@click.command("resume", short_help="Go on with a run that was suspended or interrupted.")
@click.argument("id", metavar="[ID]", default="last")
@click.argument("agent", metavar="[MODULE:AGENT]", required=False)
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME", help="As in `oao run`; that of the run by default."
)
@click.option("--framework", metavar="NAME", help="Which adapter drives the agent; found by itself by default.")
@click.option("--allow-changes", is_flag=True, help="Go on although code or policy are other ones now.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output, nothing else.")
@store_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    id: str,
    agent: str | None,
    policies: Sequence[str],
    framework: str | None,
    allow_changes: bool,
    as_json: bool,
    store: str,
) -> None:
    """Go on with a run that was suspended or interrupted, from its journal.

    ID is the id of a run, the unique start of one, or `last`, the default. Its finished calls are served, the next
    one is made. Agent and policy are those that `oao run` was given. Exit code: 0 success, 1 failed, 2 wrong
    command, 3 still waiting for a person.

    \b
    Where it is refused:
      code or policy changed     put it back, or --allow-changes: what the agent
                                 asked for before must still be the same
      a call is held, in doubt   oao approvals; oao approve or oao resolve
      the run is over            oao fork ID: again from where it failed
      somebody is at work on it  wait; a death is noticed after 30 seconds
      its task was redacted      in Python: Orchestrator.resume(..., task=...)

    \b
    Examples:
      oao resume 3f2a
      oao resume last my_agents:support --policy strict --allow-changes
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if not kept(store):
        raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
    with open_store(store) as opened:
        records = find_outer_run(opened, id)
        _require_open(opened, records)
    started = records[0]
    if is_script(started, agent):
        resume_script(ctx, started, policies, store, allow_changes=allow_changes, as_json=as_json)
        return
    where, names = agent_of(started, agent, f"oao resume {id}"), policies_of(started, policies)
    prefer_working_folder()
    on = console()
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(), Progress(on) as progress:
        found = find_agent(where)
        import_policies(names)
        orchestrator = Orchestrator(names, store_url(store), plugins=[] if as_json else [progress])
        try:
            execution_id = text(started, "execution_id")
            report = orchestrator.resume(execution_id, found, framework=framework, allow_changes=allow_changes)
            timeline = Timeline.of(orchestrator.store.read(execution_id))
        finally:
            orchestrator.store.close()
    end_with(ctx, on, report, timeline, as_json=as_json)


def _require_open(store: Store, records: Sequence[Record]) -> None:
    """Refuse a run that is nested or over, before its agent is imported, and say which one is not.

    Raises:
        UsageError: The run is nested in another, or over.
    """
    if records[0].get("parent") is not None:
        outer = text(records[0], "parent")
        nested = text(records[0], "execution_id")
        raise UsageError(f"run {nested!r} is nested in run {outer!r}; go on with that one: oao resume {outer[:8]}")
    over = next((record for record in records if record["type"] == "run.finished"), None)
    if over is None:
        return
    id_ = text(records[0], "execution_id")
    open_ = [
        row
        for status in ("RUNNING", "SUSPENDED")
        for row in store.runs(limit=1, query=RunQuery(status=status, outer=True))
    ]
    newest = max(open_, key=lambda row: row.started_at, default=None)
    told = "" if newest is None else f"; the newest that is not over: oao resume {newest.execution_id[:8]}"
    has_failed = text(over, "status") == "FAILED"
    again = "to try again from where it ended" if has_failed else "for another end of it"
    raise UsageError(
        f"run {id_[:8]} is over ({text(over, 'status')}); {again}: oao fork {id_[:8]}{'' if has_failed else ' --at N'}"
        f"{told}"
    )
