"""Limits as somebody hostile gets around them: answers that break off, numbers that are none."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from oao_harness import ConfigError, Orchestrator, model
from oao_hookspecs import Limits, Principal, hookimpl


class Limited:
    name = "limited"

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)

    @hookimpl
    def oao_limits(self) -> Limits:
        return self.limits


@model
def think(prompt: str) -> Iterator[str]:
    yield "word " * 400
    raise ValueError("the connection broke")


@model(name="think")
async def think_async(prompt: str) -> AsyncIterator[str]:
    yield "word " * 400
    raise ValueError("the connection broke")


def test_an_answer_that_breaks_off_has_cost_what_came() -> None:
    """An agent that asks again and again runs into the limit on tokens; sync and async."""
    tries: list[int] = []

    def agent(task: str) -> None:
        for number in range(20):
            try:
                list(think("go on"))
            except ValueError:
                tries.append(number)

    async def agent_async(task: str) -> None:
        for number in range(20):
            try:
                async for _ in think_async("go on"):
                    pass
            except ValueError:
                tries.append(number)

    for body in (agent, agent_async):
        tries.clear()
        report = Orchestrator(Limited(max_tokens=1000)).run(body, "t")
        assert report.violation is not None
        assert report.violation["rule"] == "max_tokens"
        assert report.total_tokens >= 1000
        assert len(tries) == 1


@pytest.mark.parametrize(
    "limits",
    [{name: math.nan} for name in ("max_tool_calls", "max_tokens", "max_cost_usd", "timeout_s", "call_timeout_s")]
    + [{"tool_limits": {"pay": math.nan}}],
)
def test_a_limit_that_is_not_a_number_is_refused(limits: Mapping[str, Any]) -> None:
    """Nothing is more than NaN: it would limit nothing."""
    with pytest.raises(ConfigError, match=r"'limited': oao_limits returned .* = nan; give a number"):
        Orchestrator(Limited(**limits)).run(lambda task: task, "t", agent_name="a")


def test_the_roles_of_a_principal_are_not_one_text() -> None:
    """In a text `superadmin` the role `admin` would be found."""
    with pytest.raises(TypeError, match="give a tuple of roles"):
        Principal(id="eve", roles="superadmin")  # type: ignore[arg-type]
