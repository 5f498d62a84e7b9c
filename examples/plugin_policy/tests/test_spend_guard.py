"""What the policy says, and what every policy promises."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence

import pytest
from oao_spend_guard import SpendGuard

from oao_harness import Orchestrator, tool
from oao_hookspecs import Call, ToolCall
from pytest_oao.testing import PolicyCase, PolicyConformance

CALLS = [ToolCall(name="pay", arguments={"amount": amount}) for amount in (100, 250.5, 600, 80)]
at_work = PolicyCase(
    make=lambda: SpendGuard(hours=(8, 17)), calls=CALLS, cannot={"deterministic": "it looks at the clock"}
)


class TestSpendGuard(PolicyConformance):
    """By inheritance."""

    @pytest.fixture
    def make_policy(self) -> Callable[[], object]:
        return SpendGuard

    @pytest.fixture
    def calls(self) -> Sequence[Call]:
        return CALLS


def pays(*amounts: object) -> Callable[[str], str]:
    paying = tool(name="pay")(lambda amount: f"paid {amount}")

    def agent(task: str) -> str:
        return ", ".join(paying(amount) for amount in amounts)

    return agent


@pytest.mark.parametrize(
    ("amounts", "ends"),
    [
        ((100, 100), ""),
        ((100, 199.99, 199, 199, 199, 199), "spend-guard.most"),
        ((100, 200), "spend-guard.ask"),
        (("100",), "spend-guard.amount"),
        ((-5,), "spend-guard.amount"),
    ],
)
def test_amounts_add_up(amounts: Sequence[object], ends: str) -> None:
    """Over the calls of one run, and never over those of another."""
    guard = SpendGuard()
    for _ in range(2):
        report = Orchestrator(guard, approver=None).run(pays(*amounts), "t")
        said = report.violation["rule"] if report.violation else ""
        assert said == (ends if ends != "spend-guard.ask" else "")
        assert report.status == {"": "SUCCESS", "spend-guard.ask": "SUSPENDED"}.get(ends, "FAILED")


@pytest.mark.parametrize(("hour", "status"), [(7, "FAILED"), (8, "SUCCESS"), (17, "SUCCESS"), (18, "FAILED")])
def test_money_is_paid_out_at_work_only(hour: int, status: str) -> None:
    """The clock is the caller's, so that a test can set it."""
    guard = SpendGuard(hours=(8, 17), now=lambda: datetime.datetime(2026, 3, 2, hour, 30))
    assert Orchestrator(guard).run(pays(1), "t").status == status
