"""`-p no:oao` removes the plugin; pytest's strict settings accept it; its help can be read."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def installed(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project that runs with the installed plugins, as a user has them."""
    pytester.makepyfile(
        """
import sys
import oao_harness as oao

@oao.tool
def lookup(id):
    return id

def test_it():
    assert lookup("1") == "1"
    print("LOADED", sorted(name for name in sys.modules if name.startswith("pytest_oao")))
"""
    )
    return pytester


def test_no_oao_removes_everything(installed: pytest.Pytester) -> None:
    """No module, no option, no header, no recording; the agent runs as it is."""
    result = installed.runpytest_subprocess("-p", "no:oao", "-s", "-p", "no:randomly")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*LOADED []"])
    result.stdout.no_fnmatch_line("*oao: policy*")

    unknown = installed.runpytest_subprocess("-p", "no:oao", "--oao-record=once")
    assert unknown.ret == pytest.ExitCode.USAGE_ERROR
    unknown.stderr.fnmatch_lines(["*unrecognized arguments: --oao-record=once"])


def test_strict_settings_know_the_keys_and_the_marker(recorded: Any) -> None:
    """And refuse a key that does not exist."""
    keys = "oao_policy = strict\noao_record = none\noao_order = causal\noao_volatile = uuid\noao_max_age = 90d\n"
    options = ("--strict-config", "--strict-markers")
    recorded.pytester.makeini(f"[pytest]\n{keys}")
    recorded.write(test="\n@pytest.mark.oao(max_steps=9)\ndef test_refund():\n    agent('order 123')\n")
    recorded.run(*options).assert_outcomes(passed=1)

    recorded.pytester.makeini(f"[pytest]\n{keys}oao_recrod = none\n")
    result = recorded.run(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*Unknown config option: oao_recrod"])


def test_the_help_names_each_option_with_its_choices_and_its_default(shop: Any) -> None:
    """Somebody who types `pytest --help | grep oao` learns what there is."""
    text = " ".join(shop.run("--help").stdout.str().split())
    for part in (
        "--oao-record=MODE none: replay, fail where nothing is recorded (default). once: record what has none",
        "--oao-unplayed=ACTION a recorded call that was not made: fail (default), warn or ignore",
        "--oao-orphans=ACTION a recording that no test plays: fail, warn (default) or ignore",
        "--oao-max-cost=USD stop live calls when the session has spent this; unlimited by default",
        "oao_record (string): as --oao-record: none, once, new, all, rewrite",
    ):
        assert part in text
    markers = shop.run("--markers").stdout.str()
    assert "@pytest.mark.oao(policy=, deny=, allow=, max_steps=" in markers
    fixtures = shop.run("--fixtures").stdout.str()
    assert "oao_scripted -- " in fixtures


def test_a_recorded_test_is_replayed_without_any_option(shop: Any) -> None:
    """Plain `pytest` runs no body of it; its neighbours without a recording are none of the plugin's business."""
    shop.write(test="\ndef test_refund():\n    agent('x')\n    print('RAN', RAN)\n\ndef test_live():\n    agent('y')\n")
    shop.run("--oao-record=once", "-k", "refund").assert_outcomes(passed=1, deselected=1)

    result = shop.run("-s")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*RAN []*"])
