"""The `oao` fixture: what a test may ask of the runs that its agents made, and what it answers in a person's place."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Token
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from oao_harness.errors import RunHalted
from oao_harness.journal.trajectory import MadeCall, Trajectory
from oao_harness.runtime import context
from oao_harness.runtime.run import Run
from oao_hookspecs import ApprovalAnswer, ApprovalRequest, Approve, Json, Principal, Reject, hookimpl
from pytest_oao.runs import Look, RecordedRun, Violation, violations_in

if TYPE_CHECKING:
    from pytest_oao.recording import TestRecording
    from pytest_oao.session import TestSession

__all__ = ["NOT_GOVERNED", "Answers", "MainRun", "Oao", "RunOfItsOwn"]

NOT_GOVERNED: Final = (
    "the fixture `oao` needs a governed test: give --oao-policy or --oao-record, or mark it @pytest.mark.oao"
)


@dataclass(slots=True)
class _Prepared:
    tool: str
    left: int
    answer: ApprovalAnswer


class Answers:
    """The plugin that answers held calls as the test said."""

    name = "oao fixture"

    def __init__(self) -> None:
        self._prepared: list[_Prepared] = []

    def prepare(self, tool: str, times: int, answer: ApprovalAnswer) -> None:
        """Keep an answer for the next held calls of a tool."""
        self._prepared.append(_Prepared(tool, times, answer))

    @hookimpl
    def oao_answer_approval(self, request: ApprovalRequest) -> ApprovalAnswer | None:
        """Answer as prepared, else not at all."""
        for prepared in self._prepared:
            if prepared.left and fnmatchcase(request.tool, prepared.tool):
                prepared.left -= 1
                return prepared.answer
        return None


class Oao:
    """What the fixture `oao` is: it speaks of the test that is running, so one serves the whole session.

    A fixture of a function would be refused by Hypothesis, which calls one function many times.
    """

    def __repr__(self) -> str:
        return "oao"

    @property
    def _session(self) -> TestSession:
        session = context.session()
        if session is None:
            raise pytest.UsageError(NOT_GOVERNED)
        return cast("TestSession", session)

    @property
    def run(self) -> MainRun:
        """The test's run: the one that calls outside of any run belong to, else the first that was started.

        Called, it is a run of its own, for the block of a `with` or `async with`: one for each example of a
        property-based test, or one for each agent.

        Example:
            ```python
            assert oao.run.called("refund", amount=49.99)
            with oao.run("second") as second:
                agent.invoke("again")
            assert second.never_called("refund")
            ```
        """
        return MainRun(self._session)

    @property
    def runs(self) -> list[RecordedRun]:
        """All runs of the test, in the order they were started."""
        return [RecordedRun(partial(self._session.look, run)) for _, run in self._session.runs]

    @property
    def events(self) -> list[MadeCall]:
        """The calls of all runs of the test that happened, in the order they started."""
        return Trajectory.of(self._session.tape()).steps

    @property
    def violations(self) -> list[Violation]:
        """The rules that the runs of the test have broken so far."""
        return violations_in(record for _, record in self._session.tape())

    @property
    def usage(self) -> Mapping[str, Any]:
        """What all runs of the test have used: `steps`, `model_calls`, `tool_calls`, `tokens`."""
        return self._session.usage()

    @property
    def cost(self) -> float | None:
        """What the model calls of the test cost in US dollars; in replay what they cost when they were recorded.

        None where the price of a model is not known.
        """
        return self._session.cost()

    @property
    def recording(self) -> TestRecording:
        """The recording of this test: `path`, `exists`, `mode`, `state`, and the `recorded` calls."""
        return self._session.recording

    def task(self, text: str) -> None:
        """Say what the agent is asked, for the rules that read it: `values_from` with `task`, `run.task`.

        A test calls its agent itself, so oao does not see the task; without this there is none.

        Args:
            text: The task, as the user wrote it.

        Raises:
            pytest.UsageError: The run has begun, and was judged without it.
        """
        __tracebackhide__ = True
        if self._session.has_begun:
            raise pytest.UsageError("oao: the run has begun without a task; call oao.task(...) before the agent runs")
        self._session.task = text

    def act_as(self, id: str, roles: Sequence[str] = (), *, tenant: str = "") -> None:
        """Say who the run acts for, for rules about roles and for approvals by somebody else.

        Args:
            id: For example a user name.
            roles: Their roles.
            tenant: Whose organisation that is.

        Raises:
            pytest.UsageError: The run has begun, and was judged without it.
        """
        __tracebackhide__ = True
        if self._session.has_begun:
            raise pytest.UsageError("oao: the run has begun for nobody; call oao.act_as(...) before the agent runs")
        self._session.principal = Principal(id=id, roles=tuple(roles), tenant=tenant)

    def approve(
        self,
        tool: str = "*",
        *,
        times: int = 1,
        by: str = "tester",
        roles: Sequence[str] = (),
        arguments: Mapping[str, Json] | None = None,
    ) -> None:
        """Approve the next held calls of a tool, as a person would.

        Args:
            tool: Its name, or a glob.
            times: How many calls.
            by: Who approves.
            roles: Their roles.
            arguments: Replaces those asked about.
        """
        answer = Approve(by=Principal(id=by, roles=tuple(roles)), arguments=arguments)
        self._session.answers.prepare(tool, times, answer)

    def reject(self, tool: str = "*", *, times: int = 1, by: str = "tester", note: str = "") -> None:
        """Reject the next held calls of a tool; see `approve`."""
        self._session.answers.prepare(tool, times, Reject(by=Principal(id=by), note=note))

    @contextmanager
    def expect_violation(self, rule: str = "*", *, or_held: bool = False) -> Generator[Violation]:
        """Expect the block to break a rule: the test passes then, and fails where it does not.

        Args:
            rule: Name of the rule, or a glob.
            or_held: True is content with a call that is held for a person, too.

        Example:
            ```python
            with oao.expect_violation("tools.deny") as violation:
                agent.invoke("delete everything")
            assert "delete_all" in violation.reason
            ```
        """
        violation = Violation()
        before = self._session.violation(or_held=or_held)
        if before is not None:
            pytest.fail(f"a rule was broken before the block: {before.rule}: {before.reason}", pytrace=False)
        try:
            with self._session.expecting():
                yield violation
        except RunHalted:
            pass
        except AssertionError:
            # The test's own; a framework wraps a halt in errors of its own.
            raise
        except Exception:
            if self._session.violation(or_held=or_held) is None:
                raise
        halt = self._session.violation(or_held=or_held)
        if halt is None:
            pytest.fail(f"no rule was broken; expected {rule!r}", pytrace=False)
        if not fnmatchcase(halt.rule, rule):
            pytest.fail(f"expected a violation of {rule!r}, found {halt.rule}: {halt.reason}", pytrace=False)
        violation.rule, violation.reason, violation.plugin = halt.rule, halt.reason, halt.plugin
        self._session.expect_all(or_held=or_held)


class MainRun(RecordedRun):
    """`oao.run`: the test's run, and, called, a run of its own for a block.

    Args:
        session: The test.
    """

    def __init__(self, session: TestSession) -> None:
        super().__init__(self._first)
        self._session = session

    def __call__(self, name: str = "run", *, task: object = None) -> RunOfItsOwn:
        """Return a context manager: what happens in its block is a run of its own.

        Args:
            name: Tells runs of one test apart, also in the recording.
            task: What the agent is asked, for rules that read it.
        """
        return RunOfItsOwn(self._session, name, task)

    def _first(self) -> Look:
        __tracebackhide__ = True
        looks = self._session.looks()
        if not looks:
            raise LookupError("no agent has run in this test yet: no call of a model or tool was seen")
        return looks[0]


class RunOfItsOwn:
    """A block of a test whose calls are a run of its own; a rule that is broken in it fails the test where it ends.

    Args:
        session: The test.
        name: Of the run.
        task: What its agent is asked.
    """

    def __init__(self, session: TestSession, name: str, task: object) -> None:
        self._session, self._name, self._task = session, name, task
        self._run: Run | None = None
        self._token: Token[Run | None] | None = None

    def __enter__(self) -> RecordedRun:
        run = self._run = self._session.open_run(self._name, self._task)
        self._token = context.here.set(run)
        return RecordedRun(partial(self._session.look, run))

    def __exit__(self, kind: object, raised: BaseException | None, trace: object) -> None:
        __tracebackhide__ = True
        if self._run is None or self._token is None:
            return
        context.here.reset(self._token)
        verdict = self._session.close_run(self._run, raised)
        if verdict is not None:
            raise pytest.fail.Exception(verdict, pytrace=False) from None

    async def __aenter__(self) -> RecordedRun:
        return self.__enter__()

    async def __aexit__(self, kind: object, raised: BaseException | None, trace: object) -> None:
        __tracebackhide__ = True
        self.__exit__(kind, raised, trace)
