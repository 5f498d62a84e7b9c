"""What a test may do around its agent calls: nothing is hidden, mixed up or left behind. Real pytest runs."""

from __future__ import annotations

import pytest

HEAD = """
import threading
import pytest
from oao_harness import Orchestrator, tool
from oao_hookspecs import Deny, hookimpl

@tool
def look(x):
    return x

@tool
def bad():
    return 1
"""


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    """Run one module of tests in a process of its own: its threads and imports are nobody else's."""
    (pytester.path / "test_it.py").write_text(HEAD + test)
    return pytester.runpytest_subprocess("-p", "pytest_oao.plugin", "-p", "no:cacheprovider", "-rfE", *options)


def test_a_refused_task_fails_the_test_that_catches_the_refusal(pytester: pytest.Pytester) -> None:
    """The run is refused before its first call; it is the test's run all the same."""
    result = run(
        pytester,
        """
class NoTask:
    @hookimpl
    def oao_decide_run(self, run):
        return Deny(rule="task", reason="not this task")

@pytest.mark.oao(policy=NoTask())
def test_it():
    try:
        look(1)
    except BaseException:
        pass
""",
        "--oao-record=once",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("*policy violation: task: not this task*")


def test_a_halt_in_a_fixture_is_not_hidden_by_a_skip(pytester: pytest.Pytester) -> None:
    """The body never runs; the teardown says it. And no run is left open for the tests that follow."""
    result = run(
        pytester,
        """
@pytest.fixture
def hides():
    try:
        bad()
    except BaseException:
        pass
    pytest.skip("not today")

@pytest.mark.oao(deny=["bad"])
def test_it(hides):
    pass

def test_next():
    from oao_harness.runtime import context
    assert context.current() is None
""",
    )
    result.assert_outcomes(skipped=1, errors=1, passed=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_it*", "no recording of this test*"])


def test_a_marker_makes_no_other_test_an_oao_test(pytester: pytest.Pytester) -> None:
    """Whatever the order: a test without a marker is left alone where no option asks for all of them."""
    result = run(
        pytester,
        """
@pytest.mark.oao(max_steps=3)
def test_marked():
    pass

def test_plain():
    assert look(1) == 1
""",
    )
    result.assert_outcomes(passed=2)


def test_a_sub_agent_inside_of_a_tool_is_replayed_with_the_tool(pytester: pytest.Pytester) -> None:
    """Its calls were made in the tool's body, which replay does not run."""
    test = """
def sub_agent(task):
    return look(task)

@tool
def ask(task):
    return Orchestrator().run(sub_agent, task).final_output

def test_it():
    assert ask("a") == "a"
"""
    run(pytester, test, "--oao-record=once").assert_outcomes(passed=1)
    run(pytester, test, "--oao-record=none").assert_outcomes(passed=1)


def test_two_runs_of_one_agent_at_once_keep_their_own_results(pytester: pytest.Pytester) -> None:
    """Both have a call number 1."""
    test = """
def test_it():
    started = {"a": threading.Event(), "b": threading.Event()}
    b_is_done = threading.Event()

    @tool
    def echo(x):
        started[x].set()
        assert started["b" if x == "a" else "a"].wait(10)
        if x == "a":
            assert b_is_done.wait(10)
        return "echo " + x

    answers = {}

    def agent(task):
        return echo(task)

    def one(task):
        answers[task] = Orchestrator().run(agent, task).final_output
        if task == "b":
            b_is_done.set()

    threads = [threading.Thread(target=one, args=(task,)) for task in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {"a": "echo a", "b": "echo b"}
"""
    run(pytester, test, "--oao-record=once").assert_outcomes(passed=1)
    run(pytester, test, "--oao-record=none").assert_outcomes(passed=1)


def test_a_call_that_outlives_its_test_is_not_recorded(pytester: pytest.Pytester) -> None:
    """The recording could never be replayed."""
    result = run(
        pytester,
        """
started, ended = threading.Event(), threading.Event()

@tool
def wait():
    started.set()
    ended.wait(10)

def test_it():
    threading.Thread(target=wait).start()
    assert started.wait(10)

def test_end():
    ended.set()
""",
        "--oao-record=once",
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines("*step 1 tool wait had not ended when the test did*")
    assert not (pytester.path / "recordings").exists()
