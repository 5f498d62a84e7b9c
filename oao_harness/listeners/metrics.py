"""Counts runs for Prometheus: a listener that must be named, `Orchestrator(plugins=[Metrics()])`. It never raises."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Literal, NamedTuple

from oao_harness.errors import ConfigError
from oao_harness.listeners.metrics_labels import MOST, Names
from oao_harness.listeners.metrics_table import LIMITS, family
from oao_hookspecs import (
    ApprovalAnswered,
    ApprovalRequested,
    CallDecided,
    CallFinished,
    CallRetried,
    Json,
    Record,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    RunView,
    ViolationFound,
    hookimpl,
)

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
except ImportError as error:  # pragma: no cover - the environment of the extra alone shows it
    raise ConfigError(
        'the metrics need the package prometheus-client; install it with: pip install "oao-harness[metrics]"'
    ) from error

__all__ = ["Metrics"]

_REFRESH_S: Final = 1.0
"""Seconds for which the gauges of budgets hold at least while runs are at work."""
_MOST_COUNTED: Final = 2**53
"""A counter is a float: beyond this it does not count by one any more."""


class _Made(NamedTuple):
    """The series of one kind of call."""

    ended: Counter
    took: Histogram


@dataclass(slots=True)
class _Open:
    """A run at work."""

    run: RunView
    agent: str
    began: float
    """On the scale of `perf_counter`."""
    outer: bool


class Metrics:
    """Counts what runs do. Runs that play a recording count as nothing but replayed calls.

    ```python
    metrics = Metrics()
    orchestrator = Orchestrator(store=ObservedStore(store, metrics.appended), plugins=[metrics])
    ```

    Args:
        registry: Where the metrics are registered; one of its own by default. Not used in the multiprocess mode of
            prometheus_client, whose files are read by an `Exposition`.
        most_names: Values of one label that are told apart, >= 0; all further ones are `other`.

    Raises:
        ConfigError: `PROMETHEUS_MULTIPROC_DIR` names no folder.
    """

    name = "metrics"

    def __init__(self, registry: CollectorRegistry | None = None, *, most_names: int = MOST) -> None:
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder and not os.path.isdir(folder):
            raise ConfigError(
                f"PROMETHEUS_MULTIPROC_DIR={folder!r} is no folder; make one, empty, before the processes are started"
            )
        self.registry = CollectorRegistry() if registry is None else registry
        self._agents, self._models, self._rules = Names(most_names), Names(most_names), Names(most_names)
        self._called: Mapping[str, Names] = {"tool": Names(most_names), "model": self._models}
        self._executions = self._counter("oao_executions_total")
        self._execution_s = self._histogram("oao_execution_duration_seconds")
        self._active = self._gauge("oao_active_agents", "livesum")
        self._tokens = self._counter("oao_token_usage_total")
        self._cost = self._counter("oao_cost_usd_total")
        self._paused = self._counter("oao_runs_paused_total")
        self._calls = self._counter("oao_calls_total")
        self._call_s = self._histogram("oao_call_duration_seconds")
        replayed, retries = self._counter("oao_replayed_calls_total"), self._counter("oao_retries_total")
        self._replayed = {kind: replayed.labels(kind) for kind in ("model", "tool")}
        self._call_retries, self._job_retries = retries.labels("call"), retries.labels("job")
        self._decisions = self._counter("oao_decisions_total")
        self._violations = self._counter("oao_violations_total")
        self._asked = self._counter("oao_approvals_requested_total")
        answered = self._counter("oao_approvals_answered_total")
        self._answered = {verdict: answered.labels(verdict) for verdict in ("approve", "reject")}
        self._left = self._gauge("oao_budget_left_ratio", "livemin")
        self._append_s = self._histogram("oao_journal_append_seconds")
        self._wait_s = self._histogram("oao_job_wait_seconds")
        self._open: dict[int, _Open] = {}
        self._hears_appends = False
        # `labels` looks up what a dict finds in a tenth of the time.
        self._made: dict[tuple[str, str, bool], _Made] = {}
        self._used: dict[tuple[str, str], tuple[Counter, Counter]] = {}
        self._judged: dict[tuple[str, str], Counter] = {}
        self._lefts: dict[tuple[str, str], Gauge] = {}
        self._refreshing = threading.Lock()
        self._refreshed = 0.0

    def _counter(self, name: str) -> Counter:
        one = family(name)
        return Counter(one.name, one.meaning, one.labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        one = family(name)
        return Histogram(one.name, one.meaning, one.labels, buckets=one.buckets, registry=self.registry)

    def _gauge(self, name: str, mode: Literal["livesum", "livemin"]) -> Gauge:
        one = family(name)
        return Gauge(one.name, one.meaning, one.labels, multiprocess_mode=mode, registry=self.registry)

    # Runs

    @hookimpl
    def oao_run_started(self, event: RunStarted, run: RunView) -> None:
        """Count a run as being at work; one that plays a recording is not."""
        if event.replayed:
            return
        agent = self._begin(event, run)
        if event.waited_s is not None:
            self._wait_s.labels(agent).observe(max(0.0, event.waited_s))

    @hookimpl
    def oao_run_resumed(self, event: RunResumed, run: RunView) -> None:
        """Count a run as being at work again."""
        self._begin(event, run)

    @hookimpl
    def oao_run_paused(self, event: RunPaused, run: RunView) -> None:
        """Count a run as put down."""
        opened = self._end(run)
        if opened is not None:
            self._paused.labels(event.status, opened.agent).inc()

    @hookimpl
    def oao_run_finished(self, event: RunFinished, run: RunView) -> None:
        """Count a run as over: once, whatever process it began in."""
        opened = self._end(run)
        if opened is None:
            return
        self._executions.labels(event.status, opened.agent).inc()
        self._execution_s.labels(opened.agent).observe(perf_counter() - opened.began)
        cost = event.totals.get("cost_usd")
        if opened.outer and isinstance(cost, int | float):
            self._cost.labels(opened.agent).inc(_amount(cost))

    def _begin(self, event: RunStarted | RunResumed, run: RunView) -> str:
        agent = self._agents.of(event.agent_name)
        # By the run and not by its id: one that was lost to somebody in this very process may end after it was resumed.
        self._open[id(run)] = _Open(run, agent, perf_counter(), event.parent is None)
        self._active.labels(agent).inc()
        return agent

    def _end(self, run: RunView) -> _Open | None:
        opened = self._open.pop(id(run), None)
        if opened is not None:
            self._active.labels(opened.agent).dec()
            if not self._open or perf_counter() - self._refreshed > _REFRESH_S:
                self.refresh()
        return opened

    # Calls

    @hookimpl
    def oao_call_decided(self, event: CallDecided, run: RunView) -> None:
        """Count a decision."""
        if run.replaying:
            return
        key = event.call.kind, event.decision.verdict
        judged = self._judged.get(key)
        if judged is None:
            judged = self._judged[key] = self._decisions.labels(*key)
        judged.inc()

    @hookimpl
    def oao_call_retried(self, event: CallRetried) -> None:
        """Count a try that failed."""
        self._call_retries.inc()

    @hookimpl
    def oao_call_finished(self, event: CallFinished, run: RunView) -> None:
        """Count a call, and what it cost."""
        call, outcome = event.call, event.outcome
        if outcome.replayed:
            self._replayed[call.kind].inc()
            return
        made = self._made.get((call.kind, call.name, outcome.error is None)) or self._call(
            call.kind, call.name, ok=outcome.error is None
        )
        made.ended.inc()
        made.took.observe(outcome.duration_s)
        if outcome.usage is not None:
            sent, received = self._used.get((run.agent_name, call.name)) or self._use(run.agent_name, call.name)
            sent.inc(_amount(outcome.usage.input_tokens))
            received.inc(_amount(outcome.usage.output_tokens))
        if perf_counter() - self._refreshed > _REFRESH_S:
            self.refresh()

    def _call(self, kind: str, name: str, *, ok: bool) -> _Made:
        label = self._called[kind].of(name)
        made = _Made(self._calls.labels(kind, label, "ok" if ok else "error"), self._call_s.labels(kind, label))
        if label == name:
            self._made[kind, name, ok] = made
        return made

    def _use(self, agent_name: str, model: str) -> tuple[Counter, Counter]:
        agent, label = self._agents.of(agent_name), self._models.of(model)
        used = self._tokens.labels(agent, label, "in"), self._tokens.labels(agent, label, "out")
        if (agent, label) == (agent_name, model):
            self._used[agent, label] = used
        return used

    # Policies and people

    @hookimpl
    def oao_violation(self, event: ViolationFound, run: RunView) -> None:
        """Count a violation."""
        if not run.replaying:
            self._violations.labels(self._rules.of(event.rule)).inc()

    @hookimpl
    def oao_approval_requested(self, event: ApprovalRequested, run: RunView) -> None:
        """Count a question."""
        if not run.replaying:
            self._asked.labels(self._rules.of(event.request.rule)).inc()

    @hookimpl
    def oao_approval_answered(self, event: ApprovalAnswered, run: RunView) -> None:
        """Count an answer that was given at once, unless `appended` hears of it."""
        if not (run.replaying or self._hears_appends):
            self._answered[event.answer.verdict].inc()

    # Journals

    def appended(self, execution_id: str, records: Sequence[Record], took_s: float) -> None:
        """Hear what a store has kept: for `ObservedStore`.

        Answers of people, retries of jobs, and runs that are cancelled while nobody is at work on them, are counted
        here.

        Args:
            execution_id: The run.
            records: What was appended.
            took_s: Seconds that took.
        """
        self._hears_appends = True
        self._append_s.observe(took_s)
        for record in records:
            type_ = record["type"]
            if type_ == "approval.answered":
                answered = self._answered.get(str(record.get("verdict")))
                if answered is not None:
                    answered.inc()
            elif type_ == "run.queued" and "attempt" in record:
                self._job_retries.inc()
            elif type_ == "run.finished" and "agent" in record:
                # Cancelled while nobody was at work on it.
                self._executions.labels(str(record["status"]), self._agents.of(str(record["agent"]))).inc()
                self._violations.labels(self._rules.of(str(record["rule"]))).inc()

    # Budgets

    def refresh(self) -> None:
        """Say anew what the open runs have left of their budgets; called by an `Exposition` before each scrape."""
        with self._refreshing:
            now = self._refreshed = perf_counter()
            least: dict[tuple[str, str], float] = {}
            for opened in list(self._open.values()):
                for limit, left in _left_of(opened.run, now - opened.began).items():
                    key = opened.agent, limit
                    least[key] = min(left, least.get(key, 1.0))
            for key in least.keys() - self._lefts.keys():
                self._lefts[key] = self._left.labels(*key)
            for key, gauge in self._lefts.items():
                # A series cannot be taken back where processes share files; 1 is no bound on anybody else's.
                gauge.set(least.get(key, 1.0))


def _left_of(run: RunView, ran_s: float) -> dict[str, float]:
    """Return the part that a run has left of each limit it has, 0 to 1."""
    limits, left = run.limits, dict[str, float]()
    for limit, spent in LIMITS:
        most = getattr(limits, limit)
        if most is not None:
            left[limit] = _part(getattr(run, spent), most)
    if limits.timeout_s is not None:
        left["timeout_s"] = _part(ran_s, limits.timeout_s)
    return left


def _part(spent: float, most: float) -> float:
    return max(0.0, 1.0 - spent / most) if most > 0 else 0.0


def _amount(number: Json) -> float:
    """Return what can be counted: a provider may say anything of its tokens."""
    if not isinstance(number, int | float) or not number > 0:
        return 0
    return min(number, _MOST_COUNTED)
