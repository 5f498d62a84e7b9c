"""Numbers as a person reads them."""

from __future__ import annotations

import pytest

from oao_harness.cli.units import ago, duration, plural


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
