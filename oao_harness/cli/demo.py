"""`oao demo`: what oao is for, in four acts, with nothing but Python."""

from __future__ import annotations

import importlib.util
import shlex
import tempfile
import uuid
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli import demo_fleet
from oao_harness.cli.console import clean, console, print_paragraph
from oao_harness.cli.demo_agents import PROMPT, Agent, refund_agent, runaway_agent
from oao_harness.cli.progress import Progress
from oao_harness.cli.render import Column, print_columns, print_timeline, print_verdict
from oao_harness.cli.stores import store_url
from oao_harness.cli.units import count, duration
from oao_harness.journal.recording import Recording
from oao_harness.journal.timeline import Timeline
from oao_harness.policy.strict import StrictPolicy
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport
from oao_hookspecs import Record

__all__ = ["command"]

_TASK: Final = "My order A-1042 arrived broken. I want my money back."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Take:
    """One run of a demo agent: what it reported, what it left in the journal, what really ran."""

    report: ExecutionReport
    records: list[Record]
    ran: Counter[str]


@click.group(
    "demo", invoke_without_command=True, short_help="See in ten seconds what oao does; needs no key and no server."
)
@click.option(
    "--latency",
    "latency_s",
    type=click.FloatRange(min=0, max=5),
    default=0.4,
    show_default=True,
    metavar="SECONDS",
    help="What the pretend network takes for one model call.",
)
@click.option("--store", metavar="URL|PATH", help="Where the journals go; a new temporary folder by default.")
@click.pass_context
def command(ctx: click.Context, latency_s: float, store: str | None) -> None:
    """See in ten seconds what oao does; needs no key and no server.

    A runaway agent is stopped; a good one succeeds; it is replayed without a model; a changed prompt is noticed.

    \b
    Examples:
      oao demo
      oao demo --store demo.db --latency 0
      oao demo fleet
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if ctx.invoked_subcommand is not None:
        return
    on = console()
    folder = Path(tempfile.mkdtemp(prefix="oao-demo-"))
    place = store or str(folder / "oao.db")
    recording = folder / "refund.oao.json"
    progress = Progress(on)
    orchestrator = Orchestrator(StrictPolicy(), store_url(place), plugins=[progress])
    with closing(orchestrator.store):
        _stop_a_runaway(on, orchestrator)
        with progress:
            live = _run_a_good_one(orchestrator, latency_s)
    _show_the_good_one(on, live)
    Recording.from_records(live.records, policy="strict").save(recording)
    _replay_it(on, live, recording)
    _change_a_word(on, recording)
    _say_what_next(on, place, recording)


command.add_command(demo_fleet.command)


def _stop_a_runaway(on: Console, orchestrator: Orchestrator) -> None:
    _open_act(
        on,
        "1  A runaway agent is stopped",
        "It searches the web in a loop and catches every exception, BaseException too. The policy allows 5 tool calls.",
    )
    ran: Counter[str] = Counter()
    take = _run(orchestrator, runaway_agent(ran), "cheap flights to the moon", ran, "runaway")
    _show(on, take)
    _say(
        on,
        f"It caught the halt {ran['ignored']} times and went on. The halt stayed: the search ran {ran['tool']} times.",
    )


def _run_a_good_one(orchestrator: Orchestrator, latency_s: float) -> _Take:
    ran: Counter[str] = Counter()
    return _run(orchestrator, refund_agent(ran, latency_s=latency_s), _TASK, ran, "refund")


def _show_the_good_one(on: Console, live: _Take) -> None:
    _open_act(
        on,
        "2  A good agent does its work",
        f"A support agent under the same policy, every call journaled. It is told: {_TASK}",
    )
    _show(on, live)


def _replay_it(on: Console, live: _Take, recording: Path) -> None:
    _open_act(
        on,
        "3  The run becomes a test fixture",
        f"Its journal is saved as {recording.name}, {count(recording.stat().st_size)} bytes of JSON to review and "
        "commit. The same agent is run on it: every outcome is served, nothing is executed.",
    )
    ran: Counter[str] = Counter()
    report = Orchestrator(StrictPolicy()).replay(refund_agent(ran), _TASK, recording)
    rows = (
        ("model calls made", count(live.ran["model"]), count(ran["model"])),
        ("tool bodies run", count(live.ran["tool"]), count(ran["tool"])),
        ("calls judged by the policy", count(live.report.total_steps), count(report.total_steps)),
        ("took", duration(live.report.execution_time_seconds), duration(report.execution_time_seconds)),
    )
    columns = (Column(title=""), Column(title="live", right=True), Column(title="replayed", right=True))
    print_columns(on, columns, [[Text(a), Text(b), Text(c, style="green")] for a, b, c in rows])
    same = report.final_output == live.report.final_output
    _say(on, "The answer is the same, letter by letter." if same else f"The answers differ: {report.error}")


def _change_a_word(on: Console, recording: Path) -> None:
    before, after = "polite", "brief"
    _open_act(
        on,
        "4  One word of the prompt changes",
        f"A colleague writes {after!r} for {before!r} in the system prompt. The same recording, the same test:",
    )
    ran: Counter[str] = Counter()
    changed = refund_agent(ran, PROMPT.replace(before, after))
    report = Orchestrator(StrictPolicy()).replay(changed, _TASK, recording)
    reason, *details = clean(str((report.violation or {}).get("reason", report.error))).split("\n")
    print_paragraph(on, Text.assemble((f"{report.status} ", "bold red"), (reason, "red")))
    for detail in details:
        print_paragraph(on, Text(detail, style="dim"))
    _say(on, f"No model was asked ({ran['model']} calls), and no token was spent to find out.")


def _say_what_next(on: Console, place: str, recording: Path) -> None:
    on.print()
    on.rule(Text("What next", style="bold"), style="dim", align="left")
    for what, line in (
        ("see these runs", f"oao runs --store {shlex.quote(place)}"),
        ("open the last", f"oao show last --store {shlex.quote(place)}"),
        ("read the recording", str(recording)),
        ("run your own agent", 'oao run my_agents:agent "a task"'),
        *(() if importlib.util.find_spec("pytest") else (("get pytest", "pip install pytest"),)),
        ("record your tests", "pytest --oao-record=once"),
        ("replay them, offline", "pytest --oao-policy=strict"),
    ):
        on.print(Text.assemble((f" {what:<22}", "dim"), (line, "cyan")), soft_wrap=True)


def _run(orchestrator: Orchestrator, agent: Agent, task: str, ran: Counter[str], name: str) -> _Take:
    execution_id = str(uuid.uuid4())
    report = orchestrator.run(agent, task, execution_id=execution_id, agent_name=name)
    return _Take(report=report, records=list(orchestrator.store.read(execution_id)), ran=ran)


def _show(on: Console, take: _Take) -> None:
    timeline = Timeline.of(take.records)
    print_timeline(on, timeline, details=False)
    on.print()
    print_verdict(on, timeline)


def _open_act(on: Console, title: str, what: str) -> None:
    on.print()
    on.rule(Text(title, style="bold"), style="dim", align="left")
    print_paragraph(on, what)
    on.print()


def _say(on: Console, what: str) -> None:
    on.print()
    print_paragraph(on, what)
