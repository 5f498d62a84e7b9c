"""The listener of Prometheus: what counts, what does not, and that nothing leaks."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from oao_harness import (
    ConfigError,
    GraphExecutor,
    MemoryStore,
    Orchestrator,
    SQLiteStore,
    TaskGraph,
    TaskNode,
    model,
    tool,
)
from oao_harness.journal.recording import Recording
from oao_harness.listeners.metrics import Metrics
from oao_harness.listeners.metrics_exposition import Exposition
from oao_harness.listeners.metrics_labels import Names
from oao_harness.listeners.metrics_table import FAMILIES
from oao_harness.stores.observed import ObservedStore
from oao_hookspecs import Limits, Principal, RunView, hookimpl
from tests.listeners.metrics_traffic import Policy, ask, busy_page, desk, find, pay, samples, value

ME = Principal(id="me")


def page_of(metrics: Metrics) -> str:
    return Exposition(metrics).answer()[0].decode()


async def test_a_busy_process(tmp_path: Path) -> None:
    """Each metric, with the number that it must have."""
    page = await busy_page(tmp_path)
    for name, labels, expected in (
        ("oao_executions_total", {"status": "SUCCESS", "agent_type": "desk"}, 1),
        ("oao_executions_total", {"status": "FAILED", "agent_type": "eraser"}, 1),
        ("oao_executions_total", {"status": "SUCCESS", "agent_type": "flaky"}, 1),
        ("oao_executions_total", {"status": "FAILED", "agent_type": "payer"}, None),
        ("oao_execution_duration_seconds_count", {"agent_type": "desk"}, 1),
        ("oao_active_agents", {"agent_type": "desk"}, 0),
        ("oao_active_agents", {"agent_type": "payer"}, 0),
        ("oao_token_usage_total", {"agent_type": "desk", "model": "model-x", "direction": "in"}, 100),
        ("oao_token_usage_total", {"agent_type": "desk", "model": "model-x", "direction": "out"}, 20),
        ("oao_cost_usd_total", {"agent_type": "desk"}, 1.2),
        ("oao_runs_paused_total", {"status": "SUSPENDED", "agent_type": "payer"}, 2),
        ("oao_runs_paused_total", {"status": "QUEUED", "agent_type": "flaky"}, 1),
        ("oao_calls_total", {"kind": "tool", "name": "find", "outcome": "ok"}, 1),
        ("oao_calls_total", {"kind": "tool", "name": "find", "outcome": "error"}, 1),
        ("oao_calls_total", {"kind": "model", "name": "model-x", "outcome": "ok"}, 1),
        ("oao_call_duration_seconds_count", {"kind": "tool", "name": "find"}, 2),
        ("oao_replayed_calls_total", {"kind": "tool"}, 2),
        ("oao_replayed_calls_total", {"kind": "model"}, 1),
        ("oao_retries_total", {"of": "call"}, 1),
        ("oao_retries_total", {"of": "job"}, 1),
        ("oao_decisions_total", {"kind": "tool", "verdict": "deny"}, 1),
        ("oao_decisions_total", {"kind": "tool", "verdict": "allow"}, 2),
        ("oao_violations_total", {"rule": "no-erasing"}, 1),
        ("oao_approvals_requested_total", {"rule": "paying"}, 2),
        ("oao_approvals_answered_total", {"verdict": "reject"}, 1),
        ("oao_approvals_answered_total", {"verdict": "approve"}, 0),
        ("oao_approvals_pending", {}, 1),
        ("oao_budget_left_ratio", {"agent_type": "desk", "limit": "max_tokens"}, 1),
        ("oao_job_wait_seconds_count", {"agent_type": "flaky"}, 1),
        ("oao_queue_size", {"state": "queued"}, 0),
        ("oao_workers", {}, 1),
        ("oao_dead_letters", {}, 0),
        ("oao_scrape_up", {"source": "store"}, 1),
        ("oao_scrape_up", {"source": "queue"}, 1),
    ):
        assert value(page, name, **labels) == pytest.approx(expected), (name, labels)
    age = value(page, "oao_approvals_oldest_age_seconds")
    assert age is not None
    assert 0 <= age < 30
    assert (value(page, "oao_journal_append_seconds_count") or 0) > 10


def test_a_replay_spends_nothing() -> None:
    """Neither an execution nor tokens, calls, decisions or violations: only replayed calls."""
    store = MemoryStore()
    done = Orchestrator(Policy(), store).run(desk, "a")
    metrics = Metrics()
    recording = Recording.from_records(list(store.read(done.execution_id)))
    assert Orchestrator(Policy(), plugins=[metrics]).replay(desk, "a", recording).status == "SUCCESS"
    other = Orchestrator(Policy(), plugins=[metrics]).replay(lambda task: find("else"), "a", recording)
    assert other.status == "FAILED"
    counted = {name for (name, _), number in samples(page_of(metrics)).items() if number}
    assert counted == {"oao_replayed_calls_total"}


def test_a_resumed_run_counts_once_when_it_is_over(tmp_path: Path) -> None:
    """Its finished calls are not paid for again, in whatever process it goes on."""
    first, second = Metrics(), Metrics()

    def agent(task: str) -> str:
        ask(task)
        return str(pay(5))

    path = tmp_path / "runs.db"
    held = Orchestrator(Policy(), SQLiteStore(path), [first]).run(agent, "go")
    again = Orchestrator(Policy(), SQLiteStore(path), [second])
    again.approve(held.execution_id, by=ME)
    assert again.resume(held.execution_id, agent).status == "SUCCESS"
    one, two = page_of(first), page_of(second)
    tokens = {"agent_type": "agent", "model": "model-x", "direction": "in"}
    assert (value(one, "oao_token_usage_total", **tokens), value(two, "oao_token_usage_total", **tokens)) == (100, None)
    done = {"status": "SUCCESS", "agent_type": "agent"}
    assert (value(one, "oao_executions_total", **done), value(two, "oao_executions_total", **done)) == (None, 1)
    assert value(two, "oao_cost_usd_total", agent_type="agent") == pytest.approx(1.2)
    assert value(one, "oao_cost_usd_total", agent_type="agent") is None
    assert value(one, "oao_active_agents", agent_type="agent") == 0
    assert value(two, "oao_active_agents", agent_type="agent") == 0


def test_nested_runs_pay_once() -> None:
    """The nodes of a graph are runs of their own; tokens are theirs, money is the graph's."""
    metrics = Metrics()
    graph = TaskGraph([TaskNode("one", lambda task: ask("a")), TaskNode("two", lambda task: ask("b"))])
    GraphExecutor(graph, Policy(), plugins=[metrics]).execute("go")
    page = page_of(metrics)
    tokens = sum(number for (name, _), number in samples(page).items() if name == "oao_token_usage_total")
    money = [number for (name, _), number in samples(page).items() if name == "oao_cost_usd_total"]
    assert tokens == 240
    assert money == pytest.approx([2.4])
    assert not any(number for (name, _), number in samples(page).items() if name == "oao_active_agents")


