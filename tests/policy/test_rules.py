"""What a policy file says to a call: lists, rules, conditions, roles, redaction, modes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oao_harness
from oao_harness import ConfigError, FilePolicy, Orchestrator, load_policy
from oao_harness.policy.globs import Names
from oao_hookspecs import Allow, Ask, Deny, Limits, ModelCall, Price, Principal, Retry, ToolCall, ToolTraits

LISTS = """
[tools]
allow = ["get_*", "read", "*_note"]
ask = ["send_*"]
deny = ["get_secret", "delete_*"]
"""


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("get_balance", "allow tools.allow"),
        ("read", "allow tools.allow"),
        ("Read", "deny tools.allow"),
        ("reads", "deny tools.allow"),
        ("xget_balance", "deny tools.allow"),
        ("get_secret", "deny tools.deny"),
        ("delete_note", "deny tools.deny"),
        ("send_money", "ask tools.ask"),
        ("other", "deny tools.allow"),
        ("", "deny tools.allow"),
    ],
)
def test_lists(desk: Any, tool: str, said: str) -> None:
    """Exact names and whole globs, case-sensitive; deny beats ask, ask beats allow, and what is unlisted is denied."""
    assert desk(LISTS).says(tool) == said


def test_without_an_allow_list_everything_else_is_allowed(desk: Any) -> None:
    """Only as soon as a policy lists what is allowed, an unlisted tool is denied; an empty list allows nothing."""
    assert desk('[tools]\ndeny = ["a"]').says("b") == "none"
    assert desk("[tools]\nallow = []").says("b") == "deny tools.allow"


@settings(deadline=None)
@given(st.lists(st.text("ab*?[]!-", max_size=5), max_size=4), st.text("ab-]", max_size=5))
def test_an_exact_name_beats_globs_and_a_glob_is_that_of_the_standard_library(patterns: list[str], name: str) -> None:
    """`Names` agrees with `fnmatchcase`, pattern by pattern."""
    import fnmatch

    found = Names(patterns).find(name)

    matching = [i for i, p in enumerate(patterns) if fnmatch.fnmatchcase(name, p)]
    if name in patterns and not set(name) & set("*?["):
        assert found == patterns.index(name)
    else:
        assert found == (matching[0] if matching else None)


@pytest.mark.parametrize(
    ("rule", "arguments", "verdict"),
    [
        ("when = 'args.amount > 100'\nthen = 'deny'", {"amount": 101}, "deny"),
        ("when = 'args.amount > 100'\nthen = 'deny'", {"amount": 100}, "none"),
        ("when = 'args.amount > 100'\nthen = 'deny'", {"amount": 100.5}, "deny"),
        ("when = 'args.amount > 100'\nthen = 'deny'", {"amount": "1"}, "deny"),
        ("when = 'args.amount > 100'\nthen = 'deny'", {"amount": None}, "deny"),
        ("when = 'args.amount > 100'\nthen = 'deny'", {"amount": [1]}, "deny"),
        ("when = 'args.amount > 100'\nthen = 'deny'", {"amount": float("nan")}, "deny"),
        ("when = 'args.amount > 100'\nthen = 'deny'", {}, "deny"),
        ("when = 'args.amount > 100'\nthen = 'ask'", {"amount": 101}, "ask"),
        ("when = 'args.amount > 100'\nthen = 'ask'", {}, "deny"),
        ("when = 'args.amount > 100'\nthen = 'allow'", {"amount": 101}, "allow"),
        ("when = 'args.amount > 100'\nthen = 'allow'", {}, "deny"),
        ("when = 'has(args.amount) && args.amount > 100'\nthen = 'deny'", {}, "none"),
        ("when = 'args.amount'\nthen = 'deny'", {"amount": 1}, "deny"),
        ("require = 'args.amount <= 100'", {"amount": 100}, "allow"),
        ("require = 'args.amount <= 100'", {"amount": 101}, "deny"),
        ("require = 'args.amount <= 100'\notherwise = 'ask'", {"amount": 101}, "ask"),
        ("require = 'args.amount <= 100'\notherwise = 'ask'", {}, "deny"),
        ("require = '1'", {}, "deny"),
        ("when = 'has(args.amount)'\nrequire = 'args.amount <= 100'", {}, "none"),
        ("require = \"args['amount'] <= 100\"", {"amount": 3}, "allow"),
        ("require = 'args.exists(k, args[k] == 3)'", {"x": 3}, "allow"),
        ("require = 'args.exists(k, k == \"x\")'", {"x": 3}, "allow"),
        ("require = 'size(args) == 2 && args.size() == 2'", {"x": 3, "y": 4}, "allow"),
        ("require = '\"x\" in args'", {"x": 3}, "allow"),
        ("require = '\"x\" in args'", {"y": 3}, "deny"),
        ("require = 'args[\"a b\"] == 3'", {"a b": 3}, "allow"),
        ("require = 'args.x.y.z == 3'", {"x": {"y": {"z": 3}}}, "allow"),
        ("require = 'args.to.endsWith(\"@us.com\")'", {"to": "a@us.com"}, "allow"),
        ("require = 'args.to.lowerAscii() == \"bob\"'", {"to": "BOB"}, "allow"),
        ("require = 'args.to.matches(\"^[a-z]+$\")'", {"to": "Bob"}, "deny"),
        ("require = 'args.to == \"x\"'", {"to": "\ud800"}, "deny"),
        ("require = 'math.greatest(args.a, args.b) < 5'", {"a": 1, "b": 2}, "allow"),
        ('require = \'call.name == "pay" && call.kind == "tool" && call.effect == ""\'', {}, "allow"),
        ('require = \'run.agent == "bank-agent" && run.task.contains("task")\'', {}, "allow"),
        ("require = 'run.steps == 0 && run.cost_usd == 0.0 && size(run.labels) == 0'", {}, "allow"),
        ("require = 'run.principal.id == \"\" && size(run.principal.roles) == 0'", {}, "allow"),
        ("then = 'deny'", {}, "deny"),
        ("agents = ['bank-*']\nthen = 'deny'", {}, "deny"),
        ("agents = ['shop-*']\nthen = 'deny'", {}, "none"),
        ("tools = ['p?y']\nthen = 'deny'", {}, "deny"),
        ("tools = ['pays']\nthen = 'deny'", {}, "none"),
        ("models = ['pay']\nthen = 'deny'", {}, "none"),
        ("access = 'write'\nthen = 'deny'", {}, "deny"),
        ("access = 'read'\nthen = 'deny'", {}, "none"),
    ],
    ids=str,
)
def test_rules(desk: Any, rule: str, arguments: dict[str, Any], verdict: str) -> None:
    """When, then, require, otherwise; and whatever cannot be answered is a denial."""
    said = desk(f"[[rule]]\nname = 'x'\n{rule}\n").says("pay", **arguments)

    assert said == (verdict if verdict == "none" else f"{verdict} x")


def test_a_decision_says_which_rule_where_and_why(desk: Any) -> None:
    """Rule, file and line, and a sentence; of a failed condition what failed."""
    text = """
        [[rule]]
        name = "small"
        tools = ["pay"]
        require = "args.amount <= 100"
        reason = "large sums are paid by people"
    """
    assert desk(text).judge("pay", amount=500) == Deny(
        rule="small", source="policy.toml:2",
        reason="large sums are paid by people (tool pay: args.amount <= 100 does not hold)",
    )  # fmt: skip
    failed = desk(text).judge("pay")
    assert failed.reason == (
        "policy.toml:5: condition of rule 'small' failed: no such key 'amount'; an error is a denial"
    )
    assert desk(text).judge("pay", amount=5) == Allow(
        rule="small", source="policy.toml:2", reason="large sums are paid by people"
    )


def test_the_strictest_rule_wins_and_the_most_particular_is_named(desk: Any) -> None:
    """Not the order of the file: deny beats ask beats allow; of those that allow the exact name is named."""
    text = """
        [tools]
        allow = ["*"]
        [[rule]]
        name = "all"
        then = "allow"
        [[rule]]
        name = "globbed"
        tools = ["p*"]
        then = "allow"
        [[rule]]
        name = "exact"
        tools = ["pay"]
        then = "allow"
        [[rule]]
        name = "asks"
        tools = ["pa?", "send"]
        when = "has(args.x)"
        then = "ask"
        [[rule]]
        name = "denies"
        tools = ["send"]
        when = "has(args.y)"
        then = "deny"
    """
    asked = desk(text)
    assert asked.says("pay") == "allow exact"
    assert asked.says("pan") == "allow globbed"
    assert asked.says("other") == "allow all"
    assert asked.says("pay", x=1) == "ask asks"
    assert asked.says("send", x=1, y=1) == "deny denies"


def test_rules_about_models(desk: Any) -> None:
    """A rule that names models is about model calls; their parameters are `args`."""
    policy = FilePolicy.from_text(
        """
        [[rule]]
        name = "cold"
        models = ["gpt-*"]
        require = "args.temperature == 0 && call.model.startsWith('gpt-4')"
        """
    )
    run = desk(policy).run

    def said(name: str, **params: Any) -> str:
        decision = policy.oao_decide_model_call(ModelCall(name=name, messages=(), params=params), run)
        return "none" if decision is None else decision.verdict

    assert said("gpt-4o", temperature=0) == "allow"
    assert said("gpt-4o", temperature=1) == "deny"
    assert said("gpt-4o") == "deny"
    assert said("gpt-3", temperature=0) == "deny"
    assert said("claude", temperature=1) == "none"
    assert desk(policy).says("gpt-4o") == "none"


ROLES = """
[[role]]
name = "teller"
agents = ["bank-*"]
tools = ["send_*"]
approve = ["send_money"]
[[role]]
name = "manager"
agents = ["bank-*"]
tools = ["send_*", "close"]
[approvals]
approvers = ["boss"]
needed = 2
expires_seconds = 60
[tools]
ask = ["send_money", "open"]
"""


@pytest.mark.parametrize(
    ("roles", "tool", "said"),
    [
        (("teller",), "send_note", "none"),
        (("manager",), "send_note", "none"),
        (("teller",), "close", "deny manager"),
        (("clerk",), "send_note", "deny teller"),
        ((), "send_note", "deny teller"),
        (None, "send_note", "deny teller"),
        (None, "look", "none"),
        (("teller",), "send_money", "ask tools.ask"),
        (("clerk",), "send_money", "deny teller"),
    ],
)
def test_roles_over_tools(desk: Any, roles: tuple[str, ...] | None, tool: str, said: str) -> None:
    """As soon as a role lists a tool, a principal without such a role may not use it; nobody has no role."""
    principal = None if roles is None else Principal(id="ann", roles=roles)

    assert desk(ROLES, principal=principal).says(tool) == said


def test_roles_over_agents(desk: Any) -> None:
    """The same holds for running an agent; an agent that no role lists is open to everybody."""
    policy = FilePolicy.from_text(ROLES)

    def said(agent: str, principal: Principal | None) -> Any:
        return policy.oao_decide_run(desk(policy, agent=agent, principal=principal).run)

    assert said("bank-1", Principal(id="ann", roles=("teller",))) is None
    assert said("shop", None) is None
    assert said("bank-1", Principal(id="ann", roles=("clerk",))).reason == (
        "agent bank-1 needs the role teller or manager, which principal 'ann' has not"
    )
    assert isinstance(said("bank-1", None), Deny)


def test_a_held_call_says_who_may_answer(desk: Any) -> None:
    """The approvers of the file, and the roles that may approve this very tool."""
    asked = desk(ROLES, principal=Principal(id="ann", roles=("teller",)))

    held = asked.judge("send_money")
    assert isinstance(held, Ask)
    assert (held.approvers, held.needed, held.expires_s) == (("boss", "teller"), 2, 60.0)
    assert asked.judge("open").approvers == ("boss",)


def test_a_rule_may_require_a_role(desk: Any) -> None:
    """With a condition: only large sums need it."""
    text = "[[rule]]\nname = 'big'\nwhen = 'args.sum > 9'\nroles = ['boss']\notherwise = 'ask'\n"

    assert desk(text).says("pay", sum=5) == "none"
    assert desk(text).says("pay", sum=50) == "ask big"
    assert desk(text, principal=Principal(id="a", roles=("boss",))).says("pay", sum=50) == "allow big"


def test_limits_and_traits() -> None:
    """Every key of [limits], bounds of single tools, and what tools are; the exact name is stronger than a glob."""
    policy = FilePolicy.from_text(
        """
        [limits]
        max_steps = 0
        max_model_calls = 2
        max_tool_calls = 3
        max_tokens = 4
        max_input_tokens = 5
        max_output_tokens = 6
        max_cost_usd = 0.5
        assumed_output_tokens = 7
        timeout_seconds = 8
        call_timeout_seconds = 9.5
        max_retries = 1
        require_governed = true
        unknown_price = { input_per_million = 3, output_per_million = 15.0 }
        [[tool]]
        name = "send_*"
        max_calls = 2
        effect = "idempotent"
        access = "write"
        [[tool]]
        name = "send_money"
        effect = "once"
        [[tool]]
        name = "send_m*"
        access = "read"
        """
    )
    assert policy.limits == Limits(
        max_steps=0, max_model_calls=2, max_tool_calls=3, max_tokens=4, max_input_tokens=5, max_output_tokens=6,
        max_cost_usd=0.5, assumed_output_tokens=7, timeout_s=8.0, call_timeout_s=9.5, require_governed=True,
        unknown_price=Price(input_per_million=3.0, output_per_million=15.0), tool_limits={"send_*": 2},
        retry=Retry(max_retries=1, initial_delay_s=1.0, backoff_factor=2.0),
    )  # fmt: skip
    assert policy.oao_describe_tool("send_money") == ToolTraits(effect="once", access="write")
    assert policy.oao_describe_tool("send_note") == ToolTraits(effect="idempotent", access="write")
    assert policy.oao_describe_tool("other") is None


def test_redaction(desk: Any) -> None:
    """Patterns in every text and key at any depth, fields by name; what was handed in is not changed."""
    policy = FilePolicy.from_text(
        r"""
        [[tool]]
        name = "read"
        redact = [{ pattern = '[A-Z]{2}\d{6,}', with = '[\1 iban]' }, { field = "password" }, { pattern = "4711" }]
        [[tool]]
        name = "r*"
        redact = [{ pattern = "glob" }]
        """
    )
    given = {"a": ["pay DE123456, GB999999", 4711, 5, True], "password": {"x": 1}, "DE123456": None, "GB123456": "glob"}

    def seen(tool: str, value: Any) -> Any:
        return policy.oao_redact_result(ToolCall(name=tool, arguments={}), value, desk(policy).run)

    assert seen("read", given) == {
        "a": ["pay [\\1 iban], [\\1 iban]", "[redacted]", 5, True],
        "password": "[redacted]",
        "[\\1 iban]": None,
        "[\\1 iban] #2": "glob",
    }
    assert given["a"] == ["pay DE123456, GB999999", 4711, 5, True]
    assert seen("rest", "a glob") == "a [redacted]"
    assert seen("other", given) is given
    assert seen("read", "x" * 300_000) == "[withheld: 300,000 characters are too many to redact]"


def test_observing_reports_and_stops_nothing(desk: Any) -> None:
    """Every denial and question becomes an Allow that says what it would have been; limits too."""
    asked = desk('mode = "observe"\n[limits]\nmax_tool_calls = 0\n[tools]\nask = ["a"]\ndeny = ["b"]\n')

    assert asked.judge("a") == Allow(
        rule="tools.ask", source="policy.toml:5", reason="tool a is held for approval", would="ask"
    )
    assert asked.judge("b").would == "deny"
    assert asked.judge("c") == Allow(
        rule="max_tool_calls", source="policy.toml:3", reason="max_tool_calls: 1 > 0", would="deny"
    )
    assert asked.policy.oao_limits(run=asked.run) == Limits()


def test_extends_adds_up_and_the_stricter_wins(desk: Any, tmp_path: Path) -> None:
    """Rules, limits, lists and approvals of the file and of what it extends all hold."""
    (tmp_path / "base.toml").write_text(
        'extends = "strict"\n[limits]\nmax_steps = 7\n[tools]\nallow = ["a", "b"]\n[lists]\nok = ["x"]\n'
        "[approvals]\nneeded = 2\n[[role]]\nname = 'boss'\ntools = ['b']\n", "utf-8"
    )  # fmt: skip
    (tmp_path / "sub").mkdir()
    top = tmp_path / "sub" / "top.toml"
    top.write_text(
        'extends = "../base.toml"\n[limits]\nmax_steps = 90\nmax_tool_calls = 2\n[tools]\nallow = ["b", "c"]\n'
        "[[rule]]\nname = 'v'\ntools = ['b']\nvalues_from = { to = ['list:ok'] }\n"
        "[[role]]\nname = 'clerk'\ntools = ['b']\n", "utf-8"
    )  # fmt: skip
    policy = load_policy(top)

    assert (policy.limits.max_steps, policy.limits.max_tool_calls, policy.limits.require_governed) == (7, 2, True)
    both = Principal(id="ann", roles=("boss", "clerk"))
    assert desk(policy, principal=both).says("b", to="x") == "allow v"
    assert desk(policy, principal=both).says("b", to="y") == "deny v"
    assert desk(policy, principal=both).says("a") == "deny tools.allow"
    assert desk(policy, principal=both).says("c") == "deny tools.allow"
    assert desk(policy, principal=Principal(id="ann", roles=("boss",))).says("b", to="x") == "deny clerk"
    assert policy.rules.approvals.needed == 2
    (tmp_path / "base.toml").write_text('extends = "sub/top.toml"', "utf-8")
    with pytest.raises(ConfigError, match=r"base\.toml:1: 'sub/top\.toml' extends this file in turn"):
        load_policy(top)


def test_the_digest_is_that_of_everything_it_is_made_of(tmp_path: Path) -> None:
    """A change in what a file extends changes the policy."""
    (tmp_path / "base.toml").write_text("[limits]\nmax_steps = 7\n", "utf-8")
    (tmp_path / "top.toml").write_text('extends = "base.toml"\n', "utf-8")
    before = load_policy(tmp_path / "top.toml").digest
    (tmp_path / "base.toml").write_text("[limits]\nmax_steps = 8\n", "utf-8")

    assert load_policy(tmp_path / "top.toml").digest != before
    assert before[:12] in repr(FilePolicy.from_text("[limits]\nmax_steps = 7\n")) or len(before) == 64


@oao_harness.tool
def pay(amount: Any) -> str:
    return f"paid {amount}"


def test_end_to_end_a_rule_stops_the_run_before_the_tool() -> None:
    """Through the orchestrator: the report names the rule, and the tool did not run."""
    policy = FilePolicy.from_text("[[rule]]\nname = 'small'\ntools = ['pay']\nrequire = 'args.amount <= 100'\n")

    assert Orchestrator(policy=policy).run(lambda task: pay(50)).status == "SUCCESS"
    report = Orchestrator(policy=policy).run(lambda task: pay(500))
    assert report.error == "small: tool pay: args.amount <= 100 does not hold"
    assert report.tool_calls == 0


def test_a_slow_regular_expression_of_an_attacker_costs_nothing(desk: Any) -> None:
    """`matches()` does not backtrack: what takes Python's own expressions for ever is answered at once."""
    asked = desk("[[rule]]\nname = 'x'\nrequire = 'args.a.matches(\"^(a+)+$\")'\n")
    started = time.perf_counter()

    assert asked.says("t", a="a" * 5000 + "b") == "deny x"
    assert time.perf_counter() - started < 2


def test_names_that_a_model_makes_up_do_not_fill_the_memory(desk: Any) -> None:
    """Ten thousand different tools later the index is still bounded."""
    asked = desk('[tools]\nallow = ["a"]\n')
    for number in range(10_000):
        asked.judge(f"tool-{number}")

    assert len(asked.policy.rules._plans) <= 4096
