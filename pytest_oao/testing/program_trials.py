"""Trials: one program under one set of rules, with a log of all that really happened.

The log is written by the bodies and by the store, in one order; none of oao's counters is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from oao_harness.journal.recording import Recording
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.shared_budget import SharedBudget
from oao_harness.stores.memory import MemoryStore
from oao_hookspecs import Principal, Record, Store
from pytest_oao.testing.program_agents import Agent, Event, Log, Started, Written
from pytest_oao.testing.program_rules import Rules
from pytest_oao.testing.programs import Body, InnerRun, Program

__all__ = ["Trial", "run_program"]

_PERSON: Final = Principal(id="reviewer")


class _LoggedStore:
    """A store that also writes what it keeps to the log.

    Args:
        log: The log.
        store: What keeps it.
    """

    def __init__(self, log: Log, store: Store) -> None:
        self._log = log
        self.store = store

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        """Append records; see `Store.append`."""
        with self._log.lock:
            self.store.append(execution_id, epoch, *records)
            for record in records:
                self._log.add(Written(execution_id, record))

    def __getattr__(self, name: str) -> Any:
        """Return the store's own."""
        return getattr(self.store, name)


class Trial:
    """One program under one set of rules: what it did, in as many legs as it took.

    Args:
        program: What the agent does.
        rules: What it may do.
        inner_rules: What the runs nested in it may do besides.
        is_async: True makes agent and bodies coroutines.
        budget: What it may spend together with others.
        policies: Further policies of the program's run, asked after the rules.
        store: Where its journal goes; a new one in memory by default.
        plugins: Further plugins of the program's run, for example listeners.
    """

    def __init__(
        self,
        program: Program,
        rules: Rules,
        *,
        inner_rules: Rules | None = None,
        is_async: bool = False,
        budget: SharedBudget | None = None,
        policies: Sequence[object] = (),
        store: Store | None = None,
        plugins: Sequence[object] = (),
    ) -> None:
        self.program = program
        self.further = tuple(policies)
        """Policies beside the rules."""
        self.plugins = tuple(plugins)
        self.rules = rules
        self.inner_rules = inner_rules or Rules()
        self.is_async = is_async
        self._log = Log()
        self.store = cast("Store", _LoggedStore(self._log, store or MemoryStore()))
        self.orchestrator = Orchestrator(
            [*rules.policies(), *policies], self.store, plugins, approver=rules.approver, budget=budget
        )
        # Made where it is used: an orchestrator costs more than most programs.
        has_inner = any(isinstance(op, InnerRun) for op in program.ops)
        self.inner = (
            Orchestrator(self.inner_rules.policies(), approver=self.inner_rules.approver)
            if has_inner
            else self.orchestrator
        )
        self.reports: list[ExecutionReport] = []

    @property
    def events(self) -> list[Event]:
        """What happened so far, in the order it happened."""
        with self._log.lock:
            return list(self._log.events)

    @property
    def executed(self) -> list[Body]:
        """The bodies that ran, in the order they began."""
        return [event.body for event in self.events if isinstance(event, Started)]

    @property
    def report(self) -> ExecutionReport:
        """The newest report of the program's run."""
        return self.reports[-1]

    def records(self, execution_id: str | None = None) -> list[Record]:
        """Return the journal of a run, by default that of the program's."""
        wanted = execution_id or self.report.execution_id
        return [event.record for event in self.events if isinstance(event, Written) and event.execution_id == wanted]

    def journals(self) -> dict[str, list[Record]]:
        """Return the journals of the run and of those nested in it, by execution id."""
        found: dict[str, list[Record]] = {}
        for event in self.events:
            if isinstance(event, Written):
                found.setdefault(event.execution_id, []).append(event.record)
        return found

    def interrupt_at(self, bodies: int | None) -> None:
        """Let this process be interrupted, as by Ctrl-C, inside of a body; the run can go on then.

        Args:
            bodies: How many more bodies begin until then, >= 1; None for never.
        """
        self._log.interrupt_in = bodies

    def settle_doubts(self) -> int:
        """Say that the calls which were cut off have happened; return how many there were."""
        doubts = self.orchestrator.in_doubt()
        for doubt in doubts:
            self.orchestrator.resolve(doubt.id, landed=True, by=_PERSON, result="it has landed")
        return len(doubts)

    def take_over(self, policies: Sequence[object], plugins: Sequence[object] = ()) -> None:
        """Go on in what stands for another process: other policy objects that say the same, over the same store."""
        self.orchestrator = Orchestrator(
            [*self.rules.policies(), *policies], self.store, plugins, approver=self.rules.approver
        )

    def run(self) -> ExecutionReport:
        """Run the program."""
        agent = self._agent()
        if self.is_async:
            return self._keep(asyncio.run(self.orchestrator.run_async(agent, "t", agent_name="main")))
        return self._keep(self.orchestrator.run(agent, "t", agent_name="main"))

    def approve(self) -> int:
        """Approve all open questions; return how many there were."""
        questions = self.orchestrator.approvals()
        for question in questions:
            self.orchestrator.approve(question.id, by=_PERSON)
        return len(questions)

    def resume(self) -> ExecutionReport:
        """Go on with the suspended run."""
        # Not the report's: a run that was interrupted has none.
        execution_id = next(iter(self.journals()))
        agent = self._agent()
        if self.is_async:
            return self._keep(asyncio.run(self.orchestrator.resume_async(execution_id, agent)))
        return self._keep(self.orchestrator.resume(execution_id, agent))

    def replay(self) -> Trial:
        """Return a trial that replayed this one from its recording."""
        recording = self.recording()
        other = Trial(
            self.program,
            self.rules,
            inner_rules=self.inner_rules,
            is_async=self.is_async,
            policies=self.further,
            plugins=self.plugins,
        )
        other.reports.append(other.orchestrator.replay(other._agent(), "t", recording))
        return other

    def recording(self, *, test: str = "", policy: str = "") -> Recording:
        """Return the recording of what happened.

        Args:
            test: Node id of the test that will play it.
            policy: Name of the policy that was in force.
        """
        tape = ((event.execution_id, event.record) for event in self.events if isinstance(event, Written))
        return Recording.from_records(tape, test=test, policy=policy)

    def _keep(self, report: ExecutionReport) -> ExecutionReport:
        self.reports.append(report)
        return report

    def _agent(self) -> Callable[[str], Any]:
        return Agent(self._log, self.inner, ("main",), is_async=self.is_async).of(self.program.tree())


def run_program(
    program: Program,
    rules: Rules | None = None,
    *,
    inner_rules: Rules | None = None,
    is_async: bool = False,
    budget: SharedBudget | None = None,
    policies: Sequence[object] = (),
) -> Trial:
    """Run a program once and return what happened; the arguments are those of `Trial`.

    Example:
        ```python
        trial = run_program(Program((CallTool("pay"),)), Rules(deny=("pay",)))
        assert trial.executed == [] and trial.report.status == "FAILED"
        ```
    """
    trial = Trial(
        program, rules or Rules(), inner_rules=inner_rules, is_async=is_async, budget=budget, policies=policies
    )
    trial.run()
    return trial
