"""No generated agent, however it nests, forks, retries or swallows, does what its rules forbid.

`OAO_EXAMPLES=5000` looks further than the profile of every day.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, assume, find, given, note, settings
from hypothesis import strategies as st

from oao_harness import SharedBudget
from oao_hookspecs import CallDecided, CallFinished, Deny, Limits, ToolCall, hookimpl
from pytest_oao.testing import CallModel, CallTool, Program, Rules, Swallow, Trial, run_program
from pytest_oao.testing import program_checks as checks
from pytest_oao.testing.program_rules import breaches
from pytest_oao.testing.program_strategies import limits, policies, programs
from pytest_oao.testing.programs import Nested

_EXAMPLES = int(os.environ.get("OAO_EXAMPLES", "50"))
_MOST_LEGS = 60

both_kinds = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def examples(share: float = 1.0) -> settings:
    return settings(
        max_examples=max(1, int(_EXAMPLES * share)),
        deadline=None,
        # A program starts threads and loops: how long that takes is not the test's to judge.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors],
    )


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """A policy that fails is logged with its traceback, which is thousands of lines here."""
    logger = logging.getLogger("oao")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


def checked(check: Callable[[Trial], None]) -> Callable[[Program, Rules, Rules, bool], None]:
    def run(program: Program, rules: Rules, inner: Rules, is_async: bool) -> None:
        trial = run_program(program, rules, inner_rules=inner, is_async=is_async)
        note(f"{program!r}\nunder {rules!r}\ninner runs under {inner!r}\n{trial.report.status} {trial.report.error}")
        check(trial)

    return run


@both_kinds
@examples()
@given(program=programs(), rules=policies(), inner=policies())
def test_no_limit_is_exceeded(is_async: bool, program: Program, rules: Rules, inner: Rules) -> None:
    """What ran is within the limits of every run it is nested in: calls, calls by tool and glob, tokens, money."""
    checked(checks.no_limit_is_exceeded)(program, rules, inner, is_async)


@both_kinds
@examples(0.5)
@given(found=st.lists(st.tuples(programs(max_ops=6), policies(), policies()), min_size=2, max_size=3), shared=limits())
def test_no_limit_that_runs_share_is_exceeded(
    is_async: bool, found: list[tuple[Program, Rules, Rules]], shared: Limits
) -> None:
    """Runs beside each other draw from one budget: together they do no more than it allows."""
    name = uuid.uuid4().hex
    budget = SharedBudget("team", f"memory:{name}", limits=shared)
    trials = [Trial(one, rules, inner_rules=inner, is_async=is_async, budget=budget) for one, rules, inner in found]
    checks.beside_each_other([trial.run for trial in trials])
    bodies = [body for trial in trials for body in trial.executed]
    assert not breaches(shared, bodies)
    counters = budget.totals()
    assert not any(amounts.held for amounts in counters.values()), "a reservation was never settled"
    # A call that was allowed, and then not made because a sibling had halted the run, may be counted: never less.
    records = [one for trial in trials for journal in trial.journals().values() for one in journal]
    abandoned = sum(bool(one.get("abandoned")) for one in records)
    spent = counters["steps"].spent if "steps" in counters else 0
    assert len(bodies) <= spent <= len(bodies) + abandoned


@both_kinds
@examples()
@given(program=programs(), rules=policies(), inner=policies())
def test_a_denied_body_never_runs(is_async: bool, program: Program, rules: Rules, inner: Rules) -> None:
    """Denied by name or argument, by a policy that fails, by a person, or held and never answered."""
    checked(checks.nothing_forbidden_ran)(program, rules, inner, is_async)


@both_kinds
@examples()
@given(program=programs(), rules=policies(), inner=policies())
def test_no_member_of_a_refused_batch_runs(is_async: bool, program: Program, rules: Rules, inner: Rules) -> None:
    """Where one of the calls that a model asks for together is denied or held, none of them starts."""
    checked(checks.no_member_of_a_refused_batch_ran)(program, rules, inner, is_async)


@both_kinds
@examples()
@given(program=programs(), rules=policies(), inner=policies())
def test_every_body_was_written_before_it_ran(is_async: bool, program: Program, rules: Rules, inner: Rules) -> None:
    """One call that says it is allowed for each body, before the body and before the run's first halt."""
    checked(checks.every_body_was_written_first)(program, rules, inner, is_async)


@both_kinds
@examples()
@given(program=programs(), rules=policies(), inner=policies())
def test_journals_are_whole(is_async: bool, program: Program, rules: Rules, inner: Rules) -> None:
    """No number is missing, every call has its one outcome, parents exist."""
    checked(checks.journals_are_whole)(program, rules, inner, is_async)


@both_kinds
@examples()
@given(program=programs(), rules=policies(), inner=policies())
def test_no_denial_is_swallowed(is_async: bool, program: Program, rules: Rules, inner: Rules) -> None:
    """Whatever the agent catches: a run with a denial is FAILED and names it."""
    checked(checks.nothing_was_swallowed)(program, rules, inner, is_async)


