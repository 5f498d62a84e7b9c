"""Runs that go on, begin again, are played again, or end before their time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oao_harness.errors import RunHalted, UsageError
from oao_harness.fleet.status import job_of, report_of, status_of
from oao_harness.journal.branching import Edit, branch, new_id, where_it_ended
from oao_harness.journal.codec import alike
from oao_harness.journal.nesting import tape_of
from oao_harness.journal.questions import Questions
from oao_harness.journal.recording import Recording
from oao_harness.runtime.graph import TaskGraph
from oao_harness.runtime.graph_forking import branch_graph
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.resuming import decode_task
from oao_harness.server.callers import Caller
from oao_harness.server.idempotency import Request
from oao_harness.server.queueing import Queueing
from oao_harness.server.refusals import InvalidRequest, WrongState
from oao_hookspecs import ApprovalAnswer, ApprovalRequest, Record

__all__ = ["Continuing"]


@dataclass(frozen=True, slots=True)
class _Where:
    """Where a fork begins, and what is otherwise from there on."""

    at: int | str | None
    edit: Edit | None
    model: str | None


class Continuing(Queueing):
    """The part of the service that goes on with runs."""

    async def resume(
        self, caller: Caller, execution_id: str, *, deadline_s: float | None = None, request: Request | None = None
    ) -> ExecutionReport:
        """Go on with a run that was suspended or interrupted; return its report.

        A job goes back to its queue, and the report is that of a run that waits. With a key, a run that is over by now
        answers with its report.

        Raises:
            NotFound: There is no such run.
            WrongState: It is over, nested in another one, at work, or its agent is not registered here.
            ChangedError: Code or policy are other ones now.
        """
        records = await self.records(caller, execution_id)
        status = status_of(records)
        if status.is_over:
            if request is not None:
                return report_of(records)
            raise WrongState(f"run {execution_id} is over ({status.status}); a fork begins again from the middle of it")
        _require_outer(records[0])
        if job_of(records) is not None:
            await self.redrive(caller, execution_id)
            return await self.report_now(caller, execution_id)
        registered, policies = self.agent_of(records[0])
        orchestrator = self.orchestrator(policies)
        with self.only_one(execution_id):
            return await self.driven(
                registered,
                execution_id,
                lambda agent: orchestrator.resume_async(execution_id, agent),
                deadline_s=deadline_s,
            )

    async def fork(
        self,
        caller: Caller,
        execution_id: str,
        at: int | str | None = None,
        edit: Edit | None = None,
        model: str | None = None,
        *,
        deadline_s: float | None = None,
        request: Request | None = None,
    ) -> ExecutionReport:
        """Run an agent again from the middle of a run, as a new run; return its report.

        Args:
            caller: Who asks.
            execution_id: The run; it stays as it is.
            at: Number of the first call that is made anew, or the name of a node of a graph; by default where it ended.
            edit: What that call, or node, returns instead.
            model: Name of the model that is asked from there on.
            deadline_s: Seconds that it may take.
            request: The request with an Idempotency-Key; then the id is the request's.

        Raises:
            NotFound: There is no such run.
            InvalidRequest: There is no such call or node.
            WrongState: The run is nested in another one, or its agent is not registered here.
        """
        records = await self.records(caller, execution_id)
        _require_outer(records[0])
        registered, policies = self.agent_of(records[0])
        new = new_id() if request is None else request.execution_id
        orchestrator = self.orchestrator(policies)
        with self.only_one(new), self.no_other_writer(request):
            earlier = None if request is None else await self.repeated(request)
            if earlier is not None and status_of(earlier.records).status != "RUNNING":
                return report_of(earlier.records)
            if earlier is None:
                key = "" if request is None else request.digest
                begin = self._branch_graph if _is_graph(records) else self._branch
                new = await self.asked(begin, records, _Where(at, edit, model), new, key)
            return await self.driven(
                registered,
                new,
                lambda agent: orchestrator.resume_async(new, agent, allow_changes=True),
                deadline_s=deadline_s,
            )

    def _branch(self, records: list[Record], where: _Where, new: str, key: str) -> str:
        at, edit, model = where.at, where.edit, where.model
        if at is None and edit is not None:
            raise InvalidRequest("a result is for a call: say which one with at")
        if at is None and status_of(records).status == "SUCCESS":
            raise InvalidRequest(f"the run succeeded, so nothing says where the fork begins: at 1 to {_last(records)}")
        if isinstance(at, str):
            raise InvalidRequest(f"at={at!r:.80}: the run is of no graph; give the number of a call")
        first = where_it_ended(records) if at is None else at
        id_ = str(records[0]["execution_id"])
        try:
            return branch(self.store, id_, first, self.clock, edit=edit, model=model, new=new, request=key)
        except UsageError as error:
            raise InvalidRequest(str(error)) from error

    def _branch_graph(self, records: list[Record], where: _Where, new: str, key: str) -> str:
        at, edit, model = where.at, where.edit, where.model
        graph = self.load(self.agent_of(records[0])[0])
        if model is not None:
            raise InvalidRequest("the nodes of a graph name their own models; leave model out")
        if not isinstance(graph, TaskGraph):
            raise WrongState(f"run {records[0]['execution_id']} is of a graph, and its agent is none any more")
        if isinstance(at, int) or (at is None and edit is not None):
            raise InvalidRequest("the run is of a graph; give the name of a node as at")
        results = {} if at is None or edit is None else {at: edit.result}
        names = [] if at is None or results else [at]
        id_ = str(records[0]["execution_id"])
        try:
            return branch_graph(self.store, id_, graph, self.clock, at=names, results=results, new=new, request=key)
        except UsageError as error:
            raise InvalidRequest(str(error)) from error

    async def replay(
        self,
        caller: Caller,
        execution_id: str,
        *,
        deadline_s: float | None = None,
        request: Request | None = None,
    ) -> ExecutionReport:
        """Play a stored run again: no model is asked, no tool runs, the policies judge. It is kept nowhere.

        Raises:
            NotFound: There is no such run.
            WrongState: It is nested in another one, or its agent is not registered here.
        """
        records = await self.records(caller, execution_id)
        _require_outer(records[0])
        registered, policies = self.agent_of(records[0])
        new = new_id() if request is None else request.execution_id

        def play() -> ExecutionReport:
            agent = self.load(registered)
            tape = tape_of(execution_id, lambda one: list(self.store.read(one)))
            task = decode_task(records[0], None)
            # What was approved then is approved here: nothing happens of it.
            answered = _as_answered([record for _, record in tape])
            orchestrator = Orchestrator(list(policies), plugins=[self.metrics], approver=answered)
            return orchestrator.replay(agent, task, Recording.from_records(tape), execution_id=new)

        seconds = self.deadline_s(deadline_s)
        with self.only_one(new):
            async with self.admission(registered).slot(seconds):
                return await self.hosts.run_sync(new, play, deadline_s=seconds)

    async def cancel(self, caller: Caller, execution_id: str) -> ExecutionReport:
        """End a run that is at work, waits for a person, or waits in a queue; return its report.

        Raises:
            NotFound: There is no such run.
            WrongState: It is over, or nested in another one.
            BusyError: Another process has it.
        """
        records = await self.records(caller, execution_id)
        if status_of(records).is_over:
            raise WrongState(f"run {execution_id} is over ({status_of(records).status}); nothing was changed")
        _require_outer(records[0])
        halt = RunHalted(f"cancelled by {caller.id}", rule="cancelled", plugin="oao")
        if job_of(records) is None and self.hosts.halt(execution_id, halt):
            await self.until_over(execution_id, 2.0)
        else:
            await self.on_fleet(self.jobs.cancel(execution_id, caller.principal))
        return await self.report_now(caller, execution_id)

    async def report_now(self, caller: Caller, execution_id: str) -> ExecutionReport:
        """Return the report of a run as its journal is."""
        return report_of(await self.records(caller, execution_id))


def _as_answered(records: list[Record]) -> Callable[[ApprovalRequest], ApprovalAnswer | None]:
    """Return who answers the questions of a replay: what people answered in the run that is played."""
    answered = [one for one in Questions(records).all() if one.answers]

    def answer(request: ApprovalRequest) -> ApprovalAnswer | None:
        for one in answered:
            asked = one.request
            if (asked.rule, asked.kind, asked.tool) == (request.rule, request.kind, request.tool) and alike(
                dict(asked.arguments), dict(request.arguments)
            ):
                return one.answers[-1]
        return None

    return answer


def _require_outer(first: Record) -> None:
    if first.get("parent") is not None:
        raise WrongState(f"run {first['execution_id']} is nested in run {first['parent']}; name that one")


def _is_graph(records: list[Record]) -> bool:
    return any(one["type"] == "plan" and one.get("adapter") == "graph" for one in records)


def _last(records: list[Record]) -> int:
    return where_it_ended(records) - 1