def test_a_tool_that_runs_an_agent_pays_once() -> None:
    """One listener hears the inner run and the outer one."""
    metrics = Metrics()
    inner = Orchestrator(Policy(), plugins=[metrics])

    @tool
    def delegate(task: str) -> str:
        return str(inner.run(desk, task).final_output)

    report = Orchestrator(Policy(), plugins=[metrics]).run(lambda task: delegate(task), "x", agent_name="boss")
    assert report.status == "SUCCESS", report.error
    page = page_of(metrics)
    assert value(page, "oao_executions_total", status="SUCCESS", agent_type="desk") == 1
    assert value(page, "oao_executions_total", status="SUCCESS", agent_type="boss") == 1
    tokens = {labels: number for (name, labels), number in samples(page).items() if name == "oao_token_usage_total"}
    assert sum(tokens.values()) == 120
    money = {labels: number for (name, labels), number in samples(page).items() if name == "oao_cost_usd_total"}
    assert list(money.values()) == pytest.approx([1.2])


def test_a_fork_pays_for_its_own_calls_only() -> None:
    """Those of the beginning that it has from another run were paid for there."""
    store, metrics = MemoryStore(), Metrics()

    def agent(task: str) -> str:
        ask("one")
        find("x")
        return str(ask("two")["content"])

    done = Orchestrator(Policy(), store).run(agent, "x")
    forked = Orchestrator(Policy(), store, [metrics]).fork(done.execution_id, agent, at=3)
    assert forked.status == "SUCCESS", forked.error
    page = page_of(metrics)
    used = {"agent_type": "agent", "model": "model-x", "direction": "in"}
    assert value(page, "oao_token_usage_total", **used) == 100
    assert value(page, "oao_calls_total", kind="tool", name="find", outcome="ok") is None
    assert value(page, "oao_executions_total", status="SUCCESS", agent_type="agent") == 1
    assert value(page, "oao_active_agents", agent_type="agent") == 0


def test_a_folder_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not found out by the first run."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="is no folder; make one"):
        Metrics()


def test_active_agents_never_leak(tmp_path: Path) -> None:
    """However runs end: refused, broken, lost, interrupted, never begun."""
    metrics = Metrics()
    store = SQLiteStore(tmp_path / "runs.db")
    orchestrator = Orchestrator(Policy(), store, [metrics], lease_s=60)
    seen: list[float | None] = []

    def looks(task: str) -> str:
        seen.append(value(page_of(metrics), "oao_active_agents", agent_type="looks"))
        return "seen"

    def robbed(task: str) -> str:
        store.claim("r1", over=1)
        return find("x")

    def interrupted(task: str) -> str:
        raise KeyboardInterrupt

    def broken(task: str) -> str:
        raise ValueError("no")

    assert orchestrator.run(looks, "x").status == "SUCCESS"
    assert seen == [1]
    orchestrator.run(robbed, "x", execution_id="r1")
    orchestrator.run(interrupted, "x")
    orchestrator.run(broken, "x")
    for bad in (None, 7, object()):
        try:
            orchestrator.run(bad, "x")
        except Exception:
            pass
    page = page_of(metrics)
    active = {labels: number for (name, labels), number in samples(page).items() if name == "oao_active_agents"}
    assert set(active.values()) == {0.0}
    assert value(page, "oao_runs_paused_total", status="LOST", agent_type="robbed") == 1
    assert not metrics._open