@both_kinds
@examples(0.5)
@given(program=programs(at_once=False), rules=policies(), inner=policies())
def test_halting_is_deterministic(is_async: bool, program: Program, rules: Rules, inner: Rules) -> None:
    """The same rule, the same bodies, the same totals, however the calls of a batch are scheduled."""
    trials = [run_program(program, rules, inner_rules=inner, is_async=is_async) for _ in range(3)]
    assert len({repr(checks.totals_of(trial)) for trial in trials}) == 1
    assert len({repr(sorted(checks.leaves(trial.executed).items())) for trial in trials}) == 1


@both_kinds
@pytest.mark.parametrize("rules", [Rules(deny=("send",)), Rules(broken=("send",)), Rules(limits=Limits(max_steps=5))])
def test_a_hundred_runs_of_a_halted_program_are_one_journal(rules: Rules, is_async: bool) -> None:
    """Three calls at once, one of them too much, and an agent that goes on after it."""
    batch = (CallTool("pay"), CallTool("send"), CallTool("read_mail"))
    ops = (CallTool("read_file"), CallTool("read_file", "b"), Swallow(1), CallModel(batch), CallTool("pay"))
    journals = {repr(checks.shown(run_program(Program(ops), rules, is_async=is_async).records())) for _ in range(100)}
    assert len(journals) == 1
    assert "'type': 'violation'" in journals.pop()


@both_kinds
@examples()
@given(program=programs(at_once=False), rules=policies(), inner=policies())
def test_a_run_in_legs_does_what_one_approved_at_once_does(
    is_async: bool, program: Program, rules: Rules, inner: Rules
) -> None:
    """Suspended, approved and resumed until it is over: each body ran once, totals and calls are the same."""
    at_once, later = (
        Trial(
            program,
            replace(rules, answer=answer),
            inner_rules=replace(inner, answer=answer),
            is_async=is_async,
        )
        for answer in ("approve", "nothing")
    )
    at_once.run()
    later.run()
    for _ in range(_MOST_LEGS):
        if later.report.status != "SUSPENDED":
            break
        assert later.approve(), "it is suspended, and there is no open question"
        later.resume()
    note(f"{program!r}\nunder {rules!r}\n{at_once.report.error} -- {later.report.error}")
    assert checks.totals_of(later) == checks.totals_of(at_once)
    assert checks.leaves(later.executed) == checks.leaves(at_once.executed)
    assert checks.calls_of(later) == checks.calls_of(at_once)
    checks.journals_are_whole(later)


@both_kinds
@examples()
@given(program=programs(at_once=False), rules=policies())
def test_a_replay_runs_nothing_and_ends_the_same(is_async: bool, program: Program, rules: Rules) -> None:
    """No body runs; the report's status, totals, output and rule are those of the recorded run.

    Inner runs have no rules of their own here: those inside of a served tool are not opened, so that nobody can say
    whether it was they or the outer run that would have denied first.
    """
    live = run_program(program, rules, is_async=is_async)
    if live.report.status == "SUSPENDED":
        return
    # What a model proposed inside of a served tool is not known any more: a batch refused there is not refused again.
    is_inside = any(isinstance(op, Nested) for op in program.ops)
    assume(not (is_inside and " tool calls at once " in (live.report.error or "")))
    replayed = live.replay()
    note(f"{program!r}\nunder {rules!r}\n{live.report.error} -- {replayed.report.error}")
    assert replayed.executed == []
    assert checks.totals_of(replayed) == checks.totals_of(live)


class Forgetful:
    """Denies `pay`, but forgets to look inside of a tool."""

    name = "forgetful"

    def __init__(self) -> None:
        self.inside = 0

    @hookimpl
    def oao_call_decided(self, event: CallDecided) -> None:
        self.inside += event.call.name == "delegate"

    @hookimpl
    def oao_call_finished(self, event: CallFinished) -> None:
        self.inside -= event.call.name == "delegate"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Deny | None:
        return Deny(rule="forgetful", reason="no pay") if call.name == "pay" and not self.inside else None


def test_a_hole_in_a_policy_is_found_and_shrunk_to_what_a_person_reads() -> None:
    """Of up to eight operations two are left, and they print as the code that gets through."""

    def pays(program: Program) -> bool:
        trial = run_program(program, policies=[Forgetful()])
        return any(body.name == "pay" for body in trial.executed)

    found = find(
        programs(max_ops=8, at_once=False, threads=False, inner_runs=False),
        pays,
        settings=settings(examples(), max_examples=2000, database=None),
        random=Random(1),
    )
    assert repr(found).splitlines() == [
        "def agent(task):",
        "    with delegate():  # the body of a tool",
        "        pay('a')",
    ]
    assert len(found.ops) <= 3
