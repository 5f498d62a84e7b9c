"""Judging recorded calls again: word for word what the gate says, on real runs; and what is counted of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oao_harness import FilePolicy, MemoryStore, Orchestrator, StrictPolicy, at_most, model, never_after, tool
from oao_harness.importing.forms import import_runs
from oao_harness.journal.histories import History, histories_of_recording, history_of_records
from oao_harness.journal.nesting import tape_of
from oao_harness.policy.diff import JudgedRun, PolicyDiff
from oao_harness.runtime.preparing import prepare
from oao_harness.runtime.rejudging import Judged, Rejudge
from oao_hookspecs import (
    Allow,
    Approve,
    Ask,
    Deny,
    ErrorInfo,
    Limits,
    ModelCall,
    Modify,
    Outcome,
    Principal,
    Record,
    RunView,
    ToolCall,
    Usage,
    hookimpl,
)

pytest.importorskip("cel", reason="policy files with conditions need the extra oao-harness[policy]")

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
AGENTDOJO = DATA / "agentdojo" / "runs"
TAU2 = DATA / "tau2-bench"
here_agentdojo = pytest.mark.skipif(not AGENTDOJO.is_dir(), reason="the recorded runs of AgentDojo are not here")
here_tau2 = pytest.mark.skipif(not TAU2.is_dir(), reason="the recorded runs of tau2-bench are not here")

RULES = """
[limits]
max_tool_calls = 9
max_tokens = 6000
[tools]
deny = ["delete_*"]
ask = ["send_money"]
[[tool]]
name = "get_webpage"
max_calls = 2
[[tool]]
name = "read_*"
access = "read"
redact = [{ pattern = "INFORMATION" }]
[[rule]]
name = "mail-to-the-named"
tools = ["send_email", "send_direct_message"]
values_from = { recipient = ["task", "tool:get_users_in_channel"], recipients = ["task"] }
[[rule]]
name = "pays-little"
tools = ["send_money"]
when = "has(args.amount) && args.amount > 50"
then = "deny"
[[label]]
name = "tainted"
tools = ["get_webpage", "read_*"]
when = 'result_text.contains("INFORMATION")'
[[rule]]
name = "tainted-writes-nothing"
tools = ["add_*", "invite_*", "post_*"]
when = '"tainted" in run.labels'
then = "ask"
[[sequence]]
name = "no-mail-after-inbox"
after = ["read_inbox", "get_unread_emails"]
never = ["send_*"]
[[sequence]]
name = "book-after-looking"
only = ["reserve_*"]
after_success_of = ["get_rating_*"]
[[sequence]]
name = "few-hotels"
at_most = 3
of = ["get_*hotel*", "get_*restaurant*"]
"""


class Awaiting:
    """A policy that awaits, and remembers."""

    name = "awaiting"

    @hookimpl
    async def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Deny | Ask | None:
        seen = run.memory(self, set[str])
        if len(seen) >= 3 and call.name not in seen:
            return Deny(rule="fourth-tool", reason=f"{call.name} is the fourth tool")
        seen.add(call.name)
        return Ask(rule="money", reason="it is money") if "money" in call.name and not call.proposed else None


class Changing:
    """A policy that takes a zero off amounts, and one that refuses what is left above a bound."""

    name = "changing"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Modify | Deny | None:
        amount = call.arguments.get("amount")
        if isinstance(amount, int | float) and amount > 100:
            return Modify(call=replace(call, arguments={**call.arguments, "amount": amount / 10}), rule="tenth")
        return None

    @hookimpl
    def oao_decide_outcome(self, call: ModelCall | ToolCall, outcome: Outcome) -> Deny | None:
        if isinstance(call, ToolCall) and isinstance(outcome.value, str) and "INFORMATION" in outcome.value:
            return Deny(rule="injected", reason="the result gives orders")
        return None


class Failing:
    """A policy with a defect: for some tools it raises."""

    name = "failing"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> None:
        if call.name.startswith("search"):
            raise KeyError(call.name)


POLICIES: Mapping[str, Callable[[], list[Any]]] = {
    "off": lambda: ["off"],
    "strict": lambda: [StrictPolicy()],
    "standard": lambda: ["standard"],
    "few calls": lambda: [StrictPolicy(max_tokens=None, max_steps=None, max_tool_calls=3)],
    "few tokens": lambda: [StrictPolicy(max_tokens=2500, max_steps=None, max_tool_calls=None)],
    "rules": lambda: [FilePolicy.from_text(RULES)],
    "guard": lambda: [str(ROOT / "benchmarks" / "agentdojo" / "policies" / "write-guard.toml")],
    "sequences in Python": lambda: [
        never_after(["read_*", "get_webpage"], ["send_*", "post_*"], name="quiet"),
        at_most(4, ["*"], name="four"),
    ],
    "awaiting": lambda: [Awaiting()],
    "changing": lambda: [Changing(), "standard"],
    "failing": lambda: [Failing()],
}


class ToolFailed(Exception):
    """What a recorded tool raised."""


def recorded(files: Sequence[Path]) -> Iterator[History]:
    """Yield the agents' runs of files, each model call with a made-up number of tokens where none is recorded."""
    for file in files:
        for run in import_runs(file):
            history = histories_of_recording(run.recording, f"{file.name}:{run.name}")[0]
            for n, told in enumerate(history.calls):
                if told.outcome is not None and told.call.kind == "model" and told.outcome.usage is None:
                    told.outcome = replace(told.outcome, usage=Usage(input_tokens=90 * n, output_tokens=37))
            yield history


