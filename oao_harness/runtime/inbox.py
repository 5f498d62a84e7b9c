"""What waits for a person in a store, and how a person answers: a part of the orchestrator."""

from __future__ import annotations

from collections.abc import Mapping

from oao_harness.journal.doubts import Doubt
from oao_harness.journal.inbox import answer_question, doubts_of_runs, questions_of_runs, resolve
from oao_hookspecs import ApprovalRequest, Approve, Clock, Json, Principal, Reject, Store

__all__ = ["Inbox"]


class Inbox:
    """The open questions of a store's runs, and their calls in doubt."""

    store: Store
    _clock: Clock

    def approvals(self) -> list[ApprovalRequest]:
        """Return the open questions of all suspended runs in the store, the oldest first."""
        now = self._clock.time()
        return [question.request for _, question, state in questions_of_runs(self.store, now) if state == "pending"]

    def approve(
        self, question: str, *, by: Principal, arguments: Mapping[str, Json] | None = None, note: str = ""
    ) -> ApprovalRequest:
        """Let a held call happen, once; `resume` makes it.

        Args:
            question: Its id, or the unique start of one.
            by: Who approves; the caller vouches for it.
            arguments: Replaces those asked about; the policies judge the call again with them.
            note: Kept in the journal.

        Raises:
            UsageError: There is no such question, it is answered or expired, or `by` may not answer it.
        """
        return answer_question(self.store, question, Approve(by=by, arguments=arguments, note=note), self._clock)

    def reject(self, question: str, *, by: Principal, note: str = "") -> ApprovalRequest:
        """Refuse a held call: the run fails when it is resumed; see `approve`."""
        return answer_question(self.store, question, Reject(by=by, note=note), self._clock)

    def in_doubt(self) -> list[Doubt]:
        """Return the calls in doubt of all suspended runs in the store, the oldest first."""
        return doubts_of_runs(self.store)

    def resolve(self, call: str, *, landed: bool, by: Principal, result: Json = None, note: str = "") -> Doubt:
        """Say what became of a call in doubt; `resume` goes on with that.

        Args:
            call: Its id, `execution_id#n`, or the unique start of the run's id, where that has only one.
            landed: True: it happened, and is not made again. False: it did not, and is made again with the same key.
            by: Who says so; the caller vouches for it.
            result: What it returned, as JSON; the agent is given this.
            note: Kept in the journal.

        Raises:
            UsageError: There is no such call, or it is not in doubt.
            BusyError: Somebody is at work on the run.
        """
        return resolve(self.store, call, self._clock, landed=landed, by=by, result=result, note=note)
