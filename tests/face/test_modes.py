"""`--oao-record`: what each mode runs, replays and writes; pending recordings; nothing of a failed test is kept."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from oao_harness.cli import main

NEW_PROMPT = ("You are careful.", "You are very careful.")
NEW_QUESTION = ('f"paid {paid}"', 'f"they paid {paid}"')


def _oao(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("mode", ["none", "once", "new", "all", "rewrite"])
def test_an_unchanged_run_leaves_its_recording_as_it_is(recorded: Any, mode: str) -> None:
    """Played in three modes, run again in two; only `rewrite` may write, and what it writes says the same."""
    before, names = recorded.recording.read_bytes(), recorded.names()

    result = recorded.run(f"--oao-record={mode}")

    result.assert_outcomes(passed=1)
    live = mode in {"all", "rewrite"}
    result.stdout.fnmatch_lines(["*RAN [[]'gpt-x'*" if live else "*RAN [[][]]"])
    assert recorded.files() == ["test_shop/test_refund.oao.json"]
    assert recorded.names() == names
    if mode != "rewrite":
        assert recorded.recording.read_bytes() == before
    word = {"rewrite": "recorded", "all": "same"}.get(mode, "ok")
    result.stdout.fnmatch_lines([f"test_shop.py::test_refund*4*2*84*ok*{word}"])


@pytest.mark.parametrize("mode", ["once", "new", "all", "rewrite"])
def test_a_test_without_a_recording_gets_one(shop: Any, mode: str) -> None:
    """In every mode that records; there is nothing to review."""
    result = shop.run(f"--oao-record={mode}")

    result.assert_outcomes(passed=1)
    assert shop.files() == ["test_shop/test_refund.oao.json"]
    result.stdout.fnmatch_lines(["*recorded: 1"])


@pytest.mark.parametrize("mode", ["none", "once"])
def test_a_change_diverges_where_the_recording_is_played(recorded: Any, mode: str) -> None:
    """`once` records what has no recording; it never goes live for a test that has one."""
    recorded.write(NEW_PROMPT)

    result = recorded.run(f"--oao-record={mode}")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["step 1 model gpt-x: system prompt changed (replay diverged)"])
    result.stdout.no_fnmatch_line("*RAN*")
    assert recorded.files() == ["test_shop/test_refund.oao.json"]


def test_new_replays_the_beginning_then_goes_live_and_waits_for_a_review(recorded: Any) -> None:
    """The prefix runs nothing; the rest is run and pending; accepted, it replays."""
    before = recorded.recording.read_bytes()
    recorded.write(NEW_QUESTION)

    result = recorded.run("--oao-record=new")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "*RAN [[]'gpt-x', 'refund']",
            "test_shop.py::test_refund*pending",
            "pending: test_shop.py::test_refund: 1 step changed*; first: step 3 model gpt-x: *",
            "1 pending recording: recordings/test_shop/test_refund.oao.json.new (oao review)",
        ]
    )
    assert recorded.recording.read_bytes() == before
    assert recorded.names(recorded.pending) == ["gpt-x", "lookup", "gpt-x", "refund"]

    _oao("accept", str(recorded.recording))
    replayed = recorded.run("--oao-record=none")
    replayed.assert_outcomes(passed=1)
    replayed.stdout.fnmatch_lines(["*RAN [[][]]"])
    assert recorded.files() == ["test_shop/test_refund.oao.json"]


def test_new_goes_live_from_the_first_call_where_that_has_changed(recorded: Any) -> None:
    """Nothing of the old conversation is mixed into the new one."""
    recorded.write(NEW_PROMPT)

    result = recorded.run("--oao-record=new")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*RAN [[]'gpt-x', 'lookup', 'gpt-x', 'refund']"])
    result.stdout.fnmatch_lines(["pending: test_shop.py::test_refund: 2 steps changed; first: step 1 model gpt-x: *"])


def test_a_shorter_run_is_pending_too(recorded: Any) -> None:
    """An agent that does less than it did replays completely, and has changed all the same."""
    recorded.write(('return refund("123", paid)', "return paid"))

    result = recorded.run("--oao-record=new")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*RAN [[][]]", "pending: test_shop.py::test_refund: 1 step removed; first: step 4 tool refund: removed"]
    )
    assert recorded.names(recorded.pending) == ["gpt-x", "lookup", "gpt-x"]


def test_all_runs_live_and_keeps_what_differs_for_a_review(recorded: Any) -> None:
    """A tool that answers differently today is a change; the recording is not touched before somebody agreed."""
    before = recorded.recording.read_bytes()
    recorded.write(("49.99", "52.0"))

    result = recorded.run("--oao-record=all")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "*RAN [[]'gpt-x', 'lookup', 'gpt-x', 'refund']",
            "test_shop.py::test_refund*pending",
            "pending: test_shop.py::test_refund: * first: step 2 tool lookup: *49.99 -> 52*",
            "1 pending recording: *",
        ]
    )
    assert recorded.recording.read_bytes() == before


def test_rewrite_replaces_without_a_review(recorded: Any) -> None:
    """That is what it is for."""
    recorded.write(NEW_PROMPT)

    result = recorded.run("--oao-record=rewrite")

    result.assert_outcomes(passed=1)
    assert recorded.files() == ["test_shop/test_refund.oao.json"]
    recorded.run("--oao-record=none").assert_outcomes(passed=1)


@pytest.mark.parametrize("mode", ["once", "new", "all", "rewrite"])
@pytest.mark.parametrize("has_recording", [True, False])
def test_a_failed_test_saves_nothing(shop: Any, mode: str, has_recording: bool) -> None:
    """In no mode, whether there was a recording or not."""
    if has_recording:
        shop.record()
    before = {name: (shop.path / "recordings" / name).read_bytes() for name in shop.files()}
    shop.write(NEW_PROMPT, ('print("RAN", RAN)', "assert answer is None"))

    shop.run(f"--oao-record={mode}").assert_outcomes(failed=1)

    assert {name: (shop.path / "recordings" / name).read_bytes() for name in shop.files()} == before


@pytest.mark.parametrize("mode", ["all", "rewrite"])
def test_a_test_whose_teardown_fails_has_a_recording_of_its_body(shop: Any, mode: str) -> None:
    """The body passed, and that is what was recorded."""
    fixture = "\n@pytest.fixture\ndef after():\n    yield\n    raise OSError('disk')\n"
    failing = f"{fixture}\ndef test_refund(after):\n    agent('x')\n"
    shop.write(test=failing)
    shop.run(f"--oao-record={mode}").assert_outcomes(passed=1, errors=1)
    assert shop.files() == ["test_shop/test_refund.oao.json"]


def test_a_pending_recording_is_told_of_until_somebody_decides(recorded: Any) -> None:
    """In each session, also in one that replays the old recording well."""
    recorded.write(NEW_QUESTION)
    recorded.run("--oao-record=new").assert_outcomes(passed=1)
    recorded.write()

    result = recorded.run("--oao-record=none")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 pending recording: recordings/test_shop/test_refund.oao.json.new (oao review)"])

    _oao("reject", str(recorded.recording))
    recorded.run("--oao-record=none").stdout.no_fnmatch_line("*pending recording*")


def test_a_run_that_is_as_recorded_again_takes_its_pending_recording_back(recorded: Any) -> None:
    """Else somebody accepts what the code no longer does."""
    recorded.write(NEW_QUESTION)
    recorded.run("--oao-record=new").assert_outcomes(passed=1)
    assert recorded.pending.exists()
    recorded.write()

    result = recorded.run("--oao-record=new")

    result.assert_outcomes(passed=1)
    assert not recorded.pending.exists()
    result.stdout.no_fnmatch_line("*pending recording*")
