"""`--oao-max-cost`: what the live calls of a session may cost together, in one process and over several workers."""

from __future__ import annotations

from typing import Any

import pytest

PRICES = """
from oao_hookspecs import Price, hookimpl

class Prices:
    name = "prices"

    @hookimpl
    def oao_price(self, call):
        return Price(input_per_million=1000.0, output_per_million=10000.0) if call.name == "gpt-x" else None

POLICY = Prices()
"""
# Each call costs 30 * 0.001 + 12 * 0.01 = 0.15 dollars.
TESTS = """
@pytest.mark.parametrize("n", range(6))
def test_refund(n):
    ask([{"role": "user", "content": f"question {n}"}])
"""


@pytest.fixture
def priced(shop: Any) -> Any:
    """A shop whose model has a price."""
    (shop.path / "prices.py").write_text(PRICES)
    shop.pytester.makeini("[pytest]\npythonpath = .\noao_policy = prices:POLICY\n")
    shop.write(test=TESTS)
    return shop


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "workers"])
def test_live_calls_stop_when_the_money_is_spent(priced: Any, workers: tuple[str, ...]) -> None:
    """All processes spend from one account; who comes too late fails and says why."""
    result = priced.run_alone("--oao-record=once", "--oao-max-cost=0.40", *workers)

    passed = result.parseoutcomes().get("passed", 0)
    assert passed in {2, 3}
    result.assert_outcomes(passed=passed, failed=6 - passed)
    result.stdout.fnmatch_lines(["oao: *at most $0.4"])
    result.stdout.fnmatch_lines(["policy violation: max_cost_usd: budget *: cost: * USD*"])
    assert len(priced.files()) == passed


def test_the_ledger_of_the_workers_does_not_stay(priced: Any) -> None:
    """A file for each session would pile up."""
    priced.run_alone("--oao-record=once", "--oao-max-cost=5", "-p", "xdist", "-n", "2").assert_outcomes(passed=6)
    assert [path.name for path in (priced.path / ".oao").glob("spent-*")] == []


def test_replays_cost_nothing(priced: Any) -> None:
    """What a recording answers is not paid."""
    priced.record(passed=6)
    priced.run("--oao-max-cost=0").assert_outcomes(passed=6)


@pytest.mark.parametrize("limit", ["unlimited", "5"])
def test_enough_money_lets_all_pass(priced: Any, limit: str) -> None:
    """By the option and the ini key."""
    priced.run("--oao-record=rewrite", f"--oao-max-cost={limit}").assert_outcomes(passed=6)
    priced.run("--oao-record=rewrite", "-o", f"oao_max_cost={limit}").assert_outcomes(passed=6)


def test_a_model_whose_price_nobody_knows_is_refused(priced: Any) -> None:
    """A limit that cannot be kept is none; the message names the model."""
    priced.write(('name="gpt-x"', 'name="home-grown"'), test=TESTS)
    result = priced.run("--oao-record=once", "--oao-max-cost=5")
    result.assert_outcomes(failed=6)
    result.stdout.fnmatch_lines(["policy violation: unknown_price: *nobody knows the price of home-grown*"])
    priced.run("--oao-record=once", "--oao-max-cost=unlimited").assert_outcomes(passed=6)
