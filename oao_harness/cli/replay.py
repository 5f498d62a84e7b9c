"""`oao replay`: a recording or a stored run is played again; no model is asked, no tool runs."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.text import Text

from oao_harness.cli.console import console
from oao_harness.cli.finding import find_agent
from oao_harness.cli.origins import agent_of, policies_of
from oao_harness.cli.outcome import end_with
from oao_harness.cli.progress import Progress
from oao_harness.cli.recorded import is_file_name, shown
from oao_harness.cli.stores import find_outer_run, kept, open_store, store_option
from oao_harness.cli.unmodified import is_script, replay_script
from oao_harness.errors import RecordingError, UsageError
from oao_harness.journal.nesting import tape_of
from oao_harness.journal.places import module_of, root_of
from oao_harness.journal.recording import Recording
from oao_harness.journal.timeline import Timeline, text
from oao_harness.loading import import_policies, prefer_working_folder
from oao_harness.policy.project import find_project_policy
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.resuming import decode_task
from oao_hookspecs import Record

__all__ = ["command"]

# Of pytest: a wrong option, an internal error, no test: nothing was replayed.
_PYTEST_FAILED = 1


@click.command("replay", short_help="Play a recording or a stored run again, offline.")
@click.argument("what", metavar="FILE|ID", default="last")
@click.option(
    "--agent", metavar="MODULE:AGENT", help="The agent; that of a stored run, or the recording's test, by default."
)
@click.option("--task", metavar="TEXT", help="What it is asked; that of a stored run by default.")
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME|FILE", help="As in `oao run`; that of a stored run by default."
)
@click.option("--framework", metavar="NAME", help="Which adapter drives the agent; found by itself by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output, nothing else.")
@store_option
@click.pass_context
def command(
    ctx: click.Context,
    what: str,
    *,
    agent: str | None,
    task: str | None,
    policies: Sequence[str],
    framework: str | None,
    as_json: bool,
    store: str,
) -> None:
    """Play a recording or a stored run again, offline: no model is asked, no tool runs, the policies judge.

    FILE is a recording; that of a pytest test is played by pytest. ID is the id of a run, the unique start of one, or
    `last`. Exit code: 0 where it plays to its end, 1 where it diverges or a policy refuses, 2 where the command is
    wrong.

    \b
    Examples:
      oao replay last
      oao replay 3f2a --policy strict
      oao replay tests/recordings/test_refund/test_refund.oao.json
      oao replay before.oao.json --agent my_agents:support --task "Hello"
    """  # noqa: D301 - click reads the control character as "do not wrap"
    asked: object = task
    if what != "last" and is_file_name(what):
        recording = Recording.load(what)
        if agent is None:
            ctx.exit(_run_test(Path(what), recording))
        names = list(policies) or _project_policies()
    else:
        started, recording = _stored(store, what)
        if is_script(started, agent):
            replay_script(ctx, started, recording, policies, as_json=as_json)
            return
        agent, names = agent_of(started, agent, f"oao replay {what} --agent"), policies_of(started, policies)
        asked = decode_task(started, task)
    prefer_working_folder()
    on = console()
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(), Progress(on) as progress:
        found = find_agent(agent)
        import_policies(names)
        # A replay is no run of its own that anybody would look for: it is kept nowhere.
        orchestrator = Orchestrator(names, plugins=[] if as_json else [progress])
        try:
            report = orchestrator.replay(found, asked, recording, framework=framework)
            timeline = Timeline.of(orchestrator.store.read(report.execution_id))
        finally:
            orchestrator.store.close()
    end_with(ctx, on, report, timeline, as_json=as_json)


def _project_policies() -> list[str]:
    project = find_project_policy()
    return ["standard" if project is None else project.policy]


def _stored(store: str, id_: str) -> tuple[Record, Recording]:
    if not kept(store):
        raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
    with open_store(store) as opened:
        started = find_outer_run(opened, id_)[0]
        if started.get("parent") is not None:
            raise UsageError(f"run {id_!r} is nested in run {started['parent']!r}; replay that one")
        tape = tape_of(text(started, "execution_id"), lambda one: list(opened.read(one)))
    return started, Recording.from_records(tape)


def _run_test(path: Path, recording: Recording) -> int:
    """Let pytest play the recording of a test; return the exit code."""
    test = recording.test
    if "::" not in test:
        raise UsageError(
            f"{shown(path)!r} is of no test; name the agent: oao replay {shown(path)} --agent module:agent"
        )
    module, root = module_of(path), root_of(path, test)
    if module is None or root is None or not module.exists():
        raise RecordingError(
            f"{shown(path)!r} is of test {test!r}, and does not lie in recordings/ beside that module; "
            "name the agent with --agent module:agent, or run pytest yourself"
        )
    if importlib.util.find_spec("pytest") is None:
        raise UsageError("pytest is not installed; install it, or name the agent with --agent module:agent")
    command = [sys.executable, "-m", "pytest", "--rootdir", str(root), test, "--oao-record=none"]
    console(stderr=True).print(Text(f"pytest {test} --oao-record=none", style="dim"), soft_wrap=True)
    done = subprocess.run(command, cwd=root, check=False)  # noqa: S603 - the user's own tests, as they asked for
    return done.returncode if done.returncode <= _PYTEST_FAILED else 2
