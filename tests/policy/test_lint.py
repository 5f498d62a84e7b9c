"""What `lint` points at, and what it leaves in peace."""

from __future__ import annotations

import pytest

from oao_harness import FilePolicy
from oao_harness.policy.lint import lint


def said(text: str, tools: list[str] | None = None) -> list[str]:
    found = lint(FilePolicy.from_text(text), tools)
    return [f"{one.line} {one.level}: {one.message}" for one in found]


RULE = "[[rule]]\nname = 'x'\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[tools]\nallow = ['get_x']\ndeny = ['get_*']", "2 error: 'get_x' can never be allowed: a glob in 'deny'"),
        ("[tools]\nallow = ['a', 'a']", "2 warning: 'a' is listed twice"),
        ("[tools]\nallow = ['a']\nask = ['a']", "2 warning: 'a' is also in 'ask', which is stronger"),
        ("[tools]\nallow = []", "2 warning: it is empty, so every tool is denied"),
        (f"[tools]\nallow = ['a']\n{RULE}tools = ['b']\nthen = 'ask'", "3 error: the rule can never match: [tools]"),
        (f"[tools]\ndeny = ['b*']\n{RULE}tools = ['a', 'b']\nthen = 'ask'", "5 warning: [tools] denies b anyway"),
        ("[tools]\nallow = ['a']\n[[sequence]]\nname='s'\nafter=['b']\nnever=['a']", "3 error: the sequence"),
        ("[tools]\nallow = ['a']\n[[label]]\nname = 's'\ntools = ['b']", "3 error: the label can never match"),
        (
            f"{RULE}tools = ['a']\nthen = 'deny'\n[[rule]]\nname='y'\ntools=['a']\nthen='ask'",
            "5 error: it can never matter: 'x'",
        ),
        (f"{RULE}then = 'deny'\n[[rule]]\nname = 'y'\ntools = ['a']\nthen = 'ask'", "4 error: it can never matter"),
        (
            f"{RULE}tools = ['a*']\nthen = 'deny'\n[[rule]]\nname='y'\ntools=['ab']\nrequire='true'",
            "5 error: it can never matter",
        ),
        ("[[role]]\nname = 'r'", "1 warning: nothing uses it"),
        (f"[[role]]\nname = 'boss'\ntools = ['a']\n{RULE}roles = ['bos']", "6 warning: no [[role]] is 'bos'; did"),
        ("[[role]]\nname = 'boss'\ntools = ['a']\n[approvals]\napprovers = ['x']", "5 warning: no [[role]] is 'x'"),
        ("[limits]\nmax_tool_calls = 2\n[[tool]]\nname = 'a'\nmax_calls = 3", "5 warning: max_calls = 3 is never"),
        ("[limits]\nmax_steps = 2\nmax_tool_calls = 3", "3 warning: max_tool_calls = 3 is never"),
        ("[limits]\nmax_steps = 0", "2 warning: max_steps is 0"),
        ("[limits]\nunknown_price = { input_per_million = 1, output_per_million = 1 }", "2 warning: it has no use"),
        ("[lists]\na = ['x']", "2 warning: no rule uses the list 'a'"),
        ("[[label]]\nname = 'l'\ntools = ['a']", "1 warning: no condition asks for it; write 'l' in run.labels"),
        (f"{RULE}when = 'args.a > 1'\nthen = 'deny'", "3 warning: can fail when 'a' is missing or null"),
        (f"{RULE}when = 'has(args.a) && args.a > 1'\nthen = 'deny'", "3 warning: can fail when 'a' is null"),
        (f"{RULE}require = 'args.a + args.b < 3'", "3 warning: can fail when 'b' is missing or null"),
        ("[[tool]]\nname = 'a'\nredact = [{ pattern = '(a+)+x' }]", "3 warning: pattern '(a+)+x' repeats a repetition"),
    ],
    ids=lambda value: value[:40],
)
def test_what_is_pointed_at(text: str, expected: str) -> None:
    """One finding of each kind, at its line."""
    assert any(one.startswith(expected) for one in said(text)), said(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[tools]\nallow = ['a', 'get_*']\nask = ['b']\ndeny = ['get_secret']",
        f"{RULE}when = 'has(args.a) && args.a != null && args.a > 1'\nthen = 'deny'",
        f"{RULE}tools = ['a*']\nthen = 'ask'\n[[rule]]\nname = 'y'\ntools = ['ab']\nthen = 'deny'",
        f"{RULE}tools = ['a']\nwhen = 'has(args.x)'\nthen = 'deny'\n[[rule]]\nname = 'y'\ntools = ['a']\nthen = 'ask'",
        f"{RULE}agents = ['b']\nthen = 'deny'\n[[rule]]\nname = 'y'\ntools = ['a']\nthen = 'ask'",
        f"[[label]]\nname = 'l'\ntools = ['a']\n{RULE}when = '\"l\" in run.labels'\nthen = 'deny'",
        "[[role]]\nname = 'r'\n[approvals]\napprovers = ['r']",
    ],
    ids=lambda value: value[:40],
)
def test_what_is_left_in_peace(text: str) -> None:
    """No finding where nothing is wrong."""
    assert said(text) == []


def test_names_that_are_no_tools() -> None:
    """With the tools known: near names are suggested, and globs must select something."""
    text = "[tools]\nallow = ['get_balanse', 'list_*', 'send']\n[[tool]]\nname = 'sned'\n"

    assert said(text, ["get_balance", "send"]) == [
        "2 error: there is no tool 'get_balanse'; did you mean 'get_balance'?",
        "2 warning: 'list_*' selects none of the tools",
        "4 error: there is no tool 'sned'; did you mean 'send'?",
    ]
    assert said(text) == []