def judged(history: History, policies: list[Any]) -> Judged:
    judge = Rejudge(policies)
    return judge.judge(prepare(history, [judge]))


def answering(outcome: Outcome | None) -> Callable[[Any], dict[str, Any]]:
    def answer(messages: Any) -> dict[str, Any]:
        assert outcome is not None
        assert outcome.usage is not None
        asked = [{"name": one.name, "args": one.arguments, "id": one.call_id} for one in outcome.proposed]
        tokens = {"input_tokens": outcome.usage.input_tokens, "output_tokens": outcome.usage.output_tokens}
        return {"message": "", "tool_calls": asked, "usage": tokens}

    return answer


def returning(outcome: Outcome | None) -> Callable[..., Any]:
    def body(**_arguments: Any) -> Any:
        if outcome is None or outcome.error is not None:
            raise ToolFailed
        return outcome.value

    return body


def through_the_gate(
    history: History, policies: list[Any], **options: Any
) -> tuple[list[tuple[str, str]], Mapping[str, Any] | None]:
    """Let an agent make the recorded calls under governance; return verdicts and rules, and the violation."""
    store = MemoryStore()

    def agent(_task: object) -> None:
        for told in history.calls:
            call, outcome = told.call, told.outcome

            if isinstance(call, ModelCall):
                model(name=call.name)(answering(outcome))(list(call.messages))
                continue
            try:
                tool(name=call.name)(returning(outcome))(**call.arguments)
            except ToolFailed:
                continue

    report = Orchestrator(
        policies, store, approver=lambda _question: Approve(by=Principal(id="ann", roles=("any",))), **options
    ).run(agent, history.task, agent_name=history.agent, execution_id="r")
    records = [record for record in store.read("r") if record["type"] == "call"]
    found: list[tuple[str, str]] = []
    for record in records:
        decision: Any = record["decision"]
        found.append((decision.get("would") or decision["verdict"], decision["rule"]))
    return found, report.violation


def verdicts(found: Judged) -> list[tuple[str, str]]:
    return [(one.verdict, one.rule) for one in found.decisions]


