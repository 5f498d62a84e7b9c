"""Options and ini keys that say how strictly a recording is played: order, unplayed, ignored paths, volatile tokens."""

from __future__ import annotations

from typing import Any

import pytest

ORDER = """
def test_refund():
    lookup("1")
    lookup("2")
    lookup("3")
"""
SWAPPED = ('lookup("1")\n    lookup("2")', 'lookup("2")\n    lookup("1")')
PARALLEL = """
import threading

def test_refund():
    barrier = threading.Barrier(2)

    @oao.tool
    def wait(n):
        try:
            barrier.wait(1)
        except threading.BrokenBarrierError:
            pass
        return n

    if os.environ.get("ONE_BY_ONE"):
        barrier.abort()
        wait(2), wait(1)
        return
    threads = [threading.Thread(target=wait, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""
LEFT_OUT = ('return refund("123", paid)', "return paid")


@pytest.mark.parametrize(("order", "passes"), [("causal", False), ("strict", False), ("any", True)])
def test_calls_one_after_the_other_may_be_swapped_in_any_order_only(shop: Any, order: str, passes: bool) -> None:
    """By the option, the ini key and the marker."""
    shop.write(test=ORDER)
    shop.record()
    outcome = {"passed": 1} if passes else {"failed": 1}

    shop.write(SWAPPED, test=ORDER)
    shop.run(f"--oao-order={order}").assert_outcomes(**outcome)
    shop.run("-o", f"oao_order={order}").assert_outcomes(**outcome)
    shop.write(SWAPPED, test=ORDER.replace("def test", f"@pytest.mark.oao(order='{order}')\ndef test"))
    shop.run("--oao-policy=strict").assert_outcomes(**outcome)


@pytest.mark.parametrize(("order", "passes"), [("causal", True), ("strict", False), ("any", True)])
def test_calls_that_overlapped_may_be_swapped_unless_it_is_strict(
    shop: Any, monkeypatch: pytest.MonkeyPatch, order: str, passes: bool
) -> None:
    """What was parallel when it was recorded has no order."""
    shop.write(test=PARALLEL)
    shop.record()
    recorded = [event["req"]["n"] for event in shop.events()]
    monkeypatch.setenv("ONE_BY_ONE", "1")
    if recorded == [2, 1]:
        shop.write(("wait(2), wait(1)", "wait(1), wait(2)"), test=PARALLEL)

    shop.run(f"--oao-order={order}").assert_outcomes(**({"passed": 1} if passes else {"failed": 1}))


def test_a_swap_says_which_call_came_too_early(shop: Any) -> None:
    """With both numbers."""
    shop.write(test=ORDER)
    shop.record()
    shop.write(SWAPPED, test=ORDER)
    shop.run("--oao-order=strict").stdout.fnmatch_lines(
        ["step 2 tool lookup came before tool lookup #1 (replay diverged)"]
    )


@pytest.mark.parametrize("how", ["option", "ini", "marker"])
@pytest.mark.parametrize("action", ["fail", "warn", "ignore"])
def test_a_recorded_call_that_was_not_made_fails_warns_or_is_ignored(recorded: Any, action: str, how: str) -> None:
    """A warning is a line of the summary."""
    marker = f"\n@pytest.mark.oao(unplayed='{action}')" if how == "marker" else ""
    recorded.write(LEFT_OUT, test=f"{marker}\ndef test_refund():\n    agent('order 123')\n")
    options = {"option": (f"--oao-unplayed={action}",), "ini": ("-o", f"oao_unplayed={action}"), "marker": ()}[how]

    result = recorded.run("--oao-policy=strict", *options)

    result.assert_outcomes(**({"failed": 1} if action == "fail" else {"passed": 1}))
    text = "1 recorded step not replayed: #4 tool refund"
    if action == "fail":
        result.stdout.fnmatch_lines([text, "test_shop.py::test_refund*unplayed"])
    elif action == "warn":
        result.stdout.fnmatch_lines(
            ["test_shop.py::test_refund*unplayed", f"unplayed: test_shop.py::test_refund: {text}"]
        )
    else:
        result.stdout.fnmatch_lines(["test_shop.py::test_refund*ok"])
        result.stdout.no_fnmatch_line("*not replayed*")


IGNORED = """
def test_refund():
    lookup({"order": "1", "trace": os.environ.get("TRACE", "a")})
"""


@pytest.mark.parametrize(
    ("options", "marker", "passes"),
    [
        ((), "", False),
        (("-o", "oao_ignore=id.trace"), "", True),
        ((), "ignore=['id.trace']", True),
        ((), "ignore='id.trace, id.other'", True),
        (("-o", "oao_ignore=id.other"), "ignore=['id.trace']", True),
        (("-o", "oao_ignore=id.other"), "", False),
    ],
)
def test_paths_that_are_ignored_may_differ(
    shop: Any, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], marker: str, passes: bool
) -> None:
    """By the ini key and the marker together; nothing else may."""
    test = IGNORED.replace("\ndef", f"\n@pytest.mark.oao({marker})\ndef") if marker else IGNORED
    shop.write(test=test)
    shop.record()
    monkeypatch.setenv("TRACE", "b")

    shop.run("--oao-policy=strict", *options).assert_outcomes(**({"passed": 1} if passes else {"failed": 1}))
    shop.write(('"order": "1"', '"order": "2"'), test=test)
    shop.run("--oao-policy=strict", *options).assert_outcomes(failed=1)


VOLATILE = """
def test_refund():
    lookup(os.environ.get("ONE", "11111111-1111-4111-8111-111111111111"))
    lookup(os.environ.get("TWO", "22222222-2222-4222-8222-222222222222"))
    lookup(os.environ.get("DAY", "2026-01-01T10:00:00Z"))
