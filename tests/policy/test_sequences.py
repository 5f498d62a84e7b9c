"""Sequence rules: what may follow what, at the gate, over a batch, and over a finished run."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oao_harness
from oao_harness import ConfigError, FilePolicy, Orchestrator, at_most, never_after, only_after
from oao_harness.policy.sequence import Step
from tests.policy.conftest import Desk

TEXT = """
[[sequence]]
name = "no_exfil"
after = ["read_*"]
never = ["send_*"]
[[sequence]]
name = "checked"
only = ["pay"]
after_success_of = ["check"]
[[sequence]]
name = "thrice"
at_most = 3
of = ["search", "find"]
[[sequence]]
name = "held"
after = ["look"]
never = ["touch"]
then = "ask"
"""


@pytest.mark.parametrize(
    ("calls", "broken"),
    [
        ("send_a read_a", {}),
        ("read_a send_a", {"no_exfil": 2}),
        ("read_a other send_a send_b", {"no_exfil": 3}),
        ("pay", {"checked": 1}),
        ("check pay", {}),
        ("!check pay", {"checked": 2}),
        ("!check check pay pay", {}),
        ("search find search", {}),
        ("search find search other find", {"thrice": 5}),
        ("touch look", {}),
        ("look touch", {"held": 2}),
    ],
)
def test_the_same_rule_judges_at_the_gate_and_over_a_finished_run(
    desk: Any, calls: str, broken: dict[str, int]
) -> None:
    """`!tool` failed. What breaks a rule is refused when it happens, and found afterwards, at the same call."""
    asked = desk(TEXT)
    steps = [Step("tool", name.lstrip("!"), {}, not name.startswith("!")) for name in calls.split()]
    refused: dict[str, int] = {}
    for number, step in enumerate(steps, start=1):
        decision = asked.judge(step.name)
        if decision is not None:
            refused.setdefault(decision.rule, number)
        asked.finish(step.name, error="" if step.ok else "failed")

    assert refused == broken
    for name, rule in asked.policy.sequences.items():
        said = rule.broken_by(steps)
        if name in broken:
            assert said.startswith(f"call {broken[name]} ({steps[broken[name] - 1].name}) breaks {name!r}")
        else:
            assert said is None


def test_a_model_call_is_no_step() -> None:
    """Only tools count, whatever a model is called."""
    rule = FilePolicy.from_text(TEXT).sequences["no_exfil"]

    assert rule.broken_by([("model", "read_x", None, True), ("tool", "send_x", None, True)]) is None


def test_a_call_judged_again_counts_once(desk: Any) -> None:
    """The same id replaces what it counted before; a call that is only proposed counts nothing."""
    asked = desk('[[sequence]]\nname = "once"\nat_most = 1\nof = ["a"]\n')
    for _ in range(3):
        assert asked.judge("a", id="x") is None
        assert asked.judge("a", proposed=True).rule == "once"
    assert asked.judge("a", id="y").rule == "once"

    again = desk('[[sequence]]\nname = "once"\nat_most = 1\nof = ["a"]\n')
    for _ in range(3):
        assert again.judge("a", proposed=True) is None
    assert again.judge("a") is None
    assert again.judge("a").rule == "once"


def test_runs_do_not_share_what_they_counted(desk: Any) -> None:
    """One policy object, two runs."""
    policy = FilePolicy.from_text(TEXT)
    first, second = desk(policy), desk(policy)
    first.judge("read_a")

    assert second.says("send_a") == "none"
    assert first.says("send_a") == "deny no_exfil"


def test_of_two_parallel_calls_one_sees_the_other(desk: Any) -> None:
    """Fifty threads at once, three allowed: counting and judging are one step."""
    asked = desk(TEXT)
    said: list[Any] = []
    start = threading.Barrier(50)

    def call(number: int) -> None:
        start.wait(10)
        said.append(asked.judge("search", id=f"n{number}"))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sum(decision is None for decision in said) == 3
    assert len(said) == 50


@pytest.mark.parametrize(
    ("before", "batch", "said"),
    [
        ("", "send_a other", None),
        ("", "read_a send_a", "no_exfil"),
        ("", "send_a read_a", "no_exfil"),
        ("read_a", "send_a other", None),  # judged alone, and denied there
        ("", "check pay", None),  # judged alone, and denied there
        ("check", "check pay", None),
        ("", "search search find", None),
        ("search", "search search find", "thrice"),
        ("", "look touch", "held"),
        ("look", "look touch", None),  # asked about alone
    ],
)
def test_a_batch_is_judged_as_if_all_others_had_come_before(
    desk: Any, before: str, batch: str, said: str | None
) -> None:
    """What only the order of siblings decides is denied before any of them starts."""
    asked = desk(TEXT)
    for name in before.split():
        asked.judge(name)
        asked.finish(name)

    decision = asked.batch(*batch.split())

    assert (decision and decision.rule) == said
    if decision:
        assert decision.verdict == "deny"
        assert "chance order" in decision.reason


TOOLS = ["a", "b", "c"]
NAMES = st.lists(st.sampled_from([*TOOLS, "*"]), min_size=1, max_size=2, unique=True)


@st.composite
def policies(draw: st.DrawFn) -> str:
    lines: list[str] = []
    for i in range(draw(st.integers(1, 3))):
        first, second, then = draw(NAMES), draw(NAMES), draw(st.sampled_from(["deny", "ask"]))
        form = draw(
            st.sampled_from(
                [
                    f"after = {first}\nnever = {second}",
                    f"only = {first}\nafter_success_of = {second}",
                    f"at_most = {draw(st.integers(0, 3))}\nof = {first}",
                ]
            )
        )
        lines.append(f'[[sequence]]\nname = "s{i}"\nthen = "{then}"\n{form}\n')
    for i, tool in enumerate(draw(st.lists(st.sampled_from(TOOLS), max_size=2))):
        lines.append(f'[[label]]\nname = "l{i}"\ntools = ["{tool}"]\n')
    condition = draw(st.sampled_from(["'l0' in run.labels", "!('l0' in run.labels)", "run.tool_calls > 1",
                                      "'l0' in run.labels && !('l1' in run.labels)", "false"]))  # fmt: skip
    lines.append(
        f'[[rule]]\nname = "r"\ntools = ["{draw(st.sampled_from(TOOLS))}"]\nwhen = "{condition}"\nthen = "deny"\n'
    )
    return "\n".join(lines)


@settings(deadline=None)
@given(
    policies(),
    st.lists(st.sampled_from(TOOLS), max_size=3),
    st.lists(st.sampled_from(TOOLS), min_size=2, max_size=4),
)
def test_no_order_of_a_batch_denies_what_the_batch_was_allowed(text: str, before: list[str], batch: list[str]) -> None:
    """Property: judged alone and together, allowed; then no order in which they start is denied or held."""
    policy = FilePolicy.from_text(text)

    def played() -> Desk:
        asked = Desk(policy)
        for name in before:
            asked.judge(name)
            asked.finish(name)
            asked.run.budget.totals.tool_calls += 1
        return asked

    fresh = played()
    if any((found := fresh.judge(name, proposed=True)) and found.verdict != "allow" for name in batch):
        return
    if fresh.batch(*batch) is not None:
        return
    for order in itertools.permutations(batch):
        asked = played()
        for name in order:
            decision = asked.judge(name)
            assert decision is None or decision.verdict == "allow", (order, decision)
            asked.run.budget.totals.tool_calls += 1


LABELS = """
[[label]]
name = "personal"
tools = ["read_*"]
when = "result_text.contains('@')"
[[label]]
name = "secret"
tools = ["open"]
when = "args.path.startsWith('/secret')"
[[rule]]
name = "no outbound"
tools = ["send"]
when = "'personal' in run.labels || 'secret' in run.labels"
then = "deny"
"""


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        ({"from": "bob@x.com"}, "", "deny no outbound"),
        ("bob@x.com", "", "deny no outbound"),
        ("nobody", "", "none"),
        (None, "", "none"),
        ("ignored", "it failed", "deny no outbound"),
    ],
)
def test_labels_by_result_only_ratchet_up(desk: Any, value: Any, error: str, said: str) -> None:
    """Set when the call ended; a call that failed sets it too, because nobody knows what it read; never unset."""
    asked = desk(LABELS)
    assert asked.says("send") == "none"
    asked.judge("read_mail")
    asked.finish("read_mail", value, error=error)
    assert asked.says("send") == said
    asked.judge("read_mail")
    asked.finish("read_mail", "nothing")
    assert asked.says("send") == said


def test_labels_by_arguments_are_set_when_the_call_is_allowed(desk: Any) -> None:
    """Not when it is only proposed; a condition that fails denies the call."""
    asked = desk(LABELS)
    asked.judge("open", proposed=True, path="/secret/x")
    assert asked.says("send") == "none"
    asked.judge("open", path="/public")
    assert asked.says("send") == "none"
    asked.judge("open", path="/secret/x")
    assert asked.says("send") == "deny no outbound"
    assert asked.says("open") == "deny secret"


def test_a_label_that_cannot_be_judged_denies(desk: Any) -> None:
    """The condition is about a text, the result is none: an error is a denial."""
    asked = desk("[[label]]\nname = 'x'\ntools = ['a']\nwhen = \"result.startsWith('@')\"\n")
    asked.judge("a")

    denied = asked.finish("a", {"no": "text"})
    assert denied.verdict == "deny"
    assert "policy.toml:4: condition of label 'x' failed" in denied.reason


@oao_harness.tool
def read_file() -> str:
    return "bob@x.com"


@oao_harness.tool
def send() -> str:
    return "sent"


@pytest.mark.parametrize(
    ("policy", "calls", "rule"),
    [
        (lambda: never_after("read_*", ["send"], name="quiet"), (read_file, send), "quiet"),
        (lambda: only_after("send", "read_file", name="first read"), (send,), "first read"),
        (lambda: at_most(1, ["send", "read_*"], name="one"), (send, read_file), "one"),
        (lambda: only_after("send", "read_file", name="first read"), (read_file, send), None),
        (lambda: FilePolicy.from_text(LABELS), (read_file, send), "no outbound"),
        (lambda: FilePolicy.from_text(LABELS), (send, read_file), None),
    ],
)
def test_end_to_end(policy: Any, calls: Any, rule: str | None) -> None:
    """Rules made in Python, and labels by results, through the orchestrator."""
    made = policy()
    report = Orchestrator(policy=[made]).run(lambda task: [call() for call in calls])

    assert (report.violation or {}).get("rule") == rule
    again = Orchestrator(policy=[made]).run(lambda task: [call() for call in calls])
    assert (again.violation or {}).get("rule") == rule


def test_rules_made_in_python_are_checked_and_judge_batches(desk: Any) -> None:
    """A name that selects nothing, and a negative bound, are refused; siblings are judged together."""
    for wrong in (
        lambda: never_after([], "a", name="x"),
        lambda: at_most(-1, "a", name="x"),
        lambda: at_most(True, "a", name="x"),
        lambda: only_after("a", "b", name="x", then="allow"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match="give"):
            wrong()
    asked = desk(never_after("read", "send", name="quiet", then="ask"))
    assert asked.batch("read", "send").rule == "quiet"
    assert asked.batch("send", "send") is None
    asked.judge("read")
    assert asked.judge("send").verdict == "ask"
    assert asked.policy.broken_by([("tool", "read", {}, True), ("tool", "send", {}, True)])


def test_a_decision_costs_the_same_however_long_the_run_is(desk: Any) -> None:
    """Ten thousand calls leave one number behind."""
    asked = desk(TEXT)
    for number in range(10_000):
        asked.judge("read_a", id=str(number))
        asked.finish("read_a", "x", id=str(number))

    memory = asked.run.memory(asked.policy, lambda: None)
    assert memory.counts.values[0] == 10_000
    assert memory.counts.started == {}