def agree(history: History, policies: Callable[[], list[Any]]) -> str:
    """Return how a run is stopped, after making sure that the gate stops it there and says the same until then."""
    mine = judged(history, policies())
    gate, violation = through_the_gate(history, policies())
    stop = mine.halt
    assert (stop is None) == (violation is None), (history.name, stop, violation)
    last = len(history.calls) if stop is None else stop.index + 1
    shown = [(v, r if v != "allow" else "") for v, r in verdicts(mine)[:last]]
    said = [(v, r if v != "allow" else "") for v, r in gate]
    assert [v for v, _ in shown] == [v for v, _ in said], history.name
    assert [r for v, r in shown if v in {"deny", "ask"}] == [r for v, r in said if v in {"deny", "ask"}], history.name
    if stop is not None and violation is not None:
        assert (stop.decision.rule, stop.decision.reason) == (violation["rule"], violation["reason"]), history.name
    return "" if stop is None else stop.stage


@here_agentdojo
@pytest.mark.parametrize("policy", POLICIES)
def test_verdicts_are_those_of_the_gate(policy: str) -> None:
    """Call by call, with the rule, up to where the gate halts the run, which it does at the same call and stage."""
    files = sorted(AGENTDOJO.glob("*.json"))[:: 4 if policy in {"rules", "guard"} else 6]
    stages = Counter(agree(history, POLICIES[policy]) for history in recorded(files))

    assert stages.total() == len(files)
    expected = {
        "off": set(), "standard": set(), "few tokens": {"call", "outcome"}, "changing": {"outcome"},
        "few calls": {"call", "batch"}, "awaiting": {"call", "batch"},
    }.get(policy, {"call"})  # fmt: skip
    assert expected <= stages.keys(), "this policy is here to stop something there"


@here_tau2
@pytest.mark.parametrize("policy", ["strict", "few calls"])
def test_recorded_tokens_and_batches_stop_where_the_gate_does(policy: str) -> None:
    """On runs with the tokens that were really used, and with many calls in one answer."""
    histories = list(recorded([TAU2 / "claude-sonnet-4-5_airline.json"]))
    stages = Counter(agree(history, POLICIES[policy]) for history in histories)

    assert stages[""] < len(histories) == 25


@here_agentdojo
@pytest.mark.parametrize("policy", ["guard", "sequences in Python"])
def test_the_judging_goes_on_after_a_denial_as_the_gate_does_where_denials_are_waived(policy: str) -> None:
    """Every call of every run, also those after the first denial."""
    later = 0
    for history in recorded(sorted(AGENTDOJO.glob("*important*.json"))[::3]):
        mine = verdicts(judged(history, POLICIES[policy]()))
        gate, violation = through_the_gate(history, POLICIES[policy](), waivers={"*": "go on"})
        assert violation is None
        assert [v for v, _ in mine] == [v for v, _ in gate], history.name
        later += sum(v != "allow" for v, _ in mine) - any(v != "allow" for v, _ in mine)
    assert later > 10


# Counted in the files themselves


def raw_agentdojo() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for file in sorted(AGENTDOJO.glob("*.json")):
        yield file.name, json.loads(file.read_text("utf-8"))["messages"]


def diff_of(histories: Iterator[History], before: list[Any], after: list[Any]) -> PolicyDiff:
    judges, diff = [Rejudge(before), Rejudge(after)], PolicyDiff("a", "b")
    for history in histories:
        prepared = prepare(history, judges)
        first, second = (judge.judge(prepared, which) for which, judge in enumerate(judges))
        diff.add(
            JudgedRun(
                name=history.name, agent=history.agent, calls=history.calls, before=first, after=second,
                recording=history.recording,
            )
        )  # fmt: skip
    return diff


def all_of(files: Sequence[Path]) -> Iterator[History]:
    for file in files:
        for run in import_runs(file):
            yield from histories_of_recording(run.recording, f"{file.name}:{run.name}")


