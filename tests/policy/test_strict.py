"""StrictPolicy and the policies that have a name."""

from __future__ import annotations

from typing import Any

import pytest

from oao_harness import ConfigError, Orchestrator, StrictPolicy, ToolPolicy, tool
from oao_harness.policy.registry import PolicyRegistry


@tool
def step(n: int) -> int:
    return n


def steps(count: int) -> Any:
    return lambda task: [step(n) for n in range(count)]


def test_the_defaults_are_those_of_the_seed() -> None:
    """10 steps, 4,000 tokens, 5 tool calls, 30 seconds, two retries; the positional order too."""
    policy = StrictPolicy()

    assert (policy.max_tokens, policy.max_steps, policy.max_tool_calls, policy.timeout_seconds) == (4000, 10, 5, 30)
    assert policy.retry_config["max_retries"] == 2
    assert StrictPolicy(1, 2, 3, 4).max_tool_calls == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_steps": "many"}, r"max_steps='many'.*whole number >= 0"),
        ({"max_steps": -1}, "max_steps=-1"),
        ({"max_tokens": 1.5}, "max_tokens=1.5"),
        ({"max_tool_calls": True}, "max_tool_calls=True"),
        ({"timeout_seconds": 0}, "timeout_seconds=0.*> 0"),
        ({"timeout_seconds": -3}, "timeout_seconds=-3"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds=nan"),
        ({"timeout_seconds": "soon"}, "timeout_seconds='soon'"),
        ({"retry_config": 3}, "retry_config=3"),
        ({"retry_config": {"retries": 3}}, "unknown key 'retries'; known: max_retries"),
        ({"retry_config": {"max_retries": -1}}, "max_retries=-1"),
        ({"retry_config": {"initial_delay": "x"}}, "initial_delay='x'"),
        ({"retry_config": {"backoff_factor": 0.5}}, "backoff_factor=0.5"),
        ({"retry_config": {"strategy": "random"}}, "strategy='random'"),
    ],
)
def test_bad_values_are_refused_where_they_are_given(arguments: dict[str, Any], words: str) -> None:
    """What was wrong, and what would do."""
    with pytest.raises(ConfigError, match=words):
        StrictPolicy(**arguments)


@pytest.mark.parametrize(("limit", "count", "status"), [(3, 3, "SUCCESS"), (3, 4, "FAILED"), (0, 1, "FAILED")])
@pytest.mark.parametrize("name", ["max_steps", "max_tool_calls"])
def test_a_limit_allows_exactly_that_many(name: str, limit: int, count: int, status: str) -> None:
    """n of n is allowed, n + 1 is not."""
    nothing = {"max_steps": None, "max_tool_calls": None}

    report = Orchestrator(policy=StrictPolicy(**{**nothing, name: limit})).run(steps(count), "x")

    assert report.status == status
    assert report.tool_calls == min(limit, count)
    if status == "FAILED":
        assert report.violation is not None
        assert report.violation["rule"] == name


def test_none_is_no_limit() -> None:
    """Each limit can be lifted."""
    policy = StrictPolicy(max_steps=None, max_tool_calls=None, max_tokens=None, timeout_seconds=None)

    assert Orchestrator(policy=policy).run(steps(500), "x").tool_calls == 500


def test_several_policies_hold_together() -> None:
    """The strictest value of each limit counts."""
    report = Orchestrator(policy=[StrictPolicy(max_tool_calls=4), StrictPolicy(max_tool_calls=2)]).run(steps(5), "x")

    assert report.tool_calls == 2


@pytest.mark.parametrize("name", ["off", "observe", "standard", "strict"])
def test_policies_have_names(name: str) -> None:
    """A policy can be named where an object is expected."""
    assert Orchestrator(policy=name).run(steps(2), "x").status == "SUCCESS"


def test_an_unknown_name_lists_the_known_ones() -> None:
    """With a guess at what was meant."""
    with pytest.raises(ConfigError, match=r"unknown policy 'strickt' \(did you mean 'strict'\?\); known: observe, off"):
        Orchestrator(policy="strickt")


def test_a_policy_can_be_imported_by_name() -> None:
    """`module:attribute`, a class or an object; a wrong one says why."""
    policy = "oao_harness.policy.strict:StrictPolicy"

    assert Orchestrator(policy=policy).run(steps(6), "x").tool_calls == 5
    with pytest.raises(ConfigError, match="cannot be imported"):
        Orchestrator(policy="oao_harness.policy.strict:Nothing")
    with pytest.raises(ConfigError, match="cannot be imported"):
        Orchestrator(policy="no_such_module:x")


def test_the_seeds_registry_names_policies_too() -> None:
    """`PolicyRegistry.register` makes a name usable."""
    PolicyRegistry.register("tiny", lambda: StrictPolicy(max_tool_calls=1))
    try:
        assert Orchestrator(policy="tiny").run(steps(3), "x").tool_calls == 1
    finally:
        PolicyRegistry.unregister("tiny")


def test_a_tool_that_is_not_allowed_is_denied() -> None:
    """As soon as a policy lists what is allowed, the rest is not."""
    for policy in (ToolPolicy(allow=["other"]), ToolPolicy(deny=["step"]), ToolPolicy(allow=["step"], deny=["step"])):
        assert Orchestrator(policy=policy).run(steps(1), "x").status == "FAILED"
    assert Orchestrator(policy=ToolPolicy(allow=["step"])).run(steps(1), "x").status == "SUCCESS"


def test_a_single_text_is_no_list_of_tools() -> None:
    """`allow="step"` would allow s, t, e and p."""
    with pytest.raises(ConfigError, match=r"give a collection of names, for example \['step'\]"):
        ToolPolicy(allow="step")
