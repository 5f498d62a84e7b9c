"""The metrics of oao as a table: name, type, labels, meaning. What is exposed, documented and tested is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["FAMILIES", "LIMITS", "Family", "family"]

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

# Source: agents answer in a second where a model is asked once, and in tens of minutes where they research.
_RUN_S: Final = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)
# A tool may be a dict look-up, a model that thinks takes minutes.
_CALL_S: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_WAIT_S: Final = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)
# From a dict in memory to a disk or a server that is in trouble.
_APPEND_S: Final = (0.00001, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)

LIMITS: Final = (
    ("max_steps", "steps"),
    ("max_model_calls", "model_calls"),
    ("max_tool_calls", "tool_calls"),
    ("max_tokens", "total_tokens"),
    ("max_input_tokens", "input_tokens"),
    ("max_output_tokens", "output_tokens"),
    ("max_cost_usd", "cost_usd"),
)
"""Limits of a run, and what of a `RunView` they limit; `timeout_s` limits time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric."""

    name: str
    """As it is exposed: that of a counter ends with `_total`."""
    kind: Kind
    labels: tuple[str, ...] = ()
    meaning: str
    """Its help text."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, without infinity."""
    scraped: bool = False
    """True where it is asked of store or queue when somebody scrapes, and not counted by the listener."""


FAMILIES: Final = (
    Family(
        name="oao_executions_total",
        kind="counter",
        labels=("status", "agent_type"),
        meaning="Runs that are over, by how they ended: SUCCESS or FAILED. A nested run counts for its own agent.",
    ),
    Family(
        name="oao_execution_duration_seconds",
        kind="histogram",
        labels=("agent_type",),
        meaning="Time at work of runs that are over, since they began or last went on in the process that ended them.",
        buckets=_RUN_S,
    ),
    Family(
        name="oao_active_agents",
        kind="gauge",
        labels=("agent_type",),
        meaning="Runs at work now, nested ones included; one that waits for a person or a worker is not.",
    ),
    Family(
        name="oao_token_usage_total",
        kind="counter",
        labels=("agent_type", "model", "direction"),
        meaning="Tokens of model calls, each counted once, for the run that made the call; direction in or out.",
    ),
    Family(
        name="oao_queue_size",
        kind="gauge",
        labels=("state",),
        meaning="Jobs in the queue: queued, delayed or running.",
        scraped=True,
    ),
    Family(
        name="oao_cost_usd_total",
        kind="counter",
        labels=("agent_type",),
        meaning="Money spent by outermost runs that are over, with all nested in them, in US dollars, where prices are "
        "known; added when the run is over.",
    ),
    Family(
        name="oao_runs_paused_total",
        kind="counter",
        labels=("status", "agent_type"),
        meaning="Times that a run was put down: SUSPENDED, QUEUED, DEAD or LOST.",
    ),
    Family(
        name="oao_calls_total",
        kind="counter",
        labels=("kind", "name", "outcome"),
        meaning="Model and tool calls that were made and ended, by how: ok or error.",
    ),
    Family(
        name="oao_call_duration_seconds",
        kind="histogram",
        labels=("kind", "name"),
        meaning="Time from the decision about a call to its outcome, its retries included.",
        buckets=_CALL_S,
    ),
    Family(
        name="oao_replayed_calls_total",
        kind="counter",
        labels=("kind",),
        meaning="Calls that were answered from a recording or a journal; nothing happened, nothing was spent.",
    ),
    Family(
        name="oao_retries_total",
        kind="counter",
        labels=("of",),
        meaning="Failed tries that are made again: of a call, or of a job.",
    ),
    Family(
        name="oao_decisions_total",
        kind="counter",
        labels=("kind", "verdict"),
        meaning="Decisions about calls: allow, modify, ask or deny.",
    ),
    Family(
        name="oao_violations_total",
        kind="counter",
        labels=("rule",),
        meaning="Runs that a policy, a budget or oao itself stopped, by rule.",
    ),
    Family(
        name="oao_approvals_requested_total",
        kind="counter",
        labels=("rule",),
        meaning="Questions that were put to a person.",
    ),
    Family(
        name="oao_approvals_answered_total",
        kind="counter",
        labels=("verdict",),
        meaning="Answers that were written by this process: approve or reject.",
    ),
    Family(
        name="oao_approvals_pending",
        kind="gauge",
        meaning="Questions of suspended runs that nobody has answered.",
        scraped=True,
    ),
    Family(
        name="oao_approvals_oldest_age_seconds",
        kind="gauge",
        meaning="Age of the oldest question that nobody has answered; 0 where there is none.",
        scraped=True,
    ),
    Family(
        name="oao_budget_left_ratio",
        kind="gauge",
        labels=("agent_type", "limit"),
        meaning="What the open run that is nearest to a limit has left of it, 0 to 1; 1 where no such run is open.",
    ),
    Family(
        name="oao_journal_append_seconds",
        kind="histogram",
        meaning="Time until the store had kept what was appended to a journal.",
        buckets=_APPEND_S,
    ),
    Family(
        name="oao_job_wait_seconds",
        kind="histogram",
        labels=("agent_type",),
        meaning="Time that a job waited for its first worker.",
        buckets=_WAIT_S,
    ),
    Family(
        name="oao_workers",
        kind="gauge",
        meaning="Workers that were heard of lately.",
        scraped=True,
    ),
    Family(
        name="oao_dead_letters",
        kind="gauge",
        meaning="Jobs that nobody does any more: they failed too often, or ended too many workers.",
        scraped=True,
    ),
    Family(
        name="oao_scrape_up",
        kind="gauge",
        labels=("source",),
        meaning="1 where store, queue and processes could be asked for this scrape; 0: what they would say is missing.",
        scraped=True,
    ),
)


def family(name: str) -> Family:
    """Return one metric.

    Args:
        name: As it is exposed.
    """
    return next(one for one in FAMILIES if one.name == name)
