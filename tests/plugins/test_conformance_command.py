"""`pytest --pyargs pytest_oao.testing.conformance`: what it says with and without something to test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SUITE = ("--pyargs", "pytest_oao.testing.conformance")
QUIET = ("-p", "pytest_oao.plugin", "-p", "no:cacheprovider")


@pytest.fixture(autouse=True)
def _only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other plugins of this environment take longer to load than the suites."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def suspects(pytester: pytest.Pytester) -> str:
    """A module of plugins in the working folder; its name."""
    shutil.copy(HERE / "suspects.py", pytester.path / "suspects.py")
    return "suspects"


def outcomes(result: pytest.RunResult) -> dict[str, int]:
    return {name: count for name, count in result.parseoutcomes().items() if name not in {"warnings", "deselected"}}


def failed(result: pytest.RunResult) -> set[str]:
    """The tests that failed, without their parameters."""
    lines = [line for line in result.outlines if line.startswith("FAILED ")]
    return {line.split("::")[2].split("[")[0].split(" ")[0].removeprefix("test_") for line in lines}


def only(tests: set[str]) -> tuple[str, ...]:
    """Which tests to run; all where none is named."""
    return ("-k", " or ".join(sorted(tests))) if tests else ()


@pytest.mark.parametrize("arguments", [SUITE, (*SUITE, "-k", "policy"), ("--pyargs", f"{SUITE[1]}.test_store")])
def test_without_anything_to_test_it_says_how_it_is_called(
    pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    """An error that names every option, and never a session in which nothing was tested and all was fine."""
    result = pytester.runpytest_inprocess(*QUIET, *arguments)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = result.stderr.str()
    for kind in ("store", "scheduler", "ledger", "listener", "policy", "adapter"):
        assert f"--oao-{kind}=pkg:X" in said


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--oao-store=nowhere:X", "there is no module 'nowhere'"),
        ("--oao-store=suspects:Stor", "'suspects' has no 'Stor'; did you mean 'StoreCase'?"),
        ("--oao-policy=suspects:Nobody", "'suspects' has no 'Nobody'"),
        ("--oao-policy=stanard", "did you mean 'standard'?"),
        ("--oao-listener=suspects", "is not of the form pkg:X"),
        ("--oao-scheduler=suspects:number", "7 makes no scheduler"),
        ("--oao-store=suspects:local", "it is a SchedulerCase; a store needs a StoreCase"),
    ],
)
def test_what_cannot_be_tested_is_one_line(pytester: pytest.Pytester, suspects: str, option: str, says: str) -> None:
    """Names the option, what is wrong and what would be right; no traceback."""
    result = pytester.runpytest_inprocess(*QUIET, option, *SUITE)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"oao: {option}: " in result.stderr.str()
    assert says in result.stderr.str()
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_other_tests_are_not_run_ungoverned_beside_it(pytester: pytest.Pytester, suspects: str) -> None:
    """`--oao-policy` governs the tests of a session, and names what the suite tests: not both at once."""
    pytester.makepyfile(test_own="def test_own(): pass")
    result = pytester.runpytest_inprocess(*QUIET, *SUITE, "test_own.py", "--oao-policy=strict")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "need a session of their own" in result.stderr.str()


def test_several_kinds_are_tested_together(pytester: pytest.Pytester, suspects: str) -> None:
    """Options before the package and behind it; what is declared absent is told with its reason."""
    result = pytester.runpytest_inprocess(
        *QUIET, "-rx", "--oao-policy=suspects:changer", *SUITE, "--oao-listener=suspects:lines", "-k", "not sync"
    )

    assert result.ret == 0, result.stdout.str()
    assert set(outcomes(result)) == {"passed"}
    assert outcomes(result)["passed"] >= 25


def test_a_store_that_declares_what_it_cannot(pytester: pytest.Pytester, suspects: str) -> None:
    """It passes, and the summary tells what it cannot do in its author's words."""
    few = "opened_again or rewritten or deleted or read_in_order or unknown_run"
    result = pytester.runpytest_inprocess(*QUIET, "-rx", *SUITE, "--oao-store=suspects:memory", "-k", few)

    assert result.ret == 0, result.stdout.str()
    assert outcomes(result)["xfailed"] == 1
    assert "it declares that it cannot 'reopen': journals live in one object" in result.stdout.str()


