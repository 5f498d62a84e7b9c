"""`oao run --unmodified`: a script that knows nothing of oao, as one governed run; also resumed and replayed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import uuid
from collections.abc import Callable, Generator, Sequence
from typing import Final, cast

import click

from oao_harness.adapters.script import MainThread, Script
from oao_harness.cli.console import console, print_json
from oao_harness.cli.origins import policies_of
from oao_harness.cli.outcome import EXIT_CODES
from oao_harness.cli.render import print_run
from oao_harness.cli.stores import store_url
from oao_harness.errors import UsageError
from oao_harness.journal.recording import Recording
from oao_harness.journal.timeline import Timeline, mapping, text
from oao_harness.loading import import_policies, prefer_working_folder
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport
from oao_hookspecs import Principal, Record

__all__ = ["UnmodifiedCommand", "is_script", "replay_script", "resume_script", "run_unmodified"]

_INTERRUPTED: Final = 130
_FLAG: Final = "--unmodified"
_META: Final = "oao.script"


class UnmodifiedCommand(click.Command):
    """A command that leaves what follows a script to the script."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the script and its arguments away before the options are read."""
        own, script = self._split(args)
        if script is not None:
            ctx.meta[_META] = script
        return super().parse_args(ctx, own)

    def _split(self, args: list[str]) -> tuple[list[str], tuple[bool, list[str]] | None]:
        """Return the arguments that are oao's, and whether the others begin with a module, and the others."""
        options = [one for one in self.params if isinstance(one, click.Option)]
        takes_value = {name for one in options if not one.is_flag for name in one.opts}
        seen, i = False, 0
        while i < len(args):
            arg = args[i]
            seen = seen or arg == _FLAG
            if arg == "-m" and _FLAG in args[:i]:
                return args[:i], (True, args[i + 1 :])
            if arg == "--" or not arg.startswith("-") or arg == "-":
                rest = args[i + 1 :] if arg == "--" else args[i:]
                return (args[:i], (False, rest)) if seen else (args, None)
            i += 2 if arg in takes_value else 1
        return args, ((False, []) if seen else None)


def run_unmodified(
    ctx: click.Context,
    policies: Sequence[str],
    store: str,
    *,
    principal: Principal | None,
    as_json: bool,
    policy_from: str,
) -> None:
    """Run the script that the command line names, report, and exit.

    Raises:
        UsageError: No script is named, or it cannot be run.
    """
    is_module, words = cast("tuple[bool, list[str]]", ctx.meta[_META])
    if not words:
        raise UsageError(
            "name a module after -m" if is_module else "name a script: oao run --unmodified script.py [args]"
        )
    stage = MainThread()
    script = Script(words[0], words[1:], is_module=is_module, stage=stage)
    execution_id = str(uuid.uuid4())

    def go(orchestrator: Orchestrator) -> ExecutionReport:
        return orchestrator.run(
            script,
            " ".join(words),
            execution_id=execution_id,
            principal=principal,
            origin={"script": script.origin, "policy": list(policies)},
        )

    _govern(ctx, stage, script, go, policies=policies, store=store, as_json=as_json, policy_from=policy_from)


def is_script(started: Record, given: str | None) -> bool:
    """Return True for the first record of a script's run, unless the user names another agent."""
    return given is None and bool(mapping(mapping(started, "origin"), "script"))


def resume_script(
    ctx: click.Context,
    started: Record,
    policies: Sequence[str],
    store: str,
    *,
    allow_changes: bool,
    as_json: bool,
) -> None:
    """Go on with the run of a script: it starts again, and its finished calls are served."""
    stage, script = _again(started)
    id_ = text(started, "execution_id")

    def go(orchestrator: Orchestrator) -> ExecutionReport:
        return orchestrator.resume(id_, script, allow_changes=allow_changes)

    _govern(ctx, stage, script, go, policies=policies_of(started, policies), store=store, as_json=as_json)


def replay_script(
    ctx: click.Context, started: Record, recording: Recording, policies: Sequence[str], *, as_json: bool
) -> None:
    """Play the run of a script again: its own code runs, no model is asked."""
    stage, script = _again(started)

    def go(orchestrator: Orchestrator) -> ExecutionReport:
        return orchestrator.replay(script, started.get("task"), recording)

    _govern(ctx, stage, script, go, policies=policies_of(started, policies), store="memory:", as_json=as_json)


def _again(started: Record) -> tuple[MainThread, Script]:
    stage = MainThread()
    return stage, Script.from_origin(mapping(mapping(started, "origin"), "script"), stage)


def _govern(
    ctx: click.Context,
    stage: MainThread,
    script: Script,
    go: Callable[[Orchestrator], ExecutionReport],
    *,
    policies: Sequence[str],
    store: str,
    as_json: bool,
    policy_from: str = "",
) -> None:
    path = list(sys.path)
    prefer_working_folder()
    import_policies(policies)
    # Made here and now: its leaves must be in place before the script imports anything, and a wrong policy is an
    # error of the command.
    orchestrator = Orchestrator(policies, store_url(store))
    # The script finds its own folder there, as with `python script.py`.
    sys.path[:] = path
    with _own_stdout(as_json) as stdout:

        def work() -> int:
            try:
                report = go(orchestrator)
                timeline = Timeline.of(orchestrator.store.read(report.execution_id))
            finally:
                orchestrator.store.close()
            with stdout():
                if as_json:
                    print_json(json.loads(report.json()), indent=2)
                else:
                    print_run(console(stderr=True), timeline, details=False, policy_from=policy_from)
            return _exit_code(report, script)

        code = stage.lend(work)
    ctx.exit(code)


def _exit_code(report: ExecutionReport, script: Script) -> int:
    """Return the script's own exit code, unless oao stopped it."""
    if report.status == "SUSPENDED" and script.exit_code == _INTERRUPTED and not report.approvals:
        return _INTERRUPTED
    if report.violation is not None or report.status in {"SUSPENDED", "QUEUED"} or not script.exit_code:
        return EXIT_CODES[report.status]
    return script.exit_code


@contextlib.contextmanager
def _own_stdout(as_json: bool) -> Generator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """Keep standard output for the report: what the script and its processes print there goes to standard error.

    Yields:
        What gives it back for the report.
    """
    if not as_json:
        yield contextlib.nullcontext
        return
    stdout, saved = sys.stdout, -1
    stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        if stdout.fileno() == 1:
            saved = os.dup(1)
            os.dup2(2, 1)

    @contextlib.contextmanager
    def back() -> Generator[None]:
        if saved >= 0:
            stdout.flush()
            os.dup2(saved, 1)
        with contextlib.redirect_stdout(stdout):
            yield
            stdout.flush()

    try:
        with contextlib.redirect_stdout(sys.stderr) if saved < 0 else contextlib.nullcontext():
            yield back
    finally:
        if saved >= 0:
            os.close(saved)