"""
IDS = ["33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"]


@pytest.mark.parametrize(
    ("volatile", "changed", "passes"),
    [
        ("", {"ONE": IDS[0], "TWO": IDS[1]}, True),
        ("", {"ONE": IDS[0], "TWO": IDS[0]}, False),
        ("", {"DAY": "2027-05-05T10:00:08Z"}, False),
        ("uuid time", {"ONE": IDS[0], "TWO": IDS[1], "DAY": "2027-05-05T10:00:08Z"}, True),
        ("time", {"ONE": IDS[0], "TWO": IDS[1]}, False),
    ],
    ids=["renamed", "merged", "times are not volatile", "times are", "ids are not"],
)
def test_volatile_tokens_may_be_renamed_one_to_one(
    shop: Any, monkeypatch: pytest.MonkeyPatch, volatile: str, changed: dict[str, str], passes: bool
) -> None:
    """Only of the kinds that the project names, else of the usual ones; two that become one are a change."""
    shop.write(test=VOLATILE)
    shop.record()
    for name, value in changed.items():
        monkeypatch.setenv(name, value)

    options = ("-o", f"oao_volatile={volatile}") if volatile else ()
    shop.run("--oao-policy=strict", *options).assert_outcomes(**({"passed": 1} if passes else {"failed": 1}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--oao-record=always",), "*--oao-record: invalid choice: 'always' (choose from *none*once*new*all*rewrite*"),
        (("--oao-order=some",), "*--oao-order: invalid choice: 'some' (choose from *causal*strict*any*"),
        (("--oao-unplayed=x",), "*--oao-unplayed: invalid choice: 'x' (choose from *fail*warn*ignore*"),
        (("--oao-network=x",), "*--oao-network: invalid choice: 'x' (choose from *closed*loopback*open*"),
        (("--oao-orphans=x",), "*--oao-orphans: invalid choice: 'x' (choose from *fail*warn*ignore*"),
        (("--oao-summary=x",), "*--oao-summary: invalid choice: 'x' (choose from *auto*all*slowest*none*"),
        (
            ("--oao-policy=off", "-o", "oao_order=x"),
            "*oao_order = 'x' in the ini file; choose one of causal, strict, any",
        ),
        (
            ("--oao-policy=off", "-o", "oao_clock=x"),
            "*oao_clock = 'x' in the ini file; choose one of frozen, ticking, real",
        ),
        (
            ("--oao-policy=off", "-o", "oao_max_age=x"),
            "*oao_max_age = 'x' in the ini file: write it in days, for example 90d",
        ),
        (("--oao-policy=off", "-o", "oao_volatile=x"), "*oao_ignore, oao_volatile: *'x'*uuid*"),
        (("--oao-policy=off", "-o", "oao_ignore=a..b"), "*oao_ignore, oao_volatile: *'a..b'*"),
        (("--oao-mutate=x",), "*--oao-mutate=x must be a whole number, 0 or more"),
        (("--oao-max-cost=x",), "*--oao-max-cost=x: write US dollars, for example 2.50, or unlimited"),
        (("--oao-max-cost=-1",), "*--oao-max-cost=-1: write US dollars, for example 2.50, or unlimited"),
        (("--oao-max-cost=nan",), "*--oao-max-cost=nan: write US dollars, for example 2.50, or unlimited"),
    ],
)
def test_a_wrong_value_is_a_usage_error_with_the_choices(shop: Any, options: tuple[str, ...], words: str) -> None:
    """No test runs, no traceback."""
    result = shop.run(*options)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([words])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("order='some'", "*test_refund: @pytest.mark.oao(order='some'); choose one of causal, strict, any"),
        ("unplayed='no'", "*@pytest.mark.oao(unplayed='no'); choose one of fail, warn, ignore"),
        ("network='on'", "*@pytest.mark.oao(network='on'); choose one of closed, loopback, open"),
        ("clock='stopped'", "*@pytest.mark.oao(clock='stopped'); choose one of frozen, ticking, real"),
        ("ignore='a..b'", "*'a..b'*"),
        ("ignore=3", "*ignore=3*"),
        ("live=3", "*live=3*"),
        ("recording=''", "*recording=''*"),
    ],
)
def test_a_wrong_value_of_the_marker_is_a_usage_error(shop: Any, marker: str, words: str) -> None:
    """It names the test, and what may be said; also without any option."""
    shop.write(test=f"\n@pytest.mark.oao({marker})\ndef test_refund():\n    agent('x')\n")

    result = shop.run()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([words])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


NETWORK = """
import socket

def test_refund():
    lookup("1")
    try:
        socket.create_connection(("192.0.2.1", 9), timeout=0.05).close()
    except OSError:
        pass
"""


@pytest.mark.parametrize(("network", "passes"), [("closed", False), ("loopback", False), ("open", True)])
def test_the_marker_says_what_the_replay_may_connect_to(shop: Any, network: str, passes: bool) -> None:
    """`open` is for a test that needs it."""
    test = NETWORK.replace("\ndef test", f"\n@pytest.mark.oao(network='{network}')\ndef test")
    shop.write(test=test)
    shop.record()
    shop.run("--oao-policy=strict").assert_outcomes(**({"passed": 1} if passes else {"failed": 1}))