@here_agentdojo
def test_counts_on_agentdojo_are_those_of_the_files() -> None:
    """Calls by tool, calls denied by name, calls beyond a limit, the runs halted: counted with nothing of ours."""
    tools: Counter[str] = Counter()
    beyond = halted = models = 0
    for _, messages in raw_agentdojo():
        asked = [one["function"] for m in messages if m["role"] == "assistant" for one in m["tool_calls"] or ()]
        models += sum(m["role"] == "assistant" for m in messages)
        tools.update(asked)
        beyond += max(0, len(asked) - 4)
        halted += "send_money" in asked or len(asked) > 4
    policy = FilePolicy.from_text('[limits]\nmax_tool_calls = 4\n[tools]\ndeny = ["send_money"]\n')
    diff = diff_of(all_of(sorted(AGENTDOJO.glob("*.json"))), ["off"], [policy])

    assert {name: row.calls for name, row in diff.tools.items()} == dict(tools)
    assert (diff.runs, diff.calls) == (256, tools.total() + models)
    assert diff.rules["tools.deny"].changes["denied"] == tools["send_money"] == diff.tools["send_money"].after["deny"]
    # A denial by name is said first: it is not counted for the limit as well.
    both = diff.rules["max_tool_calls"].changes["denied"] + diff.rules["tools.deny"].changes["denied"]
    assert diff.changes == {"denied": both}
    assert diff.rules["max_tool_calls"].changes["denied"] == beyond - money_beyond()
    assert (len(diff.halted[0]), len(diff.halted[1])) == (0, halted)
    assert diff.tokens_unknown == len(diff.run_changes) == halted


def money_beyond() -> int:
    found = 0
    for _, messages in raw_agentdojo():
        asked = [one["function"] for m in messages if m["role"] == "assistant" for one in m["tool_calls"] or ()]
        found += sum(name == "send_money" for name in asked[4:])
    return found


@here_tau2
def test_counts_and_tokens_on_tau2_are_those_of_the_files() -> None:
    """Calls by tool and by who made them; tokens of the agent's answers after the first denied call."""
    tools: Counter[str] = Counter()
    users = 0
    saved = halted = 0
    for file in sorted(TAU2.glob("*.json")):
        for simulation in json.loads(file.read_text("utf-8"))["simulations"]:
            stopped = False
            for message in simulation["messages"]:
                calls = [one["name"] for one in message.get("tool_calls") or ()]
                tools.update(calls)
                users += len(calls) if message["role"] == "user" else 0
                if stopped and message["role"] == "assistant" and message["usage"] is not None:
                    saved += message["usage"]["prompt_tokens"] + message["usage"]["completion_tokens"]
                stopped = stopped or "get_reservation_details" in calls
            halted += stopped
    policy = FilePolicy.from_text('[tools]\ndeny = ["get_reservation_details"]\n')
    diff = diff_of(all_of(sorted(TAU2.glob("*.json"))), ["off"], [policy])

    assert diff.runs == 55
    assert {name: row.calls for name, row in diff.tools.items()} == dict(tools)
    assert diff.changes["denied"] == tools["get_reservation_details"] > 0
    assert sum(row.calls for name, row in diff.agents.items() if name == "user_simulator") > users > 0
    assert (diff.newly_halted, diff.tokens_more, diff.tokens_unknown) == (halted, saved, 0)


@here_agentdojo
def test_sequences_on_agentdojo_are_those_of_the_files() -> None:
    """Never after, counted with plain code over the messages."""
    wanted = 0
    for _, messages in raw_agentdojo():
        read = False
        for name in [one["function"] for m in messages if m["role"] == "assistant" for one in m["tool_calls"] or ()]:
            wanted += read and name.startswith("send_")
            read = read or name in {"get_webpage", "read_inbox", "read_channel_messages"}
    text = (
        '[[sequence]]\nname = "s"\nafter = ["get_webpage", "read_inbox", "read_channel_messages"]\nnever = ["send_*"]\n'
    )
    diff = diff_of(all_of(sorted(AGENTDOJO.glob("*.json"))), ["off"], [FilePolicy.from_text(text)])

    assert diff.rules["s"].changes["denied"] == diff.changes["denied"] == wanted > 0


