"""Cedar: permitted is only what a policy permits without any diagnostic."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("cedarpy")

from oao_harness import ConfigError
from oao_harness.policy.cedar import CedarPolicy
from oao_hookspecs import ModelCall, Principal

POLICIES = """
permit(principal in Role::"teller", action == Action::"call_tool", resource == Tool::"pay");
permit(principal, action == Action::"run_agent", resource == Agent::"bank-agent");
permit(principal == User::"ann", action == Action::"call_model", resource in Models::"small")
  when { context.run.model_calls < 5 };
forbid(principal, action == Action::"call_tool", resource) when { context.args.amount > 100 };
"""
ENTITIES = [
    {"uid": {"type": "Model", "id": "mini"}, "attrs": {}, "parents": [{"type": "Models", "id": "small"}]},
    {"uid": {"type": "Models", "id": "small"}, "attrs": {}, "parents": []},
]
TELLER = Principal(id="ann", roles=("teller",))


@pytest.mark.parametrize(
    ("principal", "tool", "arguments", "said"),
    [
        (TELLER, "pay", {"amount": 5}, "allow policy0"),
        (TELLER, "pay", {"amount": 5.0}, "allow policy0"),
        (TELLER, "pay", {"amount": 500}, "deny policy3"),
        (TELLER, "other", {"amount": 5}, "deny cedar"),
        (Principal(id="bob"), "pay", {"amount": 5}, "deny cedar"),
        (None, "pay", {"amount": 5}, "deny cedar"),
        (TELLER, "pay", {}, "deny cedar-error"),
        (TELLER, "pay", {"amount": None}, "deny cedar-error"),
        (TELLER, "pay", {"amount": "5"}, "deny cedar-error"),
        (TELLER, "pay", {"amount": 5.25}, "deny cedar-error"),
        (TELLER, 'pay"); permit(principal, action, resource', {"amount": 5}, "deny cedar"),
    ],
    ids=str,
)
def test_tools(desk: Any, principal: Principal | None, tool: str, arguments: dict[str, Any], said: str) -> None:
    """Denied by default; a forbid whose condition fails denies, where Cedar itself passes over it and allows."""
    assert desk(CedarPolicy(POLICIES, ENTITIES), principal=principal).says(tool, **arguments) == said


def test_cedar_itself_allows_where_a_forbid_fails() -> None:
    """The reason for the rule above, reproduced: decision Allow, with a diagnostic."""
    import cedarpy

    request = {"principal": 'User::"a"', "action": 'Action::"x"', "resource": 'Tool::"t"', "context": {}}
    text = "permit(principal, action, resource); forbid(principal, action, resource) when { context.amount > 1 };"

    answer = cedarpy.is_authorized(request, text, [])
    assert answer.decision == cedarpy.Decision.Allow
    assert answer.diagnostics.errors


def test_agents_and_models(desk: Any) -> None:
    """Further entities make groups; the run's counters are in the context."""
    policy = CedarPolicy(POLICIES, ENTITIES)
    run = desk(policy, principal=TELLER).run

    assert policy.oao_decide_run(run).verdict == "allow"
    assert policy.oao_decide_run(desk(policy, agent="shop", principal=TELLER).run).verdict == "deny"
    assert policy.oao_decide_model_call(ModelCall(name="mini", messages=()), run).verdict == "allow"
    assert policy.oao_decide_model_call(ModelCall(name="large", messages=()), run).verdict == "deny"
    run.budget.totals.model_calls = 5
    assert policy.oao_decide_model_call(ModelCall(name="mini", messages=()), run).verdict == "deny"


@pytest.mark.parametrize("mark", ["__entity", "__extn", "__expr"])
def test_arguments_cannot_write_entities(desk: Any, mark: str) -> None:
    """What Cedar's JSON would read as something else than a record is refused; the gate takes an error for a denial."""
    asked = desk(CedarPolicy("permit(principal, action, resource);"), principal=TELLER)

    assert asked.says("pay", who={"name": "root"}).startswith("allow")
    with pytest.raises(ValueError, match=mark):
        asked.judge("pay", who=[{mark: {"type": "User", "id": "root"}}])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"policies": "permit(principal, action);"}, "no Cedar"),
        ({"policies": "nowhere.cedar"}, "cannot be read"),
        ({"policies": POLICIES, "entities": [{"uid": 3}]}, "no Cedar"),
        ({"policies": POLICIES, "schema": "entity User;"}, "does not fit its schema"),
        ({"policies": POLICIES, "schema": "entity"}, "no Cedar"),
    ],
)
def test_mistakes_are_start_up_errors(given: dict[str, Any], said: str) -> None:
    """Policies, entities and schema are parsed and checked once, at the start."""
    with pytest.raises(ConfigError, match=said):
        CedarPolicy(**given)


def test_a_file_and_a_schema(tmp_path: Any, desk: Any) -> None:
    """Policies may be in a file, and may be checked against a schema."""
    path = tmp_path / "x.cedar"
    path.write_text('permit(principal, action == Action::"call_tool", resource == Tool::"pay");', "utf-8")
    schema = (
        "entity Role; entity User in [Role] { tenant: String }; entity Tool;"
        'action "call_tool" appliesTo { principal: User, resource: Tool, context: { args: { amount: Long }, run: {'
        "agent: String, task: String, steps: Long, model_calls: Long, tool_calls: Long, tokens: Long, tenant: String"
        "} } };"
    )
    asked = desk(CedarPolicy(path, schema=schema), principal=TELLER)

    assert asked.says("pay", amount=3) == "allow policy0"
    assert asked.judge("pay", amount=3).verdict == "allow"
