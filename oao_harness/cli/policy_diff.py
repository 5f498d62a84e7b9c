"""`oao policy diff`: judges recorded calls again under two policies and shows what changes; runs nothing."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from oao_harness.cli.console import clean, console, one_line, print_error, print_json, print_paragraph, symbol
from oao_harness.cli.histories import Source, sources_of, wants_store
from oao_harness.cli.render import VERDICT_STYLES, Column, print_columns
from oao_harness.cli.stores import kept, open_store, store_option
from oao_harness.cli.units import count, plural
from oao_harness.errors import RecordingError, StoreError, UsageError
from oao_harness.importing.forms import UnknownFormError
from oao_harness.journal.histories import History
from oao_harness.loading import import_policies, prefer_working_folder
from oao_harness.policy.diff import CHANGES, JudgedRun, PolicyDiff, Row
from oao_harness.runtime.preparing import prepare
from oao_harness.runtime.rejudging import NOT_JUDGED, Rejudge
from oao_hookspecs import Decision, Json

__all__ = ["command"]

_TITLES: Final[Mapping[str, str]] = {
    "denied": "newly denied",
    "allowed": "newly allowed",
    "asked": "now to approve",
    "released": "no longer to approve",
    "modified": "modified otherwise",
}
_STYLES: Final[Mapping[str, str]] = {
    "denied": "red",
    "allowed": "green",
    "asked": "yellow",
    "released": "green",
    "modified": "yellow",
}
_CALLS: Final = (
    Column(title="run", shrinks=True, keeps_end=True),
    Column(title="call", right=True),
    Column(title="name", shrinks=True),
    Column(title="from"),
    Column(title="to"),
    Column(title="rule", optional=True),
)
_SHOWN: Final = 10
_MADE_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LONGEST: Final = 40
_LONGEST_WHERE_NARROW: Final = 24
_NARROW: Final = 100


@dataclass(slots=True)
class _Read:
    """What became of the files and runs that were named."""

    errors: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    others: Counter[str] = field(default_factory=Counter[str])
    """Runs of agents that were not asked for, by agent."""
    notes: Counter[str] = field(default_factory=Counter[str])
    noted: set[str] = field(default_factory=set[str])
    """Recordings whose notes were counted."""
    """What is not recorded, and of how many runs."""


@click.command("diff", short_help="Show what another policy would change for recorded runs.")
@click.option("--from", "before", multiple=True, required=True, metavar="NAME|FILE", help="The policy as it is.")
@click.option("--to", "after", multiple=True, required=True, metavar="NAME|FILE", help="The policy as it would be.")
@click.argument("runs", nargs=-1, required=True)
@click.option("--agent", "agents", multiple=True, metavar="GLOB", help="Only runs of agents with such a name.")
@click.option(
    "--fail-on",
    multiple=True,
    type=click.Choice([*CHANGES, "any"]),
    help="Exit 1 where a call, or anything else of a run, changes so; may be given more than once.",
)
@click.option("--show", "most", type=click.IntRange(0), default=_SHOWN, show_default=True, help="Changed calls shown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@store_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    before: Sequence[str],
    after: Sequence[str],
    runs: Sequence[str],
    agents: Sequence[str],
    fail_on: Sequence[str],
    most: int,
    as_json: bool,
    store: str,
) -> None:
    """Show what another policy would change: each recorded call is judged again under both, and nothing is run.

    --from and --to take what `oao run --policy` takes. RUNS are recordings (*.oao.json), run logs of AgentDojo,
    tau-bench and tau2-bench, traces in OTLP-JSON, folders of any of these, ids of journaled runs or unique starts of
    them, `last`, or `all` for the whole store.

    A call is judged with its history, as the gate would: counters, limits, sequences, labels. A denial does not end
    the judging, so that every call counts; where a real run would have been halted is said apart.

    Exit code: 0; 1 for what --fail-on names; 2 where the command is wrong, or a file or run could not be read: the
    others are judged all the same.

    \b
    Examples:
      oao policy diff --from policy.toml --to stricter.toml all
      oao policy diff --from off --to strict runs/ --fail-on denied
      oao policy diff --from standard --to my_policies:guard 3f2a run.json --json
    """  # noqa: D301 - click reads the control character as "do not wrap"
    prefer_working_folder()
    import_policies([*before, *after])
    judges = [Rejudge(before), Rejudge(after)]
    diff, read = PolicyDiff(" + ".join(before), " + ".join(after)), _Read()
    needs_store = wants_store(runs)
    if needs_store and not kept(store):
        raise UsageError("no run is journaled here yet; name files or folders, or make one with: oao run")
    with open_store(store) if needs_store else nullcontext() as opened, _quiet():
        sources = sources_of(runs, opened)
        for history in _histories(sources, agents, read):
            _judge(history, judges, diff, read)
    if not diff.runs and not read.errors:
        raise UsageError(_nothing(agents, read))
    if as_json:
        print_json(_as_json(diff, read, judges), indent=2)
    else:
        on = console()
        _print(on, diff, read, judges, most)
    for name, message in read.errors:
        print_error(message if name in message else f"{name}: {message}")
    failed = any(diff.fails_on(what) for what in fail_on)
    ctx.exit(2 if read.errors else int(failed))


@contextmanager
def _quiet() -> Generator[None]:
    """Keep the log of policies that fail out of the output: their errors are counted and shown."""
    log = logging.getLogger("oao")

    def drop(_record: logging.LogRecord) -> bool:
        return False

    log.addFilter(drop)
    try:
        yield
    finally:
        log.removeFilter(drop)


def _histories(sources: Sequence[Source], agents: Sequence[str], read: _Read) -> Iterator[History]:
    """Yield the runs of all sources, one source in memory at a time; what cannot be read is noted."""
    err = console(stderr=True)
    columns = (TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Not err.is_terminal: FORCE_COLOR makes a file one, and a file has no line that vanishes.
    with Progress(*columns, console=err, transient=True, disable=not err.file.isatty()) as progress:
        for source in progress.track(sources):
            try:
                found = source.load()
            except UnknownFormError as error:
                (read.errors if source.is_named else read.skipped).append((source.name, str(error)))
                continue
            except (RecordingError, StoreError) as error:
                read.errors.append((source.name, str(error)))
                continue
            except (RecursionError, MemoryError) as error:
                read.errors.append((source.name, f"it is too large or nested too deep ({type(error).__name__})"))
                continue
            for history in found:
                if agents and not any(fnmatchcase(history.agent, glob) for glob in agents):
                    read.others[history.agent] += 1
                else:
                    yield history


def _judge(history: History, judges: Sequence[Rejudge], diff: PolicyDiff, read: _Read) -> None:
    try:
        prepared = prepare(history, judges)
        before, after = (judge.judge(prepared, which) for which, judge in enumerate(judges))
    except RecursionError:
        read.errors.append((history.name, "it is nested too deep"))
        return
    if not history.recording or history.recording not in read.noted:
        # What a recording of several agents does not tell is said once.
        read.notes.update(history.notes)
        read.noted.add(history.recording)
    diff.add(
        JudgedRun(
            name=history.name, agent=history.agent, calls=history.calls, before=before, after=after,
            recording=history.recording,
        )
    )  # fmt: skip


def _nothing(agents: Sequence[str], read: _Read) -> str:
    """Return why no run was judged: a check that judges nothing must not pass."""
    if read.others:
        names = ", ".join(sorted(read.others)[:_SHOWN])
        return f"no run is of an agent like {' or '.join(map(repr, agents))}; there are: {names}"
    skipped = ", ".join(name for name, _ in read.skipped[:3])
    forms = f"; of no known form: {skipped}" if skipped else ""
    return f"no run was found{forms}; name files or folders that hold runs"


def _not_judged(judges: Sequence[Rejudge]) -> list[str]:
    """Return the limits that one of the policies names, and that recorded calls do not tell."""
    limits = [judge.limits for judge in judges]
    return [name for name in NOT_JUDGED if any(getattr(one, name) for one in limits)]


def _as_json(diff: PolicyDiff, read: _Read, judges: Sequence[Rejudge]) -> dict[str, Json]:
    def pairs(rows: Sequence[tuple[str, str]]) -> list[Json]:
        return [{"name": name, "message": message} for name, message in rows]

    return {
        **diff.to_json(),
        "not_judged": list(_not_judged(judges)),
        "notes": dict(read.notes.most_common()),
        "other_agents": read.others.total(),
        "skipped": pairs(read.skipped),
        "errors": pairs(read.errors),
    }


def _print(on: Console, diff: PolicyDiff, read: _Read, judges: Sequence[Rejudge], most: int) -> None:
    arrow = symbol(on, "→")
    on.print(Text(f" {one_line(diff.before)} {arrow} {one_line(diff.after)}", style="bold"), soft_wrap=True)
    tools, models = (sum(row.calls for row in table.values()) for table in (diff.tools, diff.models))
    kinds = f" ({count(tools)} of tools, {count(models)} of models)" if tools and models else ""
    on.print(Text(f" {plural(diff.runs, 'run')}, {plural(diff.calls, 'call')}{kinds}", style="dim"))
    on.print()
    rows = [[Text(_TITLES[what]), _number(diff.changes[what], _STYLES[what])] for what in CHANGES]
    rows.append([Text("same"), Text(count(diff.same))])
    print_columns(on, (Column(title="change"), Column(title="calls", right=True)), rows)
    for title, table in (("rule", diff.rules), ("tool", diff.tools), ("model", diff.models), ("agent", diff.agents)):
        _print_table(on, title, table, arrow)
    _print_calls(on, diff, most, arrow)
    on.print()
    _print_runs(on, diff, arrow)
    _print_doubts(on, diff, read, judges)


def _number(number: int, style: str = "") -> Text:
    return Text(count(number), style=style) if number else Text("")


def _print_table(on: Console, title: str, table: Mapping[str, Row], arrow: str) -> None:
    """Print the rows in which anything changes, and how many others there are."""
    changed = sorted((item for item in table.items() if item[1].changes.total()), key=lambda item: item[0])
    if not changed:
        return
    verdicts = {"rule": ("deny", "ask")}.get(title, ())
    columns = (
        Column(title=title, shrinks=True),
        Column(title="calls", right=True),
        *(
            Column(title=_TITLES[what].replace("to approve", "asked").replace(" otherwise", ""), right=True)
            for what in CHANGES
        ),
        *(Column(title={"deny": "denies", "ask": "asks"}[verdict], right=True) for verdict in verdicts),
    )
    rows = [
        [
            Text(one_line(name) or "(unnamed)"),
            Text(count(row.calls)),
            *(_number(row.changes[what], _STYLES[what]) for what in CHANGES),
            *(_from_to(row, verdict, arrow) for verdict in verdicts),
        ]
        for name, row in changed
    ]
    on.print()
    print_columns(on, columns, rows)
    if len(table) > len(changed):
        on.print(Text(f" {plural(len(table) - len(changed), 'other')}: nothing changes", style="dim"))


def _from_to(row: Row, verdict: str, arrow: str) -> Text:
    first, second = row.before[verdict], row.after[verdict]
    return Text(f"{count(first)} {arrow} {count(second)}" if first or second else "", style="dim")


def _print_calls(on: Console, diff: PolicyDiff, most: int, arrow: str) -> None:
    if not diff.listed or not most:
        return
    longest = _LONGEST if on.width >= _NARROW else _LONGEST_WHERE_NARROW
    rows = [
        [
            Text(_short(one_line(one.run.rpartition("/")[2]))),
            Text(one_line(one.place or one.stage)),
            Text(f"{_cut(one_line(one.name), longest)}{'' if one.stage == 'call' else f' ({one.stage})'}".strip()),
            _verdict(one.before),
            _verdict(one.after),
            Text(one_line(one.rule)),
        ]
        for one in diff.listed[:most]
    ]
    on.print()
    print_columns(on, _CALLS, rows)
    more = len(diff.listed) + diff.left_out - len(rows)
    if more > 0:
        on.print(Text(f" and {count(more)} more; see --show, --json", style="dim"))


def _short(run: str) -> str:
    """Return the name of a run as it may be typed: the start of a made id, or a file."""
    return run[:8] if _MADE_ID.fullmatch(run) else run


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _verdict(decision: Decision | None) -> Text:
    if decision is None:
        return Text("-", style="dim")
    return Text(decision.verdict, style=VERDICT_STYLES.get(decision.verdict, ""))


def _print_runs(on: Console, diff: PolicyDiff, arrow: str) -> None:
    """Print what real runs would have done."""
    newly, freed, elsewhere = diff.newly_halted, diff.no_longer_halted, diff.halted_elsewhere
    halted, held = ((len(one[0]), len(one[1])) for one in (diff.halted, diff.held))
    said = [f"{count(newly)} newly"] if newly else []
    said += [f"{count(freed)} no longer"] if freed else []
    said += [f"{count(elsewhere)} elsewhere"] if elsewhere else []
    apart = f" ({', '.join(said)})" if said else ""
    on.print(f" runs halted   {count(halted[0])} {arrow} {count(halted[1])}{apart}", soft_wrap=True)
    if any(held):
        on.print(f" runs held     {count(held[0])} {arrow} {count(held[1])}")
    if diff.run_changes:
        known = len(diff.run_changes) - diff.tokens_unknown
        tokens = f"{count(diff.tokens_more)} in {plural(known, 'run')}" if known else ""
        unknown = f"unknown in {plural(diff.tokens_unknown, 'run')}" if diff.tokens_unknown else ""
        on.print(f" tokens saved  {', '.join(filter(None, (tokens, unknown)))}", soft_wrap=True)
    for (stage, what), times in sorted(diff.stops.items()):
        on.print(f" beside calls  {stage}: {_TITLES[what]} {count(times)}", soft_wrap=True)


def _print_doubts(on: Console, diff: PolicyDiff, read: _Read, judges: Sequence[Rejudge]) -> None:
    """Print what makes the numbers less sure: errors of policies, what was not recorded, what cannot be judged."""
    for (side, reason), times in diff.errors.most_common(5):
        line = f"policy error (--{side}), {plural(times, 'time')}, each a denial: {clean(reason)}"
        print_paragraph(on, Text(line, style="bold red"))
    if len(diff.errors) > 5:
        on.print(Text(f" and {count(len(diff.errors) - 5)} other policy errors; see --json", style="red"))
    if unjudged := _not_judged(judges):
        print_paragraph(on, Text(f"not judged: {', '.join(unjudged)}", style="dim"))
    for note, runs in read.notes.most_common(_SHOWN):
        print_paragraph(on, Text(f"{plural(runs, 'run')}: {clean(note)}", style="dim"))
    if read.others:
        on.print(Text(f" {plural(read.others.total(), 'run')} of other agents left out", style="dim"))
    if read.skipped:
        names = ", ".join(name for name, _ in read.skipped[:3])
        more = f" and {count(len(read.skipped) - 3)} more" if len(read.skipped) > 3 else ""
        print_paragraph(on, Text(f"skipped, of no known form: {clean(names)}{more}", style="yellow"))