# Runs of a store


def history_of(store: MemoryStore, execution_id: str = "r") -> History:
    return history_of_records(tape_of(execution_id, lambda one: list(store.read(one))), execution_id)


@tool
def find(query: str = "") -> str:
    return f"found {query}"


@tool
def pay(amount: float) -> str:
    return "paid"


def test_a_journaled_run_with_a_nested_one_is_one_history() -> None:
    """The outer run's limits count the nested run's calls, and each call is said to be whose it was."""
    store = MemoryStore()

    @tool
    def delegate() -> str:
        Orchestrator().run(lambda _task: find(query="inner"), "sub", agent_name="helper")
        return "done"

    def agent(_task: object) -> None:
        find(query="a")
        delegate()
        find(query="b")

    Orchestrator(store=store).run(agent, "t", execution_id="r", agent_name="boss", principal=Principal(id="ann"))
    history = history_of(store)

    assert [(one.agent, one.place, one.call.name) for one in history.calls] == [
        ("boss", "#1", "find"), ("boss", "#2", "delegate"), ("helper", "helper #1", "find"), ("boss", "#3", "find"),
    ]  # fmt: skip
    assert (history.agent, history.task, history.principal) == ("boss", "t", Principal(id="ann"))
    found = judged(history, [StrictPolicy(max_steps=None, max_tool_calls=3)])
    assert [one.verdict for one in found.decisions] == ["allow", "allow", "allow", "deny"]


def test_denied_held_and_unfinished_calls_of_a_journal_are_judged_too() -> None:
    """What a policy stopped when it was recorded: another policy may let it pass."""
    store = MemoryStore()
    policy = FilePolicy.from_text('[tools]\nask = ["pay"]\n')
    held = Orchestrator(policy, store).run(lambda _t: (find(), pay(amount=3)), "t", execution_id="held")
    assert held.status == "SUSPENDED"
    Orchestrator(FilePolicy.from_text('[tools]\ndeny = ["pay"]\n'), store).run(
        lambda _t: (find(), pay(amount=3)), "t", execution_id="denied"
    )
    for name, before, what in (("held", policy, "released"), ("denied", "strict", None)):
        diff = diff_of(iter([history_of(store, name)]), [before], ["off"])
        assert diff.tools["pay"].calls == 1, name
        assert diff.changes == ({what: 1} if what else {}), name
    approving = Orchestrator(policy, store, approver=lambda _q: Approve(by=Principal(id="ann")))
    approving.run(lambda _t: (find(), pay(amount=3)), "t", execution_id="approved")
    assert len(history_of(store, "approved").calls) == 2, "asked about and made: one call"


def test_what_a_policy_changed_is_judged_as_the_agent_asked_for_it() -> None:
    """The journal holds both; and two policies that modify differently are said to."""
    store = MemoryStore()
    Orchestrator([Changing()], store).run(lambda _t: pay(amount=500), "t", execution_id="r")
    history = history_of(store)

    assert history.calls[0].call.request == {"amount": 500}
    diff = diff_of(iter([history]), ["off"], [Changing()])
    assert diff.changes == {"modified": 1}
    assert diff_of(iter([history]), [Changing()], [Changing()]).changes == {}


def test_a_declared_access_of_either_policy_counts_and_the_authors_is_stronger() -> None:
    """A journal holds the access that was declared; whoever declared it."""
    rule = '[[rule]]\nname = "writes"\ntools = ["*"]\naccess = "write"\nthen = "deny"\n'
    text = '[[tool]]\nname = "find"\naccess = "{}"\n' + rule
    reads, writes = (FilePolicy.from_text(text.format(access)) for access in ("read", "write"))
    silent = FilePolicy.from_text(rule)
    store = MemoryStore()
    Orchestrator(reads, store).run(lambda _t: find(), "t", execution_id="r")
    assert diff_of(iter([history_of(store)]), [reads], [writes]).changes == {"denied": 1}

    by_author = history_of(store)
    assert by_author.calls[0].call == ToolCall(name="find", arguments={}, access="read")
    assert diff_of(iter([by_author]), [silent], [silent]).changes == {}
    assert judged(by_author, [writes]).decisions[0].verdict == "allow", "what nobody here declares is the author's"


