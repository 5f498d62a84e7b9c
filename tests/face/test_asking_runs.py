"""What a test asks of its runs: trajectories and the texts of what is not so, runs of their own, examples, prices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oao_harness import Orchestrator, SQLiteStore, tool
from oao_harness.journal.recording import Recording
from oao_harness.journal.trajectory import Trajectory

HEAD = """
import re

def go():
    ask([{"role": "user", "content": "x"}])
    lookup("123")
    refund("123", 49.99)
    refund("124", 1)
"""
REFUNDS = "refund(id='123', amount=49.99), refund(id='124', amount=1)"
TRUE = [
    'called("refund")',
    'called("ref*", 2)',
    'called("refund", 1, amount=49.99)',
    'called("refund", id=re.compile("^12"), amount=float)',
    'called("refund", amount=lambda amount: amount > 10)',
    'called("email", 0)',
    'never_called("email", "sh*")',
    'called_in_order("lookup", "refund")',
    'called_in_order("lookup", "ref*", "refund")',
    'called_exactly("lookup", "refund", "re*")',
    'called_only("lookup", "re*")',
    'called_all("refund", "lookup")',
    'called_at_most("refund", 2)',
    "within(max_steps=4, max_model_calls=1, max_tool_calls=3, max_tokens=42)",
]
FALSE = [
    ('called("refund", amount=50)', f"refund(amount=50) was never called; it was called as {REFUNDS}"),
    ('called("refund", id=re.compile("^9"))', f"refund(id=/^9/) was never called; it was called as {REFUNDS}"),
    ('called("refund", amount=str)', f"refund(amount=str) was never called; it was called as {REFUNDS}"),
    ('called("refund", other=1)', f"refund(other=1) was never called; it was called as {REFUNDS}"),
    (
        'called("refund", amount=lambda a: a > 99)',
        f"refund(amount=<lambda>) was never called; it was called as {REFUNDS}",
    ),
    ('called("email")', "email was never called; the run called lookup, refund, refund"),
    ('called("refund", 1)', f"refund was called 2 times, not once; it was called as {REFUNDS}"),
    ('called("refund", 2, id="123")', f"refund(id='123') was called once, not 2 times; it was called as {REFUNDS}"),
    ('never_called("re*", "shell")', f"re*, shell should never be called; the run called {REFUNDS}"),
    (
        'called_in_order("refund", "lookup")',
        "lookup was not called after refund; the run called lookup, refund, refund",
    ),
    ('called_in_order("lookup", "email")', "email was never called; the run called lookup, refund, refund"),
    ('called_exactly("lookup", "refund")', "the run called lookup, refund, refund, not exactly lookup, refund"),
    ("called_exactly()", "the run called lookup, refund, refund, not exactly nothing"),
    ('called_only("lookup")', f"the run should have called only lookup; it called {REFUNDS} too"),
    ("called_only()", f"the run should have called only nothing; it called lookup(id='123'), {REFUNDS} too"),
    ('called_all("lookup", "email", "sms")', "never called email, sms; the run called lookup, refund, refund"),
    ('called_at_most("refund", 1)', f"called refund 2 times, more than 1: {REFUNDS}"),
    ("within(max_steps=3, max_tokens=10)", "over its budget: max_steps: 4 > 3; max_tokens: 42 > 10"),
    (
        "within(max_cost_usd=0.01)",
        (
            "nobody knows what the run cost: a price is missing; pip install 'oao-harness[prices]', or say it in the "
            "hook oao_price"
        ),
    ),
]


def _checks(questions: list[str]) -> str:
    parts = [HEAD]
    parts += [f"def test_{i}(oao):\n    go()\n    assert oao.run.{one}\n" for i, one in enumerate(questions)]
    return "\n".join(parts)


def test_questions_with_the_answer_yes(shop: Any) -> None:
    """Each of them; and the opposite is no, and says what is true."""
    shop.write(test=_checks(TRUE))
    shop.run("--oao-live=*").assert_outcomes(passed=len(TRUE))

    shop.write(test=_checks(TRUE).replace("assert oao", "assert not oao"))
    result = shop.run("--oao-live=*")
    result.assert_outcomes(failed=len(TRUE))
    result.stdout.fnmatch_lines(["E*assert not called refund", "E*assert not within its budget"])


def test_questions_with_the_answer_no_say_what_happened_instead(shop: Any) -> None:
    """In the line that pytest shows of an assert."""
    shop.write(test=_checks([question for question, _ in FALSE]))
    result = shop.run("--oao-live=*", "--tb=short")
    result.assert_outcomes(failed=len(FALSE))
    lines = [line for line in result.outlines if "AssertionError: assert " in line and line.startswith("E ")]
    assert [line.partition("assert ")[2] for line in lines] == [text for _, text in FALSE]


def test_two_runs_are_compared_step_by_step(shop: Any) -> None:
    """`==` says where they differ; equal runs are equal."""
    shop.write(
        test="""
