"""`oao policy`: check a policy file before it is used, and see what recorded runs have exercised of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import clean, console, one_line, print_json, symbol
from oao_harness.cli.policy_diff import command as diff
from oao_harness.cli.render import Column, print_columns
from oao_harness.cli.stores import DEFAULT_STORE, find_run, kept, open_store, store_option
from oao_harness.cli.tools_of import tools_of
from oao_harness.cli.units import count, plural
from oao_harness.errors import UsageError
from oao_harness.journal.recording import Recording
from oao_harness.journal.records import error_to_json, usage_to_json
from oao_harness.loading import load_agent, prefer_working_folder
from oao_harness.policy.coverage import Coverage, coverage_of
from oao_harness.policy.file import FilePolicy, load_policy
from oao_harness.policy.lint import Finding, lint
from oao_harness.policy.ruleset import Ruleset
from oao_hookspecs import Json, Record

__all__ = ["command"]

_LEVELS: Final = {"error": "bold red", "warning": "yellow"}
_NEWEST: Final = 1000
_RULES: Final = (
    Column(title="line", right=True),
    Column(title="kind"),
    Column(title="name"),
    Column(title="about", shrinks=True, wraps=True),
    Column(title="then"),
)
_COVERED: Final = (
    Column(title="line", right=True),
    Column(title="kind"),
    Column(title="name", shrinks=True),
    Column(title="asked", right=True),
    Column(title="matched", right=True),
    Column(title="stopped", right=True),
    Column(title=""),
)


@click.group("policy", short_help="Check a policy; see what another one would change.")
def command() -> None:
    """Check a policy file; see what recorded runs exercised of it, and what another policy would change.

    \b
    Examples:
      oao policy check policy.toml
      oao policy check policy.toml --tools get_balance,send_money
      oao policy coverage policy.toml
      oao policy diff --from policy.toml --to stricter.toml all
    """  # noqa: D301 - click reads the control character as "do not wrap"


command.add_command(diff)


@command.command("check", short_help="Load a policy file, show its rules, and point at what is suspicious.")
@click.argument("file", type=click.Path())
@click.option("--tools", metavar="A,B,C", help="Names of the tools that there are, to find names that are none.")
@click.option("--agent", metavar="MODULE:AGENT", help="An agent whose tools these are, as far as they can be listed.")
@click.option("--strict", is_flag=True, help="Fail for warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@click.pass_context
def check(ctx: click.Context, *, file: str, tools: str | None, agent: str | None, strict: bool, as_json: bool) -> None:
    """Load a policy file, show its limits and rules, and point at what is suspicious.

    FILE is a policy in TOML, or a pyproject.toml with [tool.oao.policy]. Nothing of the agent is run. Exit code: 0
    where nothing is wrong, 1 where something is (with --strict: or suspicious), 2 where the file cannot be loaded.

    \b
    Examples:
      oao policy check policy.toml
      oao policy check policy.toml --tools get_balance,send_money --strict
      oao policy check policy.toml --agent my_agents:graph --json
    """  # noqa: D301 - click reads the control character as "do not wrap"
    policy = load_policy(file)
    findings = lint(policy, _known_tools(tools, agent))
    failed = any(one.level == "error" or strict for one in findings)
    if as_json:
        print_json(_checked_json(policy, findings), indent=2)
    else:
        on = console()
        _print_policy(on, policy)
        _print_findings(on, findings)
    ctx.exit(1 if failed else 0)


@command.command("coverage", short_help="Show which rules recorded runs have exercised.")
@click.argument("file", type=click.Path())
@click.argument("runs", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@click.option("--fail-under", type=click.FloatRange(0, 100), metavar="N", help="Exit 1 below N percent.")
@store_option
@click.pass_context
def coverage(
    ctx: click.Context, *, file: str, runs: Sequence[str], as_json: bool, fail_under: float | None, store: str
) -> None:
    """Show which rules of a policy file recorded runs have exercised, and which tools ran under no rule.

    RUNS are ids of journaled runs, `last`, or recordings of tests (*.json); by default all runs of the store. Each
    recorded call is judged again by the file as it is now; nothing is run.

    \b
    Examples:
      oao policy coverage policy.toml
      oao policy coverage policy.toml last
      oao policy coverage policy.toml tests/recordings/*/*.json --fail-under 80
    """  # noqa: D301 - click reads the control character as "do not wrap"
    policy = load_policy(file)
    covered = coverage_of(policy, _journals(runs, store))
    if as_json:
        print_json(covered.to_json(), indent=2)
    else:
        _print_coverage(console(), policy, covered)
    ctx.exit(1 if fail_under is not None and covered.percent < fail_under else 0)


# check


def _known_tools(tools: str | None, agent: str | None) -> list[str] | None:
    if tools is None and agent is None:
        return None
    known = [name.strip() for name in (tools or "").split(",") if name.strip()]
    if agent is not None:
        prefer_working_folder()
        found = tools_of(load_agent(agent))
        if not found:
            raise UsageError(f"the tools of {agent!r} cannot be listed; name them with --tools A,B,C")
        known += found
    return known


def _print_policy(on: Console, policy: FilePolicy) -> None:
    document = policy.document
    on.print(Text(f" {one_line(policy.name)}", style="bold"))
    head = [("file", policy.source.name), ("mode", policy.mode)]
    if document.extends is not None:
        head.append(("extends", document.extends))
    limits = ", ".join(f"{name} {value}" for name, value in _limits_json(policy).items())
    head.append(("limits", limits or "none"))
    for label, value in head:
        on.print(Text.assemble((f" {label:<8}", "dim"), one_line(value)), soft_wrap=True)
    rows = _rows(policy.rules)
    if rows:
        on.print()
        print_columns(on, _RULES, [[Text(clean(str(cell))) for cell in row] for row in rows])


def _rows(rules: Ruleset) -> list[tuple[str, str, str, str, str]]:
    """Return line, kind, name, what it is about, and what follows, for each rule in the order of the file."""
    found: list[tuple[str, str, str, str, str]] = []
    for lists, then in ((rules.deny, "deny"), (rules.allow, "allow"), (rules.ask, "ask")):
        found += [
            (one.items[i].source, "tools", pattern, "", then)
            for one in lists
            for i, pattern in enumerate(one.names.patterns)
        ]
    for rule in rules.rules:
        names = [*(rule.tools.patterns if rule.tools else ()), *(rule.models.patterns if rule.models else ())]
        needs = [key for key, there in (("require", rule.require), ("values_from", rule.values_from)) if there]
        needs += ["roles"] if rule.roles else []
        then = rule.then or f"{rule.otherwise} unless {' and '.join(needs)}"
        found.append((rule.item.source, "rule", rule.item.name, ", ".join(names), then))
    for one in rules.sequences:
        first, second = ", ".join(one.rule.first.patterns), ", ".join(one.rule.second.patterns)
        about = {
            "never": f"no {second} after {first}",
            "only": f"{second} only after {first}",
            "at_most": f"{first} at most {one.rule.limit}",
        }[one.rule.form]
        found.append((one.item.source, "sequence", one.item.name, about, one.then))
    found += [(one.item.source, "label", one.item.name, ", ".join(one.tools.patterns), "") for one in rules.labels]
    for role in rules.roles:
        about = ", ".join([*role.agents.patterns, *role.tools.patterns])
        then = f"approves {', '.join(role.approve.patterns)}" if role.approve.patterns else ""
        found.append((role.item.source, "role", role.item.name, about, then))
    files = {source.rpartition(":")[0] for source, *_ in found}
    found.sort(key=lambda row: (row[0].rpartition(":")[0], int(row[0].rpartition(":")[2])))
    # Where a file extends another one, the line alone does not say which.
    return [(row[0] if len(files) > 1 else row[0].rpartition(":")[2], *row[1:]) for row in found]


def _print_findings(on: Console, findings: Sequence[Finding]) -> None:
    on.print()
    if not findings:
        on.print(Text.assemble((f" {symbol(on, '✔')} ", "green"), "nothing suspicious"))
        return
    for one in findings:
        where = f"{one.where}: " if one.where else ""
        line = Text.assemble(
            (f" {one.level:<8}", _LEVELS[one.level]), (f"{one.source}: ", "bold"), clean(where + one.message)
        )
        on.print(line, soft_wrap=True)
    errors = sum(one.level == "error" for one in findings)
    on.print()
    on.print(Text(f" {plural(errors, 'error')}, {plural(len(findings) - errors, 'warning')}", style="dim"))


def _limits_json(policy: FilePolicy) -> dict[str, Json]:
    limits = policy.limits
    found: dict[str, Json] = {
        name: getattr(limits, name)
        for name in (
            "max_steps", "max_model_calls", "max_tool_calls", "max_tokens", "max_input_tokens", "max_output_tokens",
            "max_cost_usd", "timeout_s", "call_timeout_s", "assumed_output_tokens",
        )
        if getattr(limits, name) is not None
    }  # fmt: skip
    if limits.retry is not None:
        found["max_retries"] = limits.retry.max_retries
    if limits.require_governed:
        found["require_governed"] = True
    found |= {f"{tool} at most": most for tool, most in limits.tool_limits.items()}
    return found


def _checked_json(policy: FilePolicy, findings: Sequence[Finding]) -> dict[str, Json]:
    rules: list[Json] = [
        dict(zip(("line", "kind", "name", "about", "then"), row, strict=True)) for row in _rows(policy.rules)
    ]
    found: list[Json] = [
        {"level": one.level, "line": one.line, "source": one.source, "where": one.where, "message": one.message}
        for one in findings
    ]
    return {
        "name": policy.name, "file": policy.source.name, "mode": policy.mode, "digest": policy.digest,
        "limits": _limits_json(policy), "rules": rules, "findings": found,
    }  # fmt: skip


# coverage


def _journals(runs: Sequence[str], store: str) -> Iterable[Iterable[Record]]:
    files = [run for run in runs if run.endswith((".json", ".jsonl"))]
    for file in files:
        yield _records_in(file)
    ids = [run for run in runs if run not in files]
    if runs and not ids:
        return
    if not kept(store):
        raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
    with open_store(store) as opened:
        for run in ids or [summary.execution_id for summary in opened.runs(limit=_NEWEST)]:
            yield find_run(opened, run)


def _records_in(file: str) -> list[Record]:
    """Return the records of a recording, or of what `oao show --json` printed."""
    if file.endswith(".jsonl"):
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
            return [cast("Record", json.loads(line)) for line in lines if line.strip()]
        except (OSError, ValueError) as error:
            raise UsageError(f"{file!r} cannot be read: {error}; give a recording, or the id of a run") from error
    recording = Recording.load(file)
    records: list[Record] = [{"type": "run.started", "agent": recording.events[0].run if recording.events else ""}]
    moments: list[tuple[int, dict[str, Json]]] = []
    for n, event in enumerate(recording.events, start=1):
        asked: dict[str, Any] = {
            "type": "call", "n": n, "kind": event.kind, "name": event.name, "req": event.request,
            "call_id": event.call_id,
        }  # fmt: skip
        moments.append((event.start, asked))
        if event.finished:
            ended: dict[str, Json] = {"type": "outcome", "n": n, "res": event.value}
            if event.error is not None:
                ended["error"] = error_to_json(event.error)
            if event.usage is not None:
                ended["usage"] = usage_to_json(event.usage)
            moments.append((event.end, ended))
    return [*records, *(record for _, record in sorted(moments, key=lambda one: one[0]))]


def _print_coverage(on: Console, policy: FilePolicy, covered: Coverage) -> None:
    on.print(Text(f" {one_line(policy.source.name)}", style="bold"))
    on.print(Text(f" {plural(covered.runs, 'run')}, {plural(covered.calls, 'call')}", style="dim"))
    on.print()
    several = len({one.item.source.rpartition(":")[0] for one in covered.items}) > 1
    rows = [
        [
            Text(one.item.source if several else one.item.source.rpartition(":")[2]),
            Text(one.item.kind),
            Text(clean(one.item.name)),
            *(Text(count(number)) for number in (one.asked, one.matched, one.stopped)),
            Text("" if one.matched else "never matched", style="red"),
        ]
        for one in covered.items
    ]
    if rows:
        print_columns(on, _COVERED, rows)
        on.print()
    on.print(f" {covered.matched} of {plural(len(covered.items), 'rule')} matched: {covered.percent:.0f} %")
    if covered.missing:
        lines = ", ".join(one.item.source.rpartition(":")[2] for one in covered.missing)
        on.print(Text(f" missing lines: {lines}", style="red"), soft_wrap=True)
    if covered.unruled:
        tools = ", ".join(f"{tool} ({count(calls)})" for tool, calls in sorted(covered.unruled.items()))
        on.print(Text(f" under no rule: {clean(tools)}", style="yellow"), soft_wrap=True)
    if not covered.runs:
        on.print(Text(f" no run is journaled in {DEFAULT_STORE} yet", style="dim"))