def test_framework_steps_task_and_output_are_judged() -> None:
    """Beside single calls: each is counted at its stage, and halts the run."""

    class Whole:
        name = "whole"

        @hookimpl
        def oao_decide_run(self, run: RunView) -> Deny | None:
            return Deny(rule="task", reason="no") if run.task == "bad" else None

        @hookimpl
        def oao_decide_output(self, output: Any) -> Deny | None:
            return Deny(rule="said", reason="no") if output == "secret" else None

    store = MemoryStore()
    Orchestrator(store=store).run(lambda _t: find() and None, "bad", execution_id="bad")
    Orchestrator(store=store).run(lambda _t: "secret", "good", execution_id="good")
    for name, stage in (("bad", "task"), ("good", "output")):
        diff = diff_of(iter([history_of(store, name)]), ["off"], [Whole()])
        assert diff.stops == {(stage, "denied"): 1}
        assert (diff.newly_halted, diff.changes, diff.fails_on("denied")) == (1, {}, True)
    steps = history_of(store, "bad")
    steps.moments = [("step", -1), *steps.moments, ("step", -1)]
    diff = diff_of(iter([steps]), ["off"], [StrictPolicy(max_steps=1)])
    assert diff.stops == {("step", "denied"): 1}


def test_a_policy_that_fails_denies_and_is_said() -> None:
    """Whatever it raises, returns or names as limits."""

    class Raises:
        name = "raises"

        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall) -> object:
            if call.name == "find":
                raise ValueError("broken")
            return "yes"

    history = History(name="x", agent="a")
    store = MemoryStore()
    Orchestrator(store=store).run(lambda _t: (find(), pay(amount=1)), "t", execution_id="r")
    history = history_of(store)
    diff = diff_of(iter([history]), ["off"], [Raises()])

    assert diff.changes == {"denied": 2}
    reasons = [reason for _, reason in diff.errors]
    assert "policy 'raises' raised ValueError: broken; an error is a denial" in reasons
    assert any("which is not a decision" in reason for reason in reasons)


def test_every_change_has_its_name() -> None:
    """From each verdict to each other one."""

    class Says:
        def __init__(self, verdict: str) -> None:
            self.name, self.verdict = verdict, verdict

        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall) -> Any:
            return {
                "allow": Allow(rule="r"),
                "deny": Deny(rule="r", reason="x"),
                "ask": Ask(rule="r", reason="x"),
            }[self.verdict]

    store = MemoryStore()
    Orchestrator(store=store).run(lambda _t: find(), "t", execution_id="r")
    history = history_of(store)
    wanted = {
        ("allow", "deny"): "denied", ("ask", "deny"): "denied", ("deny", "allow"): "allowed",
        ("allow", "ask"): "asked", ("deny", "ask"): "asked", ("ask", "allow"): "released",
    }  # fmt: skip
    for first in ("allow", "deny", "ask"):
        for second in ("allow", "deny", "ask"):
            diff = diff_of(iter([history]), [Says(first)], [Says(second)])
            what = wanted.get((first, second))
            assert diff.changes == ({what: 1} if what else {}), (first, second)
            assert diff.same == (0 if what else 1)
            assert diff.fails_on("any") is bool(what)
            assert not what or diff.fails_on(what)