def test_refund(oao):
    with oao.run("a"):
        lookup("1"), refund("1", 2)
    with oao.run("b"):
        lookup("1"), refund("1", 2)
    assert oao.runs[0] == oao.runs[1]
    with oao.run("c"):
        lookup("1"), refund("1", 3), lookup("2")
    assert oao.run == oao.runs[2]
"""
    )
    result = shop.run("--oao-live=*", "--tb=short")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*assert two runs with 2 and 3 calls",
            "E*step 2: refund(id='1', amount=2) != refund(id='1', amount=3)",
            "E*step 3: only on the right: lookup(id='2')",
        ]
    )


def test_a_trajectory_of_a_recording_and_of_a_store(recorded: Any, tmp_path: Path) -> None:
    """Any run can be asked, not only one of a test."""
    found = Trajectory.of(Recording.load(recorded.recording))
    assert found.called_exactly("lookup", "refund")
    assert found.called("refund", 1, amount=49.99)
    assert found.within(max_tokens=84)
    assert not found.within(max_tokens=83)

    @tool
    def look(x: int) -> int:
        return x

    store = SQLiteStore(tmp_path / "oao.db")
    report = Orchestrator(store=store).run(lambda task: look(len(str(task))), "four", tools=[look])
    assert Trajectory.of(store.read(report.execution_id)).called("look", 1, x=4)
    store.close()


def test_the_fixture_sees_all_runs(shop: Any) -> None:
    """`run` is the test's own, `runs` are all, and what is summed is summed; alike in recording and replay."""
    shop.write(
        test="""
def test_refund(oao):
    agent("x")
    with oao.run("second") as second:
        lookup("9")
        assert second.called_exactly("lookup")
    assert [run.agent for run in oao.runs] == ["main", "second"]
    assert oao.run.tools == ["lookup", "refund"]
    assert [str(call) for call in oao.events if call.kind == "tool"][-1] == "lookup(id='9')"
    assert dict(oao.usage) == {"steps": 5, "model_calls": 2, "tool_calls": 3, "tokens": 84} | dict(oao.usage)
    assert oao.usage["steps"] == 5 and oao.usage["tokens"] == 84
    assert oao.violations == []
    assert oao.recording.mode in ("once", "none")
    assert oao.recording.exists == (oao.recording.mode == "none")
    assert len(oao.recording.recorded) == (5 if oao.recording.exists else 0)
"""
    )
    shop.record()
    shop.run("--oao-policy=strict").assert_outcomes(passed=1)


def test_runs_of_their_own_in_async_tests(shop: Any) -> None:
    """Two at once keep apart."""
    shop.pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    shop.write(
        test="""
import asyncio

@oao.tool
async def wait(n):
    await asyncio.sleep(0)
    return n

async def one(oao, name, n):
    async with oao.run(name) as run:
        await wait(n)
        await wait(n)
        assert run.called("wait", 2, n=n)

async def test_refund(oao):
    await asyncio.gather(one(oao, "a", 1), one(oao, "b", 2))
    assert sorted(run.agent for run in oao.runs) == ["a", "b"]
"""
    )
    options = ("-p", "pytest_asyncio.plugin")
    shop.record(*options)
    shop.run("--oao-policy=strict", *options).assert_outcomes(passed=1)


