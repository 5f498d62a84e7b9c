"""`oao submit`: queue a run of a registered agent for a worker, and wait for it where asked to."""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Final, cast

import click
from rich.console import Console
from rich.status import Status
from rich.text import Text

from oao_harness.cli.console import console, print_error, print_json
from oao_harness.cli.fleets import ask, fleet_options, option_hint
from oao_harness.cli.outcome import end_with
from oao_harness.cli.principals import actor_options, principal_of
from oao_harness.cli.tasks import task_of
from oao_harness.cli.units import duration, parse_age
from oao_harness.fleet.jobs import Jobs
from oao_harness.journal.timeline import Timeline
from oao_harness.loading import prefer_working_folder
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.requeuing import Retries
from oao_hookspecs import Priority

__all__ = ["command"]

_PRIORITIES: Final = ("high", "normal", "low")
_FOREVER: Final = math.inf
_NOT_OVER: Final = 4


@click.command("submit", short_help="Queue a run of a registered agent for a worker.")
@click.argument("agent")
@click.argument("task", required=False)
@click.option("--input", "task_json", metavar="JSON", help="The task as JSON, where it is not a text.")
@click.option("--priority", type=click.Choice(_PRIORITIES), default="normal", show_default=True, help="Who goes first.")
@click.option("--delay", metavar="AGE", help="Begin after this long at the earliest: 45s, 10m, 2h.")
@actor_options
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    help="Holds besides those of the agent.",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 1000),
    metavar="N",
    help="Tries after the first one, where an error may pass; the agent's own by default, else 3.",
)
@click.option("--id", "execution_id", metavar="ID", help="Id of the run. Submitted twice, it is one job.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    is_flag=False,
    flag_value=_FOREVER,
    metavar="[SECONDS]",
    help="Wait until it is over, and end as `oao run` does.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the id, with --wait the report, as JSON.")
@fleet_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    agent: str,
    task: str | None,
    task_json: str | None,
    priority: str,
    delay: str | None,
    who: str | None,
    roles: Sequence[str],
    tenant: str,
    policies: Sequence[str],
    retries: int | None,
    execution_id: str | None,
    wait_s: float | None,
    as_json: bool,
    scheduler: str | None,
    store: str | None,
) -> None:
    """Queue a run of a registered agent for a worker.

    AGENT is a name that is registered here and at the workers: [tool.oao.agents], an entry point, or a hook. What is
    queued is in the store before any queue hears of it. With --wait the exit code is that of `oao run`: 0 success, 1
    failed, 2 wrong command, 3 waits for a person; and 4 where it is not over in time.

    \b
    Examples:
      oao submit support "Order A-1042 arrived broken"
      oao submit support "Hello" --wait 60 --json | jq .status
      oao submit report --input '{"month": 5}' --delay 10m --priority low
    """  # noqa: D301 - click reads the control character as "do not wrap"
    asked = task_of(task, task_json)
    delay_s = 0.0 if delay is None else parse_age(re.sub(r"(?<=\d)\s*m$", "min", delay.strip()), "--delay")
    prefer_working_folder()
    on = console()
    submitted = ""

    async def submit(jobs: Jobs) -> tuple[ExecutionReport | None, Timeline | None]:
        nonlocal submitted
        submitted = await jobs.submit(
            agent,
            asked,
            execution_id=execution_id,
            tenant=tenant,
            priority=cast("Priority", priority),
            delay_s=delay_s,
            principal=principal_of(who, roles, tenant),
            policy=policies,
            retries=None if retries is None else Retries(times=retries),
        )
        if wait_s is None:
            return None, None
        began = time.monotonic()
        with _waiting(on, submitted, as_json=as_json):
            report = await jobs.fetch(submitted, None if wait_s == _FOREVER else wait_s)
        if report is None:
            print_error(f"run {submitted[:8]} is not over after {duration(time.monotonic() - began)}; it goes on")
            return None, None
        return report, Timeline.of(jobs.records(submitted), lambda id_: list(jobs.store.read(id_)))

    try:
        report, timeline = ask(scheduler, store, submit)
    except KeyboardInterrupt:
        if not submitted:
            raise
        print_error(f"run {submitted[:8]} goes on without you; see it with: oao jobs{option_hint(scheduler, store)}")
        ctx.exit(128 + signal.SIGINT)
    if report is not None and timeline is not None:
        end_with(ctx, on, report, timeline, as_json=as_json)
    _tell(on, submitted, option_hint(scheduler, store), as_json=as_json, waited=wait_s is not None)
    ctx.exit(0 if wait_s is None else _NOT_OVER)


def _waiting(on: Console, submitted: str, *, as_json: bool) -> Status | nullcontext[None]:
    if as_json or not on.file.isatty():
        return nullcontext()
    return Status(Text(f"run {submitted[:8]} waits for a worker, or is at work"), console=on)


def _tell(on: Console, submitted: str, where: str, *, as_json: bool, waited: bool) -> None:
    if as_json:
        print_json({"execution_id": submitted, "status": "QUEUED"} if not waited else {"execution_id": submitted})
    elif not waited:
        on.print(Text(submitted, style="bold"), soft_wrap=True)
        print_hint = f"queued; oao jobs{where} shows it, oao submit --wait waits for it"
        console(stderr=True).print(Text(print_hint, style="dim"), soft_wrap=True)