def test_unknown_tokens_are_unknown() -> None:
    """Where one of the answers after the halt has no tokens, nobody adds up the others."""

    tape: list[tuple[str, Record]] = [("main", {"type": "run.started", "agent": "a", "execution_id": "r"})]
    for n, tokens in enumerate((None, 5, 7), start=1):
        decision = {"verdict": "allow", "rule": ""}
        called = {"type": "call", "n": n, "kind": "model", "name": "m", "req": {"messages": []}, "decision": decision}
        ended: dict[str, Any] = {"type": "outcome", "n": n, "res": "x"}
        tape += [("main", called), ("main", ended if tokens is None else {**ended, "usage": {"in": tokens, "out": 1}})]
    for allowed, saved, unknown in ((0, 0, 1), (1, 14, 0), (2, 8, 0)):
        policy = StrictPolicy(max_tokens=None, max_steps=allowed, max_tool_calls=None)
        diff = diff_of(iter([history_of_records(tape, "r")]), ["off"], [policy])
        assert (diff.tokens_more, diff.tokens_unknown) == (saved, unknown)
        assert diff.to_json()["tokens_saved"] == {"known": saved, "runs_unknown": unknown}


def test_limits_named_by_a_policy_for_a_run_hold_for_that_run() -> None:
    """A policy may give each agent its own."""

    class ByAgent:
        name = "by-agent"

        @hookimpl
        def oao_limits(self, run: RunView) -> Limits:
            return Limits(max_tool_calls=0 if run.agent_name == "small" else 5)

    store = MemoryStore()
    for name in ("small", "large", "small2"):
        Orchestrator(store=store).run(lambda _t: find(), "t", execution_id=name, agent_name=name.rstrip("2"))
    judge = Rejudge([ByAgent()])
    said = [
        judge.judge(prepare(history_of(store, name), [judge])).decisions[0].verdict
        for name in ("small", "large", "small2")
    ]
    assert said == ["deny", "allow", "deny"]


def test_an_error_of_a_tool_counts_as_none_for_what_must_succeed() -> None:
    """`only ... after success of`: the recorded error is an error when it is judged again."""
    store = MemoryStore()

    @tool(name="find")
    def broken(query: str = "") -> str:
        raise ToolFailed(query)

    def agent(_task: object) -> None:
        try:
            broken()
        except ToolFailed:
            pass
        pay(amount=1)
        find()
        pay(amount=1)

    Orchestrator(store=store).run(agent, "t", execution_id="r")
    history = history_of(store)
    ended = history.calls[0].outcome
    assert ended is not None
    assert isinstance(ended.error, ErrorInfo)
    text = '[[sequence]]\nname = "s"\nonly = ["pay"]\nafter_success_of = ["find"]\n'
    found = judged(history, [FilePolicy.from_text(text)])
    assert [one.verdict for one in found.decisions] == ["allow", "deny", "allow", "allow"]


def test_a_call_that_a_person_says_has_landed_ended_with_that() -> None:
    """Of a call in doubt the journal has no outcome, but what somebody said of it; and a fork says that it is one."""
    forked = {"type": "run.started", "agent": "a", "execution_id": "r", "forked": {"run": "old", "at": 2}}
    decision = {"verdict": "allow", "rule": ""}
    tape: list[tuple[str, Record]] = [("main", forked)]
    for n, landed in ((1, True), (2, False)):
        called = {"type": "call", "n": n, "kind": "tool", "name": "find", "req": {}, "decision": decision}
        tape += [("main", called), ("main", {"type": "resolved", "n": n, "landed": landed, "by": "ann", "res": "ok"})]
    history = history_of_records(tape, "r")

    assert [one.outcome is not None and one.outcome.value for one in history.calls] == ["ok", False]
    assert history.notes == ("it is a fork: its beginning is that of another run, and counts in both",)
    text = '[[sequence]]\nname = "s"\nonly = ["find"]\nafter_success_of = ["find"]\n'
    found = judged(history, [FilePolicy.from_text(text)])
    assert [one.verdict for one in found.decisions] == ["deny", "allow"]
