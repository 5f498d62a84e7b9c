"""Values from where: what counts as occurring, and what does not."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oao_harness.policy.sources import Index, values_at

TASK = "Pay Bob's rent: 1,000.50 EUR to DE89 3704 0044 0532 0130 00, mail bob@x.com. At 10:30, -5 degrees, v1.2!"


@pytest.mark.parametrize(
    "value",
    ["Bob", "bob", "BOB'S RENT", "bob@x.com", "DE89 3704 0044 0532 0130 00", "de89 3704  0044\n0532 0130 00", 1000.5,
     "1,000.50", "1,000.50 EUR", "10:30", -5, "-5", "v1.2", "mail bob@x.com. At", "Pay Bob's rent:"],
    ids=str,
)  # fmt: skip
def test_what_occurs(value: str | float) -> None:
    """Whole words, upper and lower case and white space aside; a number however it is written."""
    index = Index()
    index.add(TASK)
    assert index.holds(value)


@pytest.mark.parametrize(
    "value",
    ["Bo", "x.com", "ob@x.com", "bob@x.co", "bob@x.com.evil", "evil@x.com", 1000, 100, 1, 5, 10, 30, 0.5, "50 EUR",
     "DE89 3704 0044 0532 0130 0", "1.2", "bob x com", "mail bob", "***", "€", "rent 1,000.50", float("nan"),
     float("inf"), 10**5000, "eur  too"],
    ids=lambda value: str(value) if not isinstance(value, int) or value < 10**9 else "huge",
)  # fmt: skip
def test_what_does_not_occur(value: str | float) -> None:
    """Not a part of a longer word, not the same words otherwise joined, not something that merely looks like it."""
    index = Index()
    index.add(TASK.replace("mail bob", "mail: bob"))
    assert not index.holds(value)


@settings(deadline=None)
@given(st.text(max_size=40), st.text("ab .@-1,\n", min_size=1, max_size=12), st.text(max_size=40))
def test_what_is_written_between_blanks_occurs(before: str, value: str, after: str) -> None:
    """Any value with a word in it that stands alone in a text is found there."""
    index = Index()
    index.add(f"{before} \n {value} \n {after}")
    if any(character.isalnum() for character in value) and value.strip(" \n-.,@") == value:
        assert index.holds(value)


RULE = """
[lists]
trusted = ["DE01 Trusted", 42]
[[rule]]
name = "from"
tools = ["pay"]
values_from = { to = ["task", "tool:get_*", "list:trusted"], "items.iban" = ["tool:get_iban"] }
"""


@pytest.mark.parametrize(
    ("arguments", "verdict"),
    [
        ({"to": "Bob"}, "allow"),
        ({"to": "Mallory"}, "deny"),
        ({"to": "de01  TRUSTED"}, "allow"),
        ({"to": "Trusted"}, "deny"),
        ({"to": 42}, "allow"),
        ({"to": 43}, "deny"),
        ({"to": ["Bob", "Mallory"]}, "deny"),
        ({"to": {"name": "Bob"}}, "deny"),
        ({"to": ["Bob", "Alice"]}, "allow"),
        ({"to": ""}, "allow"),
        ({"to": None}, "allow"),
        ({"to": True}, "allow"),
        ({}, "allow"),
        ({"items": [{"iban": "GB29"}, {"iban": "GB29"}]}, "allow"),
        ({"items": [{"iban": "GB29"}, {"iban": "Bob"}]}, "deny"),
        ({"items": [[{"iban": "Bob"}]]}, "deny"),
        ({"items.iban": "Bob"}, "deny"),
    ],
    ids=str,
)
def test_values_from(desk: Any, arguments: dict[str, Any], verdict: str) -> None:
    """Every text and number at the path, in lists element by element; nothing, empty and true say nothing."""
    asked = desk(RULE, task="pay Bob and Alice")
    asked.judge("get_iban")
    asked.finish("get_iban", {"iban": "GB29"})

    assert asked.says("pay", **arguments) == f"{verdict} from"


def test_only_results_of_approved_tools_that_succeeded_count(desk: Any) -> None:
    """What another tool said, or what an error says, is no source; nor is what another run has seen."""
    asked = desk(RULE)
    asked.judge("search")
    asked.finish("search", "Mallory")
    assert asked.says("pay", to="Mallory") == "deny from"
    asked.judge("get_x")
    asked.finish("get_x", "Mallory", error="Mallory")
    assert asked.says("pay", to="Mallory") == "deny from"
    asked.judge("get_x")
    asked.finish("get_x", [{"Mallory": ["Carol"]}])
    assert asked.says("pay", to=["Mallory", "Carol"]) == "allow from"
    assert desk(asked.policy).says("pay", to="Mallory") == "deny from"


def test_a_task_may_be_any_object(desk: Any) -> None:
    """Texts inside of tables, lists and models of pydantic count as the task."""
    from oao_harness import ExecutionReport

    assert desk(RULE, task={"messages": [("user", "pay Bob")]}).says("pay", to="Bob") == "allow from"
    task = {"report": ExecutionReport.model_construct(agent_name="Bob")}
    assert desk(RULE, task=task).says("pay", to="Bob") == "allow from"
    assert desk(RULE, task=object()).says("pay", to="Bob") == "deny from"


def test_memory_is_bounded_and_fails_closed() -> None:
    """What does not fit is not found, and a long run costs no more than its bound."""
    index = Index()
    started = time.perf_counter()
    for number in range(2000):
        index.add(f"{'the ' * 300}word{number}")
        assert not index.holds("the the absent")
    assert index.holds("word1")
    assert not index.holds("word1999")
    assert time.perf_counter() - started < 20


def test_values_at_a_path() -> None:
    """Dotted paths; a literal key with a dot hides nothing."""
    assert sorted(map(str, values_at({"a": [{"b": {"c": [1, "x", None]}}, {"b": 2}]}, "a.b"))) == ["1", "2", "c", "x"]
    assert list(values_at({"a.b": "y", "a": {"b": "x"}}, "a.b")) == ["y", "x"]
