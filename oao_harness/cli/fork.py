"""`oao fork`: run an agent again from the middle of a run."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence

import click

from oao_harness.cli.console import console
from oao_harness.cli.finding import find_agent
from oao_harness.cli.origins import agent_of, policies_of
from oao_harness.cli.outcome import end_with
from oao_harness.cli.progress import Progress
from oao_harness.cli.stores import find_outer_run, kept, open_store, store_option, store_url
from oao_harness.errors import AgentError, UsageError
from oao_harness.journal.branching import Edit, where_it_ended
from oao_harness.journal.timeline import Timeline, text
from oao_harness.loading import import_policies, prefer_working_folder
from oao_harness.runtime.graph import TaskGraph
from oao_harness.runtime.graph_forking import branch_graph
from oao_harness.runtime.orchestrator import Orchestrator, name_of
from oao_harness.runtime.report import ExecutionReport
from oao_hookspecs import Json

__all__ = ["command"]


def _at(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the number of a call, which is from 1, or the name of a node."""
    if value is not None and value.removeprefix("-").isdecimal():
        click.IntRange(min=1).convert(int(value), param, ctx)
    return value


@click.command("fork", short_help="Run an agent again from the middle of a run.")
@click.argument("id", metavar="[ID]", default="last")
@click.argument("agent", metavar="[MODULE:AGENT]", required=False)
@click.option(
    "--at",
    callback=_at,
    metavar="N|NODE",
    help="The first call that is made anew (oao show). By default the one that failed last, else the next one; a run "
    "that succeeded needs it. Of a graph: the node that runs anew, with all that depend on it; by default those that "
    "failed.",
)
@click.option(
    "--set-result", "result", metavar="JSON", help="What call N, or the node, returns instead; then it is not made."
)
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME|FILE", help="As in `oao run`; that of the run by default."
)
@click.option("--model", metavar="NAME", help="The model that is asked from here on.")
@click.option("--framework", metavar="NAME", help="Which adapter drives the agent; found by itself by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output, nothing else.")
@store_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    id: str,
    agent: str | None,
    at: str | None,
    result: str | None,
    policies: Sequence[str],
    model: str | None,
    framework: str | None,
    as_json: bool,
    store: str,
) -> None:
    """Run an agent again from the middle of a run, as a new run; the old one stays as it is.

    The calls before N are served from the journal: no model is asked, no effect fires again. From there on the agent
    runs live, with its code as it is now: go on after a failure, ask what would have been, try another policy or model.
    What it asks for before N must be what it asked for then: a changed prompt is tried with N at the first call that
    has it. Exit code: as for `oao run`.

    \b
    Examples:
      oao fork 3f2a
      oao fork 3f2a --at 4 --set-result '"no seats left"'
      oao fork 3f2a --at 2 --policy strict --model gpt-4o-mini
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if not kept(store):
        raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
    with open_store(store) as opened:
        records = find_outer_run(opened, id)
    if result is not None and at is None:
        raise UsageError("--set-result needs the call that it is for: --at N; oao show lists them")
    is_graph = any(one["type"] == "plan" and one.get("adapter") == "graph" for one in records)
    number = None if is_graph else _number(at)
    if at is None and not is_graph and records[-1].get("status") == "SUCCESS":
        id_ = text(records[0], "execution_id")[:8]
        raise UsageError(
            f"run {id_} succeeded, so nothing says where the fork begins: --at N, 1 to {where_it_ended(records) - 1}; "
            f"oao show {id_} lists its calls"
        )
    if is_graph and (model is not None or framework is not None):
        raise UsageError("a fork of a graph takes no --model and no --framework; its nodes name their own")
    first = where_it_ended(records) if number is None else number
    started = records[0]
    where, names = agent_of(started, agent, f"oao fork {id}"), policies_of(started, policies)
    prefer_working_folder()
    on = console()
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(), Progress(on) as progress:
        found = find_agent(where)
        import_policies(names)
        orchestrator = Orchestrator(names, store_url(store), plugins=[] if as_json else [progress])
        try:
            if is_graph:
                report = _fork_graph(orchestrator, text(started, "execution_id"), found, at, result)
            else:
                report = orchestrator.fork(
                    text(started, "execution_id"),
                    found,
                    first,
                    edit=None if result is None else Edit(_result(result)),
                    model=model,
                    framework=framework,
                )
            timeline = Timeline.of(orchestrator.store.read(report.execution_id))
        finally:
            orchestrator.store.close()
    hint = _hint(report, text(started, "execution_id")[:8], first)
    end_with(ctx, on, report, timeline, as_json=as_json, hint=hint)


def _number(at: str | None) -> int | None:
    if at is None:
        return None
    if not at.isdecimal():
        raise UsageError(f"--at {at!r:.60}: give the number of a call, from 1; oao show lists them")
    return int(at)


def _fork_graph(
    orchestrator: Orchestrator, execution_id: str, graph: object, at: str | None, result: str | None
) -> ExecutionReport:
    """Run a part of a graph anew."""
    if not isinstance(graph, TaskGraph):
        raise AgentError(f"run {execution_id[:8]} is one of a graph, and {name_of(graph)!r} is none")
    results = {} if result is None or at is None else {at: _result(result)}
    names = [] if at is None or results else [at]
    new = branch_graph(orchestrator.store, execution_id, graph, orchestrator.clock, at=names, results=results)
    return orchestrator.resume(new, graph, allow_changes=True)


def _hint(report: ExecutionReport, source: str, at: int) -> str:
    """Return what to do where the agent asks for something else before the fork begins."""
    violation = report.violation or {}
    n = violation.get("n")
    if violation.get("rule") != "replay" or not isinstance(n, int) or n >= at:
        return ""
    return f"it asks for something else before call #{at}; to make that anew too: oao fork {source} --at {n}"


def _result(given: str) -> Json:
    try:
        found: Json = json.loads(given)
    except ValueError as error:
        raise UsageError(
            f"--set-result {given!r:.60} is not JSON: {error}; a text needs its quotes: '\"text\"'"
        ) from error
    return found
