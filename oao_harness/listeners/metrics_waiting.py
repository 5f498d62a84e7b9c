"""Counts the questions in a store that nobody has answered; of a journal only what is new is read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

from oao_harness.journal.questions import Questions
from oao_hookspecs import Record, RunQuery, Store

__all__ = ["Pending", "PendingQuestions"]

_SUSPENDED: Final = RunQuery(status="SUSPENDED")
_READING_S: Final = 0.5
"""Seconds that journals are read for one count; those that were not reached are next."""


class Pending(NamedTuple):
    """What waits for a person."""

    questions: int
    oldest_age_s: float
    """Of the oldest question, 0.0 where there is none."""


@dataclass(slots=True)
class _Run:
    """What is known of a suspended run."""

    read_at: float = 0.0
    """On the scale of `time.monotonic`; 0.0 for never."""
    seq: int = 0
    """Of the last record that was read."""
    kept: list[Record] = field(default_factory=list[Record])
    """The records that questions are made of."""


class PendingQuestions:
    """Counts the unanswered questions of suspended runs. Not safe to use from several threads at once.

    Args:
        store: Where the runs are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runs: dict[str, _Run] = {}

    def count(self, now: float) -> Pending:
        """Return how many there are; where thousands of runs are suspended it may lag behind by some counts.

        Args:
            now: Unix seconds.

        Raises:
            StoreError: The store cannot be reached.
        """
        ids = [run.execution_id for run in self._store.runs(None, query=_SUSPENDED)]
        self._runs = {id_: self._runs.get(id_) or _Run() for id_ in ids}
        until = time.monotonic() + _READING_S
        for id_, run in sorted(self._runs.items(), key=lambda item: item[1].read_at):
            if time.monotonic() > until:
                break
            self._read(id_, run)
        asked = [
            question.request.requested_at
            for run in self._runs.values()
            if run.kept
            for question in Questions(run.kept).pending(now)
        ]
        return Pending(len(asked), max(0.0, now - min(asked, default=now)))

    def _read(self, execution_id: str, run: _Run) -> None:
        for record in self._store.read(execution_id, after=run.seq):
            run.seq = cast("int", record["seq"])
            if str(record["type"]).startswith("approval.") or record.get("approvals"):
                run.kept.append(record)
        run.read_at = time.monotonic()
