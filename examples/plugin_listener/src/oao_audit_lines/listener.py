"""The listener. What it writes is journaled already: a line that is lost is lost from the audit file only."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from pathlib import Path

from oao_hookspecs import (
    ApprovalAnswered,
    ApprovalRequested,
    CallDecided,
    CallFinished,
    Event,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    ViolationFound,
    hookimpl,
)

__all__ = ["AuditLines"]


class AuditLines:
    """Appends a line for each event: when, which run, what, and what an auditor asks about it.

    Neither arguments nor results are written: they may hold secrets, and the journal has them.

    Args:
        path: The file; made where there is none, with its folder.
    """

    name = "audit-lines"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)

    def _write(self, event: Event, **fields: object) -> None:
        head = {"at": round(time.time(), 3), "run": event.execution_id, "event": event.NAME}
        line = json.dumps({**head, **fields}) + "\n"
        # One write to a file that is opened to append: lines of several processes do not mix.
        with self._lock:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(file, line.encode("ascii"))
            finally:
                os.close(file)

    @hookimpl
    def oao_run_started(self, event: RunStarted) -> None:
        """Write who began."""
        self._write(event, agent=event.agent_name, parent=event.parent, replayed=event.replayed)

    @hookimpl
    def oao_run_resumed(self, event: RunResumed) -> None:
        """Write who goes on."""
        self._write(event, agent=event.agent_name)

    @hookimpl
    def oao_call_decided(self, event: CallDecided) -> None:
        """Write what was said to a call, and by whom."""
        decision = event.decision
        said = {"verdict": decision.verdict, "rule": decision.rule, "by": decision.plugin}
        self._write(event, n=event.n, kind=event.call.kind, name=event.call.name, **said)

    @hookimpl
    def oao_call_finished(self, event: CallFinished) -> None:
        """Write how a call ended."""
        outcome = event.outcome
        usage = None if outcome.usage is None else dataclasses.asdict(outcome.usage)
        error = None if outcome.error is None else outcome.error.type
        self._write(event, n=event.n, error=error, usage=usage, replayed=outcome.replayed)

    @hookimpl
    def oao_approval_requested(self, event: ApprovalRequested) -> None:
        """Write that somebody must look."""
        self._write(event, question=event.request.id, rule=event.request.rule)

    @hookimpl
    def oao_approval_answered(self, event: ApprovalAnswered) -> None:
        """Write who answered."""
        self._write(event, question=event.request.id, by=event.answer.by.id)

    @hookimpl
    def oao_violation(self, event: ViolationFound) -> None:
        """Write what stopped a run."""
        self._write(event, rule=event.rule, by=event.plugin, n=event.n)

    @hookimpl
    def oao_run_paused(self, event: RunPaused) -> None:
        """Write that a run waits."""
        self._write(event, status=event.status)

    @hookimpl
    def oao_run_finished(self, event: RunFinished) -> None:
        """Write how a run ended."""
        self._write(event, status=event.status, error=event.error)
