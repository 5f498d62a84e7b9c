"""How a command that ran an agent ends: the report on the terminal or as JSON, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import print_json, print_paragraph
from oao_harness.cli.render import print_run
from oao_harness.journal.timeline import Timeline
from oao_harness.runtime.report import ExecutionReport

__all__ = ["EXIT_CODES", "end_with"]

# By status; 2 means that the command itself was wrong.
EXIT_CODES: Final[Mapping[str, int]] = {"SUCCESS": 0, "FAILED": 1, "SUSPENDED": 3, "QUEUED": 4}


def end_with(
    ctx: click.Context,
    on: Console,
    report: ExecutionReport,
    timeline: Timeline,
    *,
    as_json: bool,
    policy_from: str = "",
    hint: str = "",
) -> None:
    """Print how a run went and exit.

    Args:
        ctx: Of the command.
        on: The terminal.
        report: The run's report, for JSON and for the exit code.
        timeline: The run, for the terminal.
        as_json: True prints the report as JSON and nothing else.
        policy_from: Where the policy was named, where no option did.
        hint: What to do now, for the terminal.
    """
    if as_json:
        print_json(json.loads(report.json()), indent=2)
    else:
        print_run(on, timeline, details=False, policy_from=policy_from)
        if hint:
            print_paragraph(on, Text(hint, style="yellow"))
    ctx.exit(EXIT_CODES[report.status])
