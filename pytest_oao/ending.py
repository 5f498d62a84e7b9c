"""The end of a pytest session: the verdict over orphans, the report, the summary, the review."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pytest

from oao_harness.errors import UsageError
from pytest_oao.governance import write_coverage, write_decisions
from pytest_oao.report import write_report
from pytest_oao.settings import Settings
from pytest_oao.summary import write_findings, write_summary

__all__ = ["finish", "write_ending"]


def finish(
    session: pytest.Session,
    settings: Settings,
    rows: Sequence[Mapping[str, Any]],
    findings: dict[str, list[str]],
    *,
    started: float,
) -> None:
    """Judge what was found beside the tests, and write the report.

    Args:
        session: pytest's; its exit status is set where orphans are a failure.
        settings: Of the session.
        rows: Of all tests in which an agent ran.
        findings: `orphans` and `pending`; those that are ignored are taken out, old recordings are added.
        started: Unix seconds.

    Raises:
        pytest.UsageError: The report cannot be written.
    """
    if settings.orphans == "ignore":
        findings.pop("orphans", None)
    if settings.max_age is not None:
        aged = [row["recording"] for row in rows if row["recording"] is not None]
        findings["old"] = [
            one["path"] for one in aged if one["age_days"] is not None and one["age_days"] > settings.max_age.days
        ]
    if findings.get("orphans") and settings.orphans == "fail" and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if settings.report is not None:
        head = {
            "policy": settings.policy,
            "record": settings.record,
            "live": list(settings.live),
            "order": settings.order,
            "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
            "duration_s": round(time.time() - started, 3),
            "exit": int(session.exitstatus),
            "versions": {
                "oao": version("oao-harness"),
                "pytest": version("pytest"),
                "python": platform.python_version(),
            },
        }
        found = {name: findings.get(name, []) for name in ("orphans", "pending")}
        write_report(settings.report, head, rows, found)


def write_ending(
    terminal: Any, settings: Settings, rows: Sequence[Mapping[str, Any]], findings: Mapping[str, Sequence[str]]
) -> None:
    """Print what oao has to say at the end of a session; nothing where no agent ran and nothing was found."""
    if rows:
        write_summary(terminal, rows, settings.summary)
        write_coverage(terminal, rows)
    elif any(findings.values()):
        terminal.section("oao")
    write_findings(terminal, findings, settings.max_age.days if settings.max_age is not None else None)
    if rows and settings.explain:
        write_decisions(terminal, rows)


def review(terminal: Any, config: pytest.Config, pending: Sequence[str]) -> None:
    """Walk through the pending recordings, where there is a terminal to do that on."""
    if not pending:
        return
    from oao_harness.cli.review import command  # noqa: PLC0415 - rich and click, only for a person

    capture: Any = config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            command.main(args=list(pending), standalone_mode=False)
    except UsageError as error:
        terminal.write_line(f"oao: {error}", yellow=True)
