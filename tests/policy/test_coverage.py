"""Which rules recorded runs have exercised."""

from __future__ import annotations

import oao_harness
from oao_harness import FilePolicy, MemoryStore, Orchestrator
from oao_harness.policy.coverage import coverage_of
from oao_hookspecs import Principal

TEXT = """
[tools]
allow = ["read", "send", "never_*"]
deny = ["wipe"]
[[rule]]
name = "small"
tools = ["send"]
require = "args.amount <= 100"
[[rule]]
name = "huge"
tools = ["send"]
when = "args.amount > 1000000"
then = "ask"
[[sequence]]
name = "quiet"
after = ["read"]
never = ["send"]
[[label]]
name = "seen"
tools = ["read"]
when = "result == 'x'"
"""


@oao_harness.tool
def read() -> str:
    return "x"


@oao_harness.tool
def send(amount: int) -> str:
    return "sent"


@oao_harness.tool
def other() -> str:
    return "other"


def journals(*bodies: object) -> list[list[object]]:
    store = MemoryStore()
    for number, body in enumerate(bodies):
        Orchestrator(store=store).run(lambda task, body=body: body(), execution_id=str(number))  # type: ignore[misc, operator]
    return [list(store.read(str(number))) for number in range(len(bodies))]


def test_what_matched_what_never_did_and_what_stopped() -> None:
    """Silent allows count too; the order of the calls matters; runs made without the policy can be judged by it."""
    runs = journals(lambda: (send(5), read()), lambda: send(500), lambda: (read(), send(1)), lambda: other())
    covered = coverage_of(FilePolicy.from_text(TEXT), runs)  # type: ignore[arg-type]

    assert {one.item.name: (one.asked, one.matched, one.stopped) for one in covered.items} == {
        "read": (2, 2, 0),
        "send": (3, 3, 0),
        "never_*": (0, 0, 0),
        "wipe": (0, 0, 0),
        "small": (3, 3, 1),
        "huge": (3, 0, 0),
        "quiet": (3, 3, 1),
        "seen": (2, 2, 0),
    }
    assert [one.item.source for one in covered.missing] == ["policy.toml:3", "policy.toml:4", "policy.toml:9"]
    assert (covered.runs, covered.calls, covered.matched) == (4, 6, 5)
    assert covered.line() == "5 of 8 rules matched (62 %)"
    assert not covered.unruled


def test_tools_under_no_rule_are_named() -> None:
    """Without an allow list a tool may run that nothing in the policy is about."""
    policy = FilePolicy.from_text("[[rule]]\nname = 'x'\ntools = ['read']\nthen = 'deny'\n")

    covered = coverage_of(policy, journals(lambda: (other(), other(), read())))  # type: ignore[arg-type]
    assert covered.unruled == {"other": 2}
    assert covered.line() == "1 of 1 rules matched (100 %), no rule over other"
    assert coverage_of(FilePolicy.from_text(""), []).percent == 100.0


def test_the_recorded_decisions_agree() -> None:
    """A run under the policy itself: the call that was denied is the one that is counted as stopped."""
    policy, store = FilePolicy.from_text(TEXT), MemoryStore()
    report = Orchestrator(policy=policy, store=store).run(lambda task: (send(5), read(), send(5)), execution_id="r")
    assert report.violation is not None
    assert report.violation["rule"] == "quiet"

    covered = coverage_of(policy, [store.read("r")])
    assert {one.item.name for one in covered.items if one.stopped} == {"quiet"}


def test_a_call_that_waits_for_a_person_counts() -> None:
    """It has a question and no record of its own; after the answer it counts once."""
    policy = FilePolicy.from_text('[tools]\nask = ["send"]')
    orchestrator = Orchestrator(policy, store=MemoryStore())
    report = orchestrator.run(lambda task: send(5), execution_id="held")

    def counted() -> list[tuple[int, int, int]]:
        covered = coverage_of(policy, [orchestrator.store.read("held")])
        return [(one.asked, one.matched, one.stopped) for one in covered.items]

    assert report.status == "SUSPENDED"
    assert counted() == [(1, 1, 1)]
    orchestrator.approve(report.approvals[0]["id"], by=Principal(id="alice"))
    assert orchestrator.resume("held", lambda task: send(5), allow_changes=True).status == "SUCCESS"
    assert counted() == [(1, 1, 1)]
