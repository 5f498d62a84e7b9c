"""How a hook is documented: the same parts in the same order, the mode last."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from oao_hookspecs import (
    Allow,
    Approve,
    Ask,
    Deny,
    Limits,
    Modify,
    Price,
    Reject,
    Retry,
    ToolCall,
    combine,
    decide,
    observe,
    provide,
)

HOOKS = [
    pytest.param(module.__name__.rpartition(".")[2], function, id=name)
    for module in (decide, observe, provide)
    for name, function in vars(module).items()
    if name.startswith("oao_")
]


@pytest.mark.parametrize(("mode", "hook"), HOOKS)
def test_a_hook_says_what_when_and_ends_with_its_mode(mode: str, hook: Callable[..., Any]) -> None:
    """What happens; how often; the arguments; the mode line, in the same words everywhere."""
    text = inspect.getdoc(hook) or ""
    first, *_ = text.splitlines()

    assert re.fullmatch(r"[A-Z].*\.", first)
    assert re.search(r"(Asked|Called) (once|at most once)", text)
    assert text.endswith(f"Mode: {mode}.")
    for name in inspect.signature(hook).parameters:
        assert f"    {name}: " in text.partition("Args:\n")[2]


CALL = ToolCall(name="t", arguments={})


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        ([], "allow"),
        ([Allow(), Deny(rule="d", reason="")], "deny"),
        ([Deny(rule="d", reason=""), Allow()], "deny"),
        ([Allow(), Ask(rule="a", reason=""), Modify(call=CALL)], "ask"),
        ([Modify(call=CALL), Allow()], "modify"),
    ],
)
def test_the_strictest_decision_wins(answers: list[Any], winner: str) -> None:
    """Deny, then Ask, then Modify, then Allow."""
    assert combine(answers).verdict == winner


def test_of_equal_decisions_the_first_wins() -> None:
    """So that the reason shown is that of the policy that was asked first."""
    assert combine([Deny(rule="first", reason=""), Deny(rule="second", reason="")]).rule == "first"


def test_limits_that_are_no_numbers_say_where_they_are_written_too() -> None:
    """Retries, prices and switches have no order of their own; the source is that of the value that holds."""
    price = Price(input_per_million=1.0, output_per_million=1.0)
    dear = Price(input_per_million=2.0, output_per_million=2.0)
    few = Retry(max_retries=1, initial_delay_s=1.0, backoff_factor=2.0)
    many = Retry(max_retries=2, initial_delay_s=1.0, backoff_factor=2.0)
    names = ("retry", "unknown_price", "require_governed", "assumed_output_tokens")
    one = Limits(
        max_cost_usd=1.0, retry=few, unknown_price=price, assumed_output_tokens=5,
        sources={name: f"one.toml:{i}" for i, name in enumerate(names)},
    )  # fmt: skip
    other = Limits(
        max_cost_usd=1.0, retry=many, unknown_price=dear, require_governed=True, assumed_output_tokens=9,
        sources={name: f"other.toml:{i}" for i, name in enumerate(names)},
    )  # fmt: skip
    expected = {
        "retry": "one.toml:0",
        "unknown_price": "other.toml:1",
        "require_governed": "other.toml:2",
        "assumed_output_tokens": "other.toml:3",
    }
    assert one.tightened(other).sources == other.tightened(one).sources == expected


def test_limits_tighten_field_by_field() -> None:
    """None is no opinion; the smaller value holds; fewer retries are stricter."""
    one = Limits(max_steps=5, max_tokens=None, timeout_s=3.0)
    other = Limits(
        max_steps=9,
        max_tokens=100,
        retry=Retry(max_retries=1, initial_delay_s=0, backoff_factor=1),
        require_governed=True,
    )

    for combined in (one.tightened(other), other.tightened(one)):
        assert (combined.max_steps, combined.max_tokens, combined.timeout_s) == (5, 100, 3.0)
        assert combined.retry is other.retry
        assert combined.require_governed


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (None, None, None),
        (("git",), None, ("git",)),
        ((), None, ()),
        (("git", "make"), ("make", "sh"), ("make",)),
        (("git",), ("sh",), ()),
        (("git_*",), ("git_log",), ("git_log",)),
        (("git_*", "sh"), ("git_l*", "*"), ("git_*", "git_l*", "sh")),
        (("a*",), ("a?",), ("a?",)),
        (("?b",), ("a*",), ()),
    ],
)
def test_only_tools_that_both_sides_name_may_start_processes(one: Any, other: Any, both: Any) -> None:
    """None gives way; a glob stays where the other side covers it for certain."""
    limits = [Limits(process_tools=one), Limits(process_tools=other)]

    assert limits[0].tightened(limits[1]).process_tools == both
    assert limits[1].tightened(limits[0]).process_tools == both


def test_values_cannot_be_changed() -> None:
    """A policy is handed values, not handles."""
    with pytest.raises(AttributeError):
        CALL.name = "other"  # type: ignore[misc]


def test_an_answer_names_who_gives_it() -> None:
    """A name alone is refused where it is written, not in the gate."""
    for answer in (Approve, Reject):
        with pytest.raises(TypeError, match=r"by='bot' is no Principal; write by=Principal"):
            answer(by="bot")  # type: ignore[arg-type]