def test_budgets_show_the_run_that_is_nearest(tmp_path: Path) -> None:
    """While runs are open; when they are over, nothing is left but the whole."""
    metrics = Metrics()
    orchestrator = Orchestrator(Policy(), plugins=[metrics])
    seen: list[str] = []
    both = threading.Barrier(2, timeout=20)

    def agent(task: int) -> None:
        for _ in range(task):
            ask("x")
        both.wait()
        if task == 2:
            seen.append(page_of(metrics))
        both.wait()

    threads = [threading.Thread(target=orchestrator.run, args=(agent, count)) for count in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    of = {"agent_type": "agent"}
    assert value(seen[0], "oao_budget_left_ratio", limit="max_tokens", **of) == pytest.approx(1 - 240 / 1000)
    assert value(seen[0], "oao_budget_left_ratio", limit="max_steps", **of) == pytest.approx(0.8)
    assert 0.5 < (value(seen[0], "oao_budget_left_ratio", limit="timeout_s", **of) or 0) < 1
    assert value(page_of(metrics), "oao_budget_left_ratio", limit="max_tokens", **of) == 1


def test_names_are_bounded() -> None:
    """An agent that invents names fills neither memory nor page; what is no text in UTF-8 does not break it."""
    metrics = Metrics(most_names=5)
    orchestrator = Orchestrator(plugins=[metrics])

    def inventive(task: str) -> None:
        for number in range(20):
            tool(lambda: 1, name=f"tool {number}")()
        tool(lambda: 1, name='"\n\\ \ud800')()

    for number in range(20):
        orchestrator.run(inventive, "x", agent_name=f"agent {number}")
    page = page_of(metrics)
    agents = {dict(labels)["agent_type"] for name, labels in samples(page) if name == "oao_executions_total"}
    tools = {dict(labels)["name"] for name, labels in samples(page) if name == "oao_calls_total"}
    assert agents == {*(f"agent {number}" for number in range(5)), "other"}
    assert tools == {*(f"tool {number}" for number in range(5)), "other"}
    other = {"status": "SUCCESS", "agent_type": "other"}
    assert value(page, "oao_executions_total", **other) == 15
    assert len(metrics._made) == 5
    assert Names().of('"\ud800') == '"?'
    assert len(Names().of("x" * 10_000)) == 120


@pytest.mark.parametrize("tokens", [-5, 10**400, float("nan"), float("inf"), True])
def test_what_a_provider_says_of_tokens_harms_nothing(tokens: Any) -> None:
    """A counter never goes down, and the listener is not muted."""
    metrics = Metrics()

    @model(name="odd")
    def odd(prompt: str) -> dict[str, Any]:
        return {"content": "x", "usage": {"input_tokens": tokens, "output_tokens": 1}}

    def agent(task: str) -> None:
        odd(task)

    orchestrator = Orchestrator(plugins=[metrics])
    orchestrator.run(agent, "x")
    orchestrator.run(agent, "x")
    page = page_of(metrics)
    assert value(page, "oao_active_agents", agent_type="agent") == 0
    ended = [number for (name, _), number in samples(page).items() if name == "oao_executions_total"]
    assert sum(ended) == 2
    assert all(number >= 0 for (name, _), number in samples(page).items() if name == "oao_token_usage_total")


def test_a_run_that_is_over_is_let_go() -> None:
    """Nothing of it is held by the listener."""
    metrics = Metrics()
    seen: list[weakref.ref[object]] = []

    class Watch:
        @hookimpl
        def oao_limits(self, run: RunView) -> Limits:
            seen.append(weakref.ref(run))
            return Limits()

    Orchestrator(Watch(), plugins=[metrics]).run(lambda task: task, "x", agent_name="a")
    gc.collect()
    assert [one() for one in seen] == [None]


def test_answers_are_counted_without_an_observed_store() -> None:
    """Those that the hook tells of; with an observed store each is counted once all the same."""
    from oao_hookspecs import ApprovalRequest, Approve

    class Yes:
        @hookimpl
        def oao_answer_approval(self, request: ApprovalRequest) -> Approve:
            return Approve(by=ME)

    for observed in (False, True):
        metrics = Metrics()
        store = ObservedStore(MemoryStore(), metrics.appended) if observed else MemoryStore()
        report = Orchestrator(Policy(), store, [metrics, Yes()]).run(lambda task: pay(5), "x", agent_name="a")
        assert report.status == "SUCCESS", report.error
        assert value(page_of(metrics), "oao_approvals_answered_total", verdict="approve") == 1


def test_the_table_is_what_the_listener_has() -> None:
    """No metric is counted that the table lacks, and none is listed that nobody counts."""
    registered = {
        f"{one.name}_total" if one.type == "counter" else one.name: one.documentation
        for one in Metrics().registry.collect()
    }
    assert registered == {one.name: one.meaning for one in FAMILIES if not one.scraped}
