"""Numbers as a person reads them."""

from __future__ import annotations

import pytest

from oao_harness.cli.units import ago, dollars, duration, moment, parse_age, plural
from oao_harness.errors import UsageError


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 us"),
        (0.000084, "84 us"),
        (0.0031, "3.1 ms"),
        (0.0999, "100 ms"),
        (0.9999, "1 s"),
        (1.2, "1.20 s"),
        (30.0, "30 s"),
        (59.999, "1 min"),
        (125, "2 min 05 s"),
        (600, "10 min"),
        (11_520, "3 h 12 min"),
    ],
)
def test_a_duration_has_its_unit(seconds: float, text: str) -> None:
    """Rounding never gives a number that the next unit should have: no `1000 ms`, no `60.00 s`."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "now"), (0.5, "now"), (40, "40 s ago"), (200, "3 min ago"), (7200, "2 h ago")]
)
def test_a_moment_is_some_time_ago(seconds: float, text: str) -> None:
    """A clock that was set back shows `now`."""
    assert ago(seconds) == text


def test_a_noun_agrees_with_its_number() -> None:
    """One step, no steps, many steps."""
    assert (plural(1, "step"), plural(0, "step"), plural(1204, "token")) == ("1 step", "0 steps", "1,204 tokens")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("1.5 h", 5_400), ("90min", 5_400), ("2W", 1_209_600)]
)
def test_a_time_span_is_read(text: str, seconds: float) -> None:
    """A number and its unit."""
    assert parse_age(text, "--x") == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "30 days", "-3d", "1e3d"])
def test_what_is_no_time_span_is_refused(text: str) -> None:
    """With the option that it was given for."""
    with pytest.raises(UsageError, match=r"^--x '.*' is no time span; write a number"):
        parse_age(text, "--x")


def test_a_moment_is_a_date_or_a_span_before_now() -> None:
    """In local time, or with its own offset."""
    assert moment("1970-01-02T00:00+00:00", 0.0, "--since") == 86_400
    assert moment("2h", 10_000.0, "--since") == 2_800
    with pytest.raises(UsageError, match=r"^--since 'soon' is no moment; write 2026-05-31"):
        moment("soon", 0.0, "--since")


@pytest.mark.parametrize(
    ("amount", "text"), [(0.0, "0 USD"), (0.004212, "0.00421 USD"), (1.2, "1.20 USD"), (1234.5, "1234.50 USD")]
)
def test_dollars(amount: float, text: str) -> None:
    """Three digits where it is less than one."""
    assert dollars(amount) == text
