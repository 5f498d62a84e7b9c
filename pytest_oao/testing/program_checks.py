"""What must be true of every trial, told from the bodies that ran and the journals alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias, cast

from oao_hookspecs import Record
from pytest_oao.testing.program_agents import Ended, Started, Written
from pytest_oao.testing.program_rules import Rules, breaches, forbidden
from pytest_oao.testing.program_trials import Trial
from pytest_oao.testing.programs import Body, CallModel

__all__ = [
    "ALWAYS",
    "beside_each_other",
    "calls_of",
    "every_body_was_written_first",
    "journals_are_whole",
    "key_of_body",
    "key_of_call",
    "leaves",
    "no_limit_is_exceeded",
    "no_member_of_a_refused_batch_ran",
    "nothing_forbidden_ran",
    "nothing_was_swallowed",
    "rules_of",
    "shown",
    "totals_of",
]

Key: TypeAlias = tuple[str, str, str, str]
"""Run, kind, name, and argument or prompt."""


def rules_of(trial: Trial, runs: Sequence[str]) -> list[Rules]:
    """Return the rules that hold for a body: its own run's, and those of the run that this is nested in."""
    return [trial.rules] if len(runs) == 1 else [trial.inner_rules, trial.rules]


def key_of_body(body: Body) -> Key:
    """Return what tells a body from others, as `key_of_call` does for its call."""
    return (body.runs[-1], body.kind, body.name, body.value)


def key_of_call(run: str, record: Mapping[str, Any]) -> Key:
    """Return what tells a journaled call from others."""
    req = record["req"]
    value = req["messages"][0]["content"] if record["kind"] == "model" else req["value"]
    return (run, record["kind"], record["name"], value)


def no_limit_is_exceeded(trial: Trial) -> None:
    """Fail where the bodies that ran are more than a limit of their run allows."""
    ran = trial.executed
    for run in {name for body in ran for name in body.runs}:
        limits = (trial.rules if run == "main" else trial.inner_rules).limits
        found = breaches(limits, [body for body in ran if run in body.runs])
        assert not found, f"{run}: {found}"


def nothing_forbidden_ran(trial: Trial) -> None:
    """Fail where a body ran that the rules deny or hold."""
    for body in trial.executed:
        assert not forbidden(rules_of(trial, body.runs), body.kind, body.name, body.value), f"{body} ran"


def no_member_of_a_refused_batch_ran(trial: Trial) -> None:
    """Fail where a sibling of a refused call ran."""
    for body in trial.executed:
        if not body.batch:
            continue
        op = trial.program.ops[int(re.split(r"[/]", body.batch)[-1].partition("~")[0])]
        assert isinstance(op, CallModel)
        rules = rules_of(trial, body.runs)
        refused = [one for one in op.batch if forbidden(rules, "tool", one.name, one.value)]
        assert not refused, f"{body} ran, and its siblings {refused} must not"


def every_body_was_written_first(trial: Trial) -> None:
    """Fail where a body ran before its call was written, or after the first halt."""
    names: dict[str, str] = {}
    open_calls: dict[tuple[str, int], Key] = {}
    allowed: Counter[Key] = Counter()
    started: Counter[Key] = Counter()
    halted: set[str] = set()
    frozen: Counter[Key] = Counter()
    """Calls allowed after a halt of a run of their lineage."""
    for event in trial.events:
        if isinstance(event, Started):
            key = key_of_body(event.body)
            started[key] += 1
            assert started[key] <= allowed[key], f"{event.body} ran before its call was written"
        elif isinstance(event, Written):
            record: Mapping[str, Any] = event.record
            if record["type"] == "run.started":
                names[event.execution_id] = record["agent"]
            run = names[event.execution_id]
            if record["type"] == "violation":
                halted.add(run)
            elif record["type"] == "call" and record["decision"]["verdict"] != "deny":
                key = key_of_call(run, record)
                open_calls[event.execution_id, record["n"]] = key
                allowed[key] += 1
                over = any(run == one or run.startswith(f"{one}/") for one in halted)
                frozen[key] += over
            elif record["type"] == "outcome" and record.get("abandoned"):
                key = open_calls[event.execution_id, record["n"]]
                allowed[key] -= 1
                frozen[key] = max(0, frozen[key] - 1)
                assert started[key] <= allowed[key], f"{key} ran, and its call says that it never did"
    assert not +frozen, f"{+frozen} were let through after the run was halted"
    assert started == +allowed, f"allowed and never made: {allowed - started}"


