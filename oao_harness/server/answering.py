"""What waits for a person: held calls and calls in doubt. After an answer a run goes on by itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from oao_harness.errors import OaoError, UsageError
from oao_harness.fleet.status import job_of, status_of
from oao_harness.journal.doubts import Doubt, doubts_of
from oao_harness.journal.inbox import answer_question, doubts_of_runs, questions_of_runs, resolve
from oao_harness.journal.questions import Question, Questions, State, is_entitled
from oao_harness.server.callers import Caller
from oao_harness.server.continuing import Continuing
from oao_harness.server.histories import Histories
from oao_harness.server.refusals import ForbiddenError, InvalidRequest, NotFound, WrongState
from oao_hookspecs import ApprovalAnswer, ApprovalRequest, Approve, Json, Record, Reject, RunSummary

__all__ = ["Answered", "Answering", "Held"]

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A call that is held until a person answers."""

    question: Question
    state: State
    run: RunSummary | None = None
    """Its run; None where only the question was asked for."""

    @property
    def request(self) -> ApprovalRequest:
        """What is asked."""
        return self.question.request


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What became of an answer."""

    execution_id: str
    """The run that the answer is for: the outermost one."""
    goes_on: bool
    """True where the run goes on now, by itself."""
    why: str = ""
    """Why it does not."""


class Answering(Continuing, Histories):
    """The part of the service that is about what waits for a person."""

    async def approvals(self, caller: Caller) -> list[Held]:
        """Return the open questions of all runs that a caller may see, the oldest first."""

        def read() -> list[Held]:
            found = questions_of_runs(self.store, self.clock.time())
            return [Held(question=one, state=state, run=row) for row, one, state in found if self.sees(caller, row)]

        return await self.asked(read)

    async def approval(self, caller: Caller, id_: str) -> Held:
        """Return a question, open or not.

        Raises:
            NotFound: There is no such question.
        """
        return await self.asked(self._held, caller, id_)

    def _held(self, caller: Caller, id_: str) -> Held:
        execution_id = id_.rpartition("-")[0]
        try:
            records = self.read_for(caller, execution_id)
        except NotFound:
            raise NotFound(f"there is no question {id_!r:.120}") from None
        questions = Questions(records)
        for one in questions.all():
            if one.request.id == id_:
                return Held(question=one, state=one.state(questions.now(self.clock.time())))
        raise NotFound(f"there is no question {id_!r:.120}")

    async def approve(
        self, caller: Caller, id_: str, arguments: Mapping[str, Json] | None = None, note: str = ""
    ) -> Answered:
        """Let a held call happen, once; the run goes on by itself, as soon as enough people have said so.

        Args:
            caller: Who approves.
            id_: Of the question.
            arguments: Replaces those asked about; the policies judge the call again with them.
            note: Kept in the journal.

        Raises:
            NotFound: There is no such question.
            ForbiddenError: The caller may not answer it.
            WrongState: It is answered or has expired.
        """
        return await self._answer(caller, id_, Approve(by=caller.principal, arguments=arguments, note=note))

    async def reject(self, caller: Caller, id_: str, note: str = "") -> Answered:
        """Refuse a held call: the run fails; see `approve`."""
        return await self._answer(caller, id_, Reject(by=caller.principal, note=note))

    async def _answer(self, caller: Caller, id_: str, answer: ApprovalAnswer) -> Answered:
        def write() -> Record:
            held = self._held(caller, id_)
            if held.state != "pending" or held.question.used:
                raise WrongState(f"{id_} is {held.state} already; nothing was written")
            refused = is_entitled(held.request, answer.by)
            if refused is not None:
                raise ForbiddenError(refused)
            if isinstance(answer, Approve) and answer.arguments is not None and held.request.kind != "tool":
                raise InvalidRequest(f"{id_} asks about a model call; only the arguments of a tool can be edited")
            try:
                answer_question(self.store, id_, answer, self.clock, exact=True)
            except UsageError as error:
                raise WrongState(str(error)) from error
            return next(iter(self.store.read(held.request.execution_id)))

        return await self._go_on(caller, await self.asked(write))

    async def doubts(self, caller: Caller) -> list[Doubt]:
        """Return the calls of which nobody knows whether they happened, the oldest first."""

        def read() -> list[Doubt]:
            return [one for one in doubts_of_runs(self.store) if self.may_read(caller, one.execution_id)]

        return await self.asked(read)

    async def resolve(self, caller: Caller, id_: str, *, landed: bool, result: Json = None, note: str = "") -> Answered:
        """Say what became of a call in doubt; the run goes on by itself when no other one is.

        Args:
            caller: Who says so.
            id_: Of the call, `execution_id#n`.
            landed: True: it happened, and is not made again. False: it did not, and is made again with the same key.
            result: What it returned; the agent is given this.
            note: Kept in the journal.

        Raises:
            NotFound: There is no such call.
            WrongState: It is in doubt no more, or somebody is at work on the run.
            InvalidRequest: A result is given for a call that did not happen, or cannot be handed to the agent.
        """
        if not landed and result is not None:
            raise InvalidRequest("a call that did not happen has no result; leave the result out")

        def write() -> Record:
            execution_id, _, number = id_.partition("#")
            records = self.read_for(caller, execution_id)
            if all(str(one.n) != number for one in doubts_of(records)):
                raise NotFound(f"there is no call in doubt {id_!r:.120}")
            try:
                resolve(self.store, id_, self.clock, landed=landed, by=caller.principal, result=result, note=note)
            except UsageError as error:
                raise WrongState(str(error)) from error
            return records[0]

        return await self._go_on(caller, await self.asked(write))

    async def _go_on(self, caller: Caller, first: Record) -> Answered:
        """Go on with the run around a run that got an answer, where nothing else of it waits."""
        outer = await self.asked(self.outermost, first)
        execution_id = str(outer["execution_id"])
        for id_ in dict.fromkeys((str(first["execution_id"]), execution_id)):
            records = await self.asked(self._records_of, id_)
            questions = Questions(records)
            if questions.pending(questions.now(self.clock.time())) or (doubts_of(records) and _is_suspended(records)):
                return Answered(execution_id=execution_id, goes_on=False, why="it waits for another answer")
        try:
            if job_of([outer]) is not None:
                await self.redrive(caller, execution_id)
            else:
                self.agent_of(outer)
                self.later(self._resumed(caller, execution_id), f"resume {execution_id}")
        except OaoError as error:
            return Answered(execution_id=execution_id, goes_on=False, why=str(error))
        return Answered(execution_id=execution_id, goes_on=True)

    def _records_of(self, execution_id: str) -> list[Record]:
        return list(self.store.read(execution_id))

    async def _resumed(self, caller: Caller, execution_id: str) -> None:
        try:
            await self.resume(caller, execution_id)
        except OaoError as error:
            _log.warning("run %s was answered, and does not go on: %s", execution_id, error)


def _is_suspended(records: list[Record]) -> bool:
    return status_of(records).status == "SUSPENDED"
