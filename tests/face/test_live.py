"""`--oao-live`: what is not replayed, by kind, by name and by pattern; the network; what a live result changes."""

from __future__ import annotations

from typing import Any

import pytest

CONNECTS = """
import socket

def connect():
    try:
        socket.create_connection(("192.0.2.1", 9), timeout=0.05).close()
    except TimeoutError:
        pass
    except OSError:
        pass
"""


@pytest.mark.parametrize(
    ("live", "ran"),
    [
        ("tool", ["lookup", "refund"]),
        ("model", ["gpt-x", "gpt-x"]),
        ("lookup", ["lookup"]),
        ("tool:look*", ["lookup"]),
        ("model:gpt-*", ["gpt-x", "gpt-x"]),
        ("model, refund", ["gpt-x", "gpt-x", "refund"]),
        ("model:lookup", []),
        ("gpt-*,tool", ["gpt-x", "lookup", "gpt-x", "refund"]),
    ],
)
def test_what_is_live_runs_and_the_rest_is_recorded(recorded: Any, live: str, ran: list[str]) -> None:
    """By the option and by the marker, with the same outcome; the header says it; the recording stays as it is."""
    before = recorded.recording.read_bytes()

    by_option = recorded.run(f"--oao-live={live}")
    recorded.write(
        test=f'\n@pytest.mark.oao(live="{live}")\ndef test_refund():\n    agent("order 123")\n    print("RAN", RAN)\n'
    )
    by_marker = recorded.run("--oao-policy=strict")

    for result in (by_option, by_marker):
        result.assert_outcomes(passed=1)
        assert f"RAN {ran}" in result.stdout.str()
    assert f"| live: {', '.join(part.strip() for part in live.split(','))} |" in by_option.stdout.str()
    assert recorded.recording.read_bytes() == before


@pytest.mark.parametrize("marker", ['"lookup"', '["lookup"]', '("lookup",)'])
def test_a_marker_may_say_it_as_text_or_list(recorded: Any, marker: str) -> None:
    """As people write it."""
    recorded.write(
        test=f"\n@pytest.mark.oao(live={marker})\ndef test_refund():\n    agent('order 123')\n    print('RAN', RAN)\n"
    )
    result = recorded.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*RAN [[]'lookup'[]]"])


def test_a_live_result_that_changed_makes_the_next_call_diverge(recorded: Any) -> None:
    """The model is asked with what the tool says today, and that is not what was recorded."""
    recorded.write(("49.99", "52.0"))

    result = recorded.run("--oao-live=lookup")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["step 3 model gpt-x: tool result changed (replay diverged)", "*paid 49.99*paid 52.0*"])
    result.stdout.fnmatch_lines(["test_shop.py::test_refund*diverged @3"])


def test_a_live_model_that_asks_for_something_else_makes_the_tool_diverge(recorded: Any) -> None:
    """Recorded tools have answers to recorded questions only."""
    recorded.write(('lookup("123")', 'lookup("124")'))

    result = recorded.run("--oao-live=model")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["step 2 tool lookup: id *123* -> *124* (replay diverged)"])


def test_what_is_live_may_be_left_out(recorded: Any) -> None:
    """It is no recorded call that was not made; another one still is."""
    recorded.write(('return refund("123", paid)', "return paid"))

    recorded.run("--oao-live=refund").assert_outcomes(passed=1)
    recorded.run("--oao-live=lookup").assert_outcomes(failed=1)


@pytest.mark.parametrize("live", ["*", "model,tool"])
def test_everything_live_needs_no_recording(shop: Any, live: str) -> None:
    """Nor makes one."""
    result = shop.run(f"--oao-live={live}")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["test_shop.py::test_refund*live"])
    assert shop.files() == []


def test_some_live_calls_need_one(shop: Any) -> None:
    """The message says how to get it."""
    result = shop.run("--oao-live=lookup")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["no recording of this test; record it: pytest --oao-record=once *test_refund*"])


@pytest.mark.parametrize(("where", "fails"), [("inside", False), ("outside", True), ("recorded", True)])
def test_the_network_is_open_inside_of_live_calls_only(recorded: Any, where: str, fails: bool) -> None:
    """Also in a thread of the tool; not beside it, and a recorded tool is not run at all."""
    source = CONNECTS
    body = ('RAN.append("lookup")', 'RAN.append("lookup"); connect()')
    between = ("    ask([*messages", "    connect()\n    ask([*messages")
    recorded.write(("import os\n", "import os\n" + source), body if where == "inside" else between)

    result = recorded.run("--oao-live=refund" if where == "recorded" else "--oao-live=lookup")

    result.assert_outcomes(**({"failed": 1} if fails else {"passed": 1}))
    if fails:
        result.stdout.fnmatch_lines(["network: connect to 192.0.2.1:9 during replay (loopback)"])