def test_a_declaration_that_is_not_true_is_said(pytester: pytest.Pytester, suspects: str) -> None:
    """What is declared absent and works fails the suite; so does a word that means nothing."""
    result = pytester.runpytest_inprocess(*QUIET, *SUITE, "--oao-store=suspects:boastful", "-k", "deleted_run_is_gone")
    assert result.ret == 1
    assert "XPASS(strict)" in result.stdout.str()
    assert "it declares that it cannot 'delete': so it says" in result.stdout.str()

    result = pytester.runpytest_inprocess(*QUIET, *SUITE, "--oao-store=suspects:misspelt", "-k", "deleted_run_is_gone")
    assert result.ret == 1
    assert "'proceses', which this suite does not ask for; it may declare delete, processes" in result.stdout.str()


def test_a_store_that_loses_records_is_found(pytester: pytest.Pytester, suspects: str) -> None:
    """The suite of stores is the one that is inherited."""
    result = pytester.runpytest_inprocess(*QUIET, *SUITE, "--oao-store=suspects:Forgetful", "-k", "appended or batch")

    assert "a_batch_is_kept_wholly_or_not_at_all" in failed(result)


def test_a_scheduler_of_one_process_passes(pytester: pytest.Pytester, suspects: str) -> None:
    """Each queue is a new one, in a folder of its own."""
    few = "arrives or cancelled_is_never or stopped_ends"
    result = pytester.runpytest_inprocess(*QUIET, *SUITE, "--oao-scheduler=suspects:local", "-k", few)

    assert result.ret == 0, result.stdout.str()


@pytest.mark.parametrize(
    ("policy", "defects"),
    [
        ("spender", set()),
        ("changer", set()),
        ("strict", set()),
        ("Counter", {"a_run_leaves_nothing_behind", "runs_side_by_side_do_not_mix"}),
        ("Numbered", {"its_version_is_that_of_its_code_and_settings"}),
        ("Trusting", {"every_call_is_judged_without_an_error"}),
        ("Writer", {"a_replay_has_no_effects"}),
        (
            "Dice",
            {
                "the_same_run_is_judged_the_same",
                "a_replay_is_judged_the_same",
                "recorded_runs_can_be_judged_again",
                "async_calls_are_judged_the_same",
                "a_run_leaves_nothing_behind",
                "runs_side_by_side_do_not_mix",
                "a_resumed_run_is_judged_as_one_that_was_not_suspended",
            },
        ),
        ("Butler", {"what_another_policy_asks_about_waits_for_a_person"}),
        ("false_modesty", {"the_same_run_is_judged_the_same", "a_replay_is_judged_the_same"}),
    ],
)
def test_a_policy_is_found_out(pytester: pytest.Pytester, suspects: str, policy: str, defects: set[str]) -> None:
    """Each defect by the test that promises its absence; those without any pass."""
    name = policy if policy == "strict" else f"suspects:{policy}"
    result = pytester.runpytest_inprocess(*QUIET, *SUITE, f"--oao-policy={name}", "--tb=no", *only(defects))

    found = failed(result)
    assert defects <= found, result.stdout.str()
    if not defects:
        assert result.ret == 0, result.stdout.str()


def test_a_slow_policy_is_found_out(pytester: pytest.Pytester, suspects: str) -> None:
    """The agent waits for every answer."""
    result = pytester.runpytest_inprocess(*QUIET, *SUITE, "--oao-policy=suspects:Sleeper", "-k", "answers_soon")

    assert failed(result) == {"it_answers_soon"}


@pytest.mark.parametrize(
    ("listener", "defects"),
    [
        ("Lines", set()),
        ("Twice", set()),
        ("twice", {"every_event_is_heard_once_and_in_order", "a_replay_is_heard"}),
        ("holding", {"a_run_that_is_over_is_let_go"}),
        ("failing", {"it_fails_at_no_event"}),
        ("Meddler", {"runs_are_the_same_without_it"}),
        ("Changer", {"it_is_a_listener", "it_decides_nothing"}),
    ],
)
def test_a_listener_is_found_out(pytester: pytest.Pytester, suspects: str, listener: str, defects: set[str]) -> None:
    """Each defect by the test that promises its absence; what it keeps is asked only where it says how to read it."""
    result = pytester.runpytest_inprocess(
        *QUIET, *SUITE, f"--oao-listener=suspects:{listener}", "--tb=no", *only(defects)
    )

    assert defects <= failed(result), result.stdout.str()
    if not defects:
        assert result.ret == 0, result.stdout.str()
        assert outcomes(result)["skipped"] == 7