GIVEN = """
from hypothesis import given, settings, strategies as st

@settings(max_examples=25, database=None, derandomize=True, deadline=None)
@given(amount=st.integers(0, 1000))
def test_refund(oao, amount):
    with oao.run() as run:
        lookup("1")
        refund("1", min(amount, 500))
    assert run.called("refund", 1)
    assert run.never_called("email")
"""


def test_examples_of_hypothesis_are_runs_of_their_own(shop: Any) -> None:
    """One for each example; nothing is recorded."""
    shop.write(test=GIVEN + "    print('RUNS', len(oao.runs))\n")
    result = shop.run("--oao-policy=strict", "-p", "_hypothesis_pytestplugin")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*RUNS 25"])
    assert shop.files() == []


def test_a_broken_rule_shrinks_to_the_least_example(shop: Any) -> None:
    """Hypothesis sees the failure of the example, not of the whole test."""
    shop.pytester.makefile(
        ".toml", shop='[[rule]]\nname = "big"\ntools = ["refund"]\nwhen = "args.amount > 100"\nthen = "deny"\n'
    )
    shop.write(test=GIVEN)
    result = shop.run("--oao-policy=shop.toml", "-p", "_hypothesis_pytestplugin")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*amount=101*"])
    result.stdout.fnmatch_lines(["*policy violation: big: *"])


def test_examples_without_a_run_of_their_own_are_refused(shop: Any) -> None:
    """With what to do, in recording and in replay."""
    shop.write(test=GIVEN.replace("with oao.run() as run:", "if True:").replace("run.", "oao.run."))
    for mode in ("once", "none"):
        result = shop.run(f"--oao-record={mode}", "-p", "_hypothesis_pytestplugin")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*recordings are not supported under @given*with oao.run():*ScriptedModel*"])


def test_answers_and_expectations_inside_of_a_run_of_its_own(shop: Any) -> None:
    """approve, reject and expect_violation are about the block that they stand in."""
    shop.pytester.makefile(".toml", shop='[[rule]]\nname = "ask"\ntools = ["refund"]\nthen = "ask"\n')
    shop.write(
        test="""
def test_refund(oao):
    with oao.run("yes") as run:
        oao.approve("refund")
        assert refund("1", 2) == "refunded 2"
        assert run.called("refund", 1)
    with oao.expect_violation("*"):
        with oao.run("denied"):
            oao.reject("refund", note="no")
            refund("1", 3)

def test_nobody(oao):
    with oao.run("nobody"):
        refund("1", 2)
"""
    )
    result = shop.run("--oao-policy=shop.toml", "--oao-record=once")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*held for approval*", "*oao.approve() or oao.reject()*"])
    shop.run("--oao-policy=shop.toml", "-k", "refund").assert_outcomes(passed=1)


PRICES = """
from oao_hookspecs import Price, hookimpl

class Prices:
    name = "prices"

    @hookimpl
    def oao_price(self, call):
        return Price(input_per_million=1000.0, output_per_million=10000.0)

@pytest.mark.oao(policy=Prices())
def test_refund(oao):
    agent("x")
    assert oao.cost == pytest.approx(2 * (30 * 0.001 + 12 * 0.01))
    assert oao.run.cost == pytest.approx(oao.cost)
    assert oao.run.within(max_cost_usd=0.3)
    assert oao.run.within(max_cost_usd=LIMIT)
"""


def test_costs_are_those_of_the_prices_that_a_plugin_names(shop: Any) -> None:
    """In recording and in replay, for asserts and in the table."""
    shop.write(test=PRICES.replace("LIMIT", "0.3"))
    for mode in ("once", "none"):
        result = shop.run(f"--oao-record={mode}")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["test_shop.py::test_refund*$0.3000*"])
    shop.write(test=PRICES.replace("LIMIT", "0.1"))
    shop.run().stdout.fnmatch_lines(["E*over its budget: max_cost_usd: 0.300000 > 0.1"])
