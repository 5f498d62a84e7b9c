"""The `oao` fixture: what a test may ask of the run that its agent made, and what it answers in a person's place."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest

from oao_harness.errors import RunHalted
from oao_harness.runtime.run import Run
from oao_hookspecs import ApprovalAnswer, ApprovalRequest, Approve, Json, Principal, Record, Reject, hookimpl

if TYPE_CHECKING:
    from pytest_oao.session import TestSession

__all__ = ["Answers", "Oao", "Obeys", "RecordedRun", "Rule", "Violation", "rules_of"]


class Rule(Protocol):
    """A rule over the calls of a run, for example one made by `oao_harness.never_after`."""

    name: str

    def broken_by(self, calls: Iterable[tuple[str, str, Json, bool]]) -> str | None:
        """Return how the calls break the rule, or None."""
        ...


def rules_of(policies: Iterable[object]) -> dict[str, Rule]:
    """Return the rules over sequences of calls that policies hold, by name."""
    found: dict[str, Rule] = {}
    for policy in policies:
        sequences = getattr(policy, "sequences", None)
        if isinstance(sequences, Mapping):
            found.update(cast("Mapping[str, Rule]", sequences))
        elif hasattr(policy, "broken_by"):
            rule = cast("Rule", policy)
            found[rule.name] = rule
    return found


class Obeys:
    """Whether a run obeys a rule; true or false, and says why not."""

    def __init__(self, rule: str, broken: str | None) -> None:
        self._rule = rule
        self._broken = broken

    def __bool__(self) -> bool:
        return self._broken is None

    def __repr__(self) -> str:
        return f"obeys {self._rule!r}" if self._broken is None else f"breaks {self._rule!r}: {self._broken}"


@dataclass(slots=True)
class Violation:
    """What `expect_violation` caught."""

    rule: str = ""
    reason: str = ""
    plugin: str = ""


class RecordedRun:
    """One run of the test, from its journal.

    Args:
        run: The run.
        records: What it has journaled so far.
        rules: Rules of the policies in force, by name.
    """

    def __init__(self, run: Run, records: Sequence[Record], rules: Mapping[str, Rule]) -> None:
        self._run = run
        self._records = records
        self._rules = rules

    def __repr__(self) -> str:
        return f"<run of {self._run.agent_name!r}: {', '.join(self.tools) or 'no tool call'}>"

    @property
    def tools(self) -> list[str]:
        """Names of the tools called, in the order they started; denied calls are none."""
        return [name for kind, name, _, _ in self.calls() if kind == "tool"]

    @property
    def usage(self) -> Mapping[str, Any]:
        """`steps`, `model_calls`, `tool_calls`, `tokens` and, where money is limited, `cost_usd`."""
        return self._run.budget.snapshot()

    def calls(self) -> list[tuple[str, str, Json, bool]]:
        """Return kind, name, request and success of the calls that happened, in the order they started."""
        outcomes = {record["n"]: record for record in self._records if record["type"] == "outcome"}
        found: list[tuple[str, str, Json, bool]] = []
        for record in self._records:
            if record["type"] != "call" or cast("Mapping[str, Json]", record["decision"])["verdict"] == "deny":
                continue
            outcome = outcomes.get(record["n"], {"error": True})
            found.append((str(record["kind"]), str(record["name"]), record["req"], outcome.get("error") is None))
        return found

    def obeys(self, rule: str | Rule) -> Obeys:
        """Return whether the calls keep a rule, for `assert`.

        Args:
            rule: A sequence rule, or the name of one in a policy that is in force. Other rules need no assert: a
                call that breaks one fails the test.

        Raises:
            pytest.UsageError: No policy in force has a sequence rule of this name.
        """
        __tracebackhide__ = True
        found = self._rules.get(rule) if isinstance(rule, str) else rule
        if found is None:
            known = ", ".join(sorted(self._rules)) or "none"
            raise pytest.UsageError(f"oao: no policy in force has a sequence rule {rule!r}; known: {known}")
        return Obeys(found.name, found.broken_by(self.calls()))


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
    """What the fixture `oao` is.

    Args:
        session: The test.
    """

    def __init__(self, session: TestSession) -> None:
        self._session = session

    @property
    def run(self) -> RecordedRun:
        """The test's run: the one that calls outside of any run belong to, else the first that was started.

        Raises:
            LookupError: No agent has run yet.
        """
        __tracebackhide__ = True
        runs = self.runs
        if not runs:
            raise LookupError("no agent has run in this test yet")
        return runs[0]

    @property
    def runs(self) -> list[RecordedRun]:
        """All runs of the test, in the order they were started."""
        return self._session.recorded_runs()

    def task(self, text: str) -> None:
        """Say what the agent is asked, for the rules that read it: `values_from` with `task`, `run.task`.

        A test calls its agent itself, so oao does not see the task; without this there is none.

        Args:
            text: The task, as the user wrote it.

        Raises:
            pytest.UsageError: The run has begun, and was judged without it.
        """
        __tracebackhide__ = True
        if self.runs:
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
        if self.runs:
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
    def expect_violation(self, rule: str = "*") -> Generator[Violation]:
        """Expect the block to break a rule: the test passes then, and fails where it does not.

        Args:
            rule: Name of the rule, or a glob.

        Example:
            ```python
            with oao.expect_violation("tools.deny") as violation:
                agent.invoke("delete everything")
            assert "delete_all" in violation.reason
            ```
        """
        violation = Violation()
        before = self._session.violation()
        if before is not None:
            pytest.fail(f"a rule was broken before the block: {before.rule}: {before.reason}", pytrace=False)
        try:
            yield violation
        except RunHalted:
            pass
        except AssertionError:
            # The test's own; a framework wraps a halt in errors of its own.
            raise
        except Exception:
            if self._session.violation() is None:
                raise
        halt = self._session.violation()
        if halt is None:
            pytest.fail(f"no rule was broken; expected {rule!r}", pytrace=False)
        if not fnmatchcase(halt.rule, rule):
            pytest.fail(f"expected a violation of {rule!r}, found {halt.rule}: {halt.reason}", pytrace=False)
        violation.rule, violation.reason, violation.plugin = halt.rule, halt.reason, halt.plugin
        self._session.expected = halt
