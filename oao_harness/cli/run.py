"""`oao run`: one governed run of the user's agent, and its report."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Sequence

import click

from oao_harness.cli.console import console
from oao_harness.cli.finding import registered_agent
from oao_harness.cli.outcome import end_with
from oao_harness.cli.principals import actor_options, principal_of
from oao_harness.cli.progress import Progress
from oao_harness.cli.stores import store_option, store_url
from oao_harness.cli.tasks import task_of
from oao_harness.cli.unmodified import UnmodifiedCommand, run_unmodified
from oao_harness.errors import AgentError, UsageError
from oao_harness.fleet.agents import Registered
from oao_harness.journal.timeline import Timeline
from oao_harness.loading import import_policies, is_factory, load_agent, prefer_working_folder
from oao_harness.policy.project import find_project_policy
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport

__all__ = ["command"]


@click.command("run", cls=UnmodifiedCommand, short_help="Run an agent under governance and report.")
@click.argument("agent", metavar="MODULE:AGENT", required=False)
@click.argument("task", required=False)
@click.option("--input", "task_json", metavar="JSON", help="The task as JSON, where it is not a text.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME|FILE",
    help="off, observe, standard, strict, an installed one, a .toml file, or module:attribute; may be given more than "
    "once. By default the policy that pyproject.toml names under [tool.oao], else standard.",
)
@store_option
@click.option("--framework", metavar="NAME", help="Which adapter drives the agent; found by itself by default.")
@actor_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output, nothing else.")
@click.option(
    "--unmodified",
    is_flag=True,
    help="Run a Python script that knows nothing of oao, or with -m a module; what follows it is the script's.",
)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    agent: str | None,
    task: str | None,
    task_json: str | None,
    policies: Sequence[str],
    store: str,
    framework: str | None,
    who: str | None,
    roles: Sequence[str],
    tenant: str,
    as_json: bool,
    unmodified: bool,
) -> None:
    """Run an agent under governance and report.

    MODULE:AGENT names a function, an object with invoke() or ainvoke(), or an agent of a supported framework;
    the working folder is searched first. The name of a registered agent does as well. Exit code: 0 where the
    run succeeded, 1 where it failed, 2 where the command is wrong, 3 where a call is held until a person answers
    (oao approvals). With --unmodified SCRIPT.py the script runs as `__main__`, the report is printed on standard
    error, and where oao did not stop it the exit code is the script's own.

    \b
    Examples:
      oao run my_agents:support "Order A-1042 arrived broken"
      oao run my_agents:graph --input '{"question": "Why?"}' --policy strict
      oao run my_agents:support "Hello" --json | jq .status
      oao run --policy strict --unmodified agent.py --verbose
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if unmodified:
        if task_json is not None or framework is not None:
            raise UsageError("a script takes no --input and no --framework; write its arguments after its name")
        named, origin = _policies(policies, None)
        run_unmodified(
            ctx, named, store, principal=principal_of(who, roles, tenant), as_json=as_json, policy_from=origin
        )
        return
    if agent is None:
        raise click.MissingParameter(ctx=ctx, param=ctx.command.params[0])
    asked = task_of(task, task_json)
    prefer_working_folder()
    on = console()
    # What the agent itself prints must not mix with the JSON.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(), Progress(on) as progress:
        by_name = registered_agent(agent)
        found = load_agent(agent) if by_name is None else by_name.load()
        if is_factory(found) and asked is not None:
            raise AgentError(
                f"{agent!r} takes no argument, so it cannot be given a task; if it makes an agent, add a line such "
                f"as `agent = {agent.partition(':')[2] or agent}()` and run that, else leave the task out"
            )
        named, origin = _policies(policies, by_name)
        import_policies(named)
        orchestrator = Orchestrator(named, store_url(store), plugins=[] if as_json else [progress])
        try:
            execution_id = str(uuid.uuid4())
            report = orchestrator.run(
                found,
                asked,
                framework=framework,
                execution_id=execution_id,
                principal=principal_of(who, roles, tenant),
                origin={"agent": agent, "policy": list(named)},
            )
            timeline = Timeline.of(orchestrator.store.read(execution_id))
        finally:
            orchestrator.store.close()
    _refuse_factory(agent, found, report)
    end_with(ctx, on, report, timeline, as_json=as_json, policy_from=origin)


def _policies(given: Sequence[str], by_name: Registered | None) -> tuple[list[str], str]:
    """Return the policies that were named, or the agent's, or the project's, and where that is written."""
    if not given and by_name is not None and by_name.policy:
        return list(by_name.policy), by_name.source
    project = None if given else find_project_policy()
    if project is not None:
        return [project.policy], project.source
    return list(given) or ["standard"], ""


def _refuse_factory(spec: str, agent: object, report: ExecutionReport) -> None:
    """Refuse a run whose answer is an agent: a factory was run in place of what it makes."""
    result = report.result
    if is_factory(agent) and (callable(result) or hasattr(result, "invoke") or hasattr(result, "ainvoke")):
        raise AgentError(
            f"{spec!r} returned an agent ({type(result).__name__}) and not an answer; add a line such as "
            f"`agent = {spec.partition(':')[2] or spec}()` and run that"
        )