def journals_are_whole(trial: Trial) -> None:
    """Fail where a number is missing, a call has not its one outcome, or a parent is not there."""
    ended = any(isinstance(event, Ended) for event in trial.events)
    for id_, records in trial.journals().items():
        assert [record["seq"] for record in records] == list(range(1, len(records) + 1)), id_
        calls: dict[Any, Mapping[str, Any]] = {}
        outcomes: Counter[Any] = Counter()
        for record in records:
            if record["type"] == "call":
                assert record["n"] not in calls, f"call {record['n']} is written twice"
                parent = record.get("parent")
                assert parent is None or parent in calls, f"call {record['n']} names {parent}, which is not there"
                calls[record["n"]] = record
            elif record["type"] == "outcome":
                assert record["n"] in calls, f"outcome of {record['n']} without a call"
                outcomes[record["n"]] += 1
            elif record["type"] == "child":
                assert record.get("n") is None or record["n"] in calls
        last = records[-1]["type"]
        finished = [record for record in records if record["type"] == "run.finished"]
        assert len(finished) == (last != "run.suspended"), [record["type"] for record in records]
        for n, call in calls.items():
            verdict = call["decision"]["verdict"]
            assert verdict in {"allow", "modify", "deny", "ask"}
            wanted = {0} if verdict == "deny" else {1} if finished else {0, 1}
            assert outcomes[n] in wanted, f"call {n}: {outcomes[n]} outcomes"
    assert ended or not trial.executed


def nothing_was_swallowed(trial: Trial) -> None:
    """Fail where a run with a denial did not fail, or does not name it."""
    report = trial.report
    for records in trial.journals().values():
        run = str(records[0]["agent"])
        denied = [one for one in records if one["type"] == "call" and one["decision"]["verdict"] == "deny"]  # type: ignore[index,call-overload]
        violations = [one for one in records if one["type"] == "violation"]
        assert len(violations) <= 1
        suspended = any(one["type"] == "run.suspended" for one in records)
        if (denied and not suspended) or violations:
            assert violations
            last: Mapping[str, Any] = records[-1]
            assert (last["type"], last["status"]) == ("run.finished", "FAILED"), last
            if run == "main":
                assert report.status == "FAILED"
                assert report.violation is not None
                assert report.violation["rule"] == violations[0]["rule"]
        # What only the outer run forbids halts the outer run, wherever it is asked for.
        for one in denied:
            _, kind, name, value = key_of_call(run, one)
            if trial.rules.denies(kind, name, value) and not trial.inner_rules.denies(kind, name, value):
                assert report.status in {"FAILED", "SUSPENDED"}, one
    if report.status == "FAILED":
        assert report.error
    else:
        assert report.violation is None


def shown(records: Iterable[Record]) -> list[Any]:
    """Return a journal without what differs between two equal runs."""
    found: list[Any] = []
    for record in records:
        fields: dict[str, Any] = {
            key: value
            for key, value in record.items()
            if key
            not in {"at", "duration_s", "hash", "execution_id", "id", "requested_at", "expires_at", "parent_call"}
        }
        if record["type"] == "run.started":
            fields.pop("parent", None)
        fields.pop("approvals", None)
        if "reason" in fields:
            fields["reason"] = re.sub(r"run [0-9a-f-]{36}", "run ID", str(fields["reason"]))
        found.append(fields)
    return found


def calls_of(trial: Trial) -> Counter[tuple[Any, ...]]:
    """Return the calls of the newest journals: run, kind, name, request, verdict; without those never made."""
    found: Counter[tuple[Any, ...]] = Counter()
    for records in trial.journals().values():
        run = str(records[0]["agent"])
        given_up = {cast("int", one["n"]) for one in records if one["type"] == "outcome" and one.get("abandoned")}
        for one in records:
            if one["type"] == "call" and one["n"] not in given_up:
                decision: Any = one["decision"]
                found[(*key_of_call(run, one), decision["verdict"])] += 1
    return found


def totals_of(trial: Trial) -> dict[str, Any]:
    """Return what the report says that a run came to."""
    report = trial.report
    return {
        "status": report.status,
        "tokens": (report.input_tokens, report.output_tokens),
        "cost": report.cost_usd,
        "models": report.model_calls,
        "tools": dict(sorted(report.tool_usage.items())),
        "steps": report.total_steps,
        "output": report.final_output,
        "rule": report.violation["rule"] if report.violation else None,
    }


def leaves(bodies: Iterable[Body]) -> Counter[tuple[Any, ...]]:
    """Return how often each body ran, without those that are entered again because a call inside of them waited."""
    return Counter((key_of_body(body), body.place) for body in bodies if body.name != "delegate")


ALWAYS: Final = (
    no_limit_is_exceeded,
    nothing_forbidden_ran,
    no_member_of_a_refused_batch_ran,
    every_body_was_written_first,
    journals_are_whole,
    nothing_was_swallowed,
)
"""The checks that hold for every program under any rules."""


def beside_each_other(jobs: Sequence[Callable[[], object]]) -> None:
    """Do jobs in threads, and raise what one of them raised."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()
