"""`oao demo fleet`: three workers, one is killed, one is frozen; what it says of the runs is measured."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from oao_harness.cli.console import console, print_paragraph, status_text, symbol
from oao_harness.cli.demo_courier import EFFECTS, STOPS
from oao_harness.cli.demo_server import demo_server
from oao_harness.cli.effects import Counts, count_effects
from oao_harness.cli.render import Column, print_columns
from oao_harness.cli.units import count, duration
from oao_harness.errors import UsageError
from oao_harness.fleet.agents import Agents
from oao_harness.fleet.jobs import Jobs
from oao_harness.journal.timeline import number
from oao_hookspecs import Record

__all__ = ["command"]

_WORKERS: Final = 3
# One worker alone has room for all, so that a takeover waits for no slot.
_SLOTS: Final = 30
_LEASE_S: Final = 2.0
_LONGEST_S: Final = 60.0
_LOOK_S: Final = 0.2
_PROJECT: Final = """
[tool.oao.agents]
courier = "oao_harness.cli.demo_courier:courier"
"""


@dataclass(slots=True)
class _Worker:
    """A process that does jobs, and what was done to it."""

    name: str
    process: subprocess.Popen[bytes]
    state: str = "at work"
    hit_at: float = 0.0
    """Unix seconds of what was done to it; 0 for nothing."""
    had: frozenset[str] = frozenset()
    """The runs that it was at work on then."""


@dataclass(slots=True)
class _Scene:
    """Where the demo is."""

    workers: list[_Worker]
    effects: Path
    runs: list[str] = field(default_factory=list[str])
    statuses: Mapping[str, str] = field(default_factory=dict[str, str])
    began: float = 0.0
    """Monotonic seconds."""

    @property
    def over(self) -> int:
        """How many runs have ended."""
        return sum(status in {"SUCCESS", "FAILED"} for status in self.statuses.values())

    @property
    def made(self) -> int:
        """How many bodies of tools ran so far."""
        return len(self.lines())

    def lines(self) -> list[tuple[str, int]]:
        """Return key and process of each body that ran so far."""
        if not self.effects.exists():
            return []
        pairs = (line.split() for line in self.effects.read_text(encoding="utf-8").splitlines())
        return [(pair[0], int(pair[1])) for pair in pairs if len(pair) == 2]

    def has(self, worker: _Worker) -> frozenset[str]:
        """Return the open runs whose last body ran in a worker."""
        last = {key.rpartition("#")[0]: pid for key, pid in self.lines()}
        mine = (run for run, pid in last.items() if pid == worker.process.pid)
        return frozenset(run for run in mine if self.statuses.get(run) == "RUNNING")


@click.command("fleet", short_help="Three workers: one is killed, one is frozen, nothing is lost.")
@click.option(
    "--runs", "size", type=click.IntRange(6, 500), default=30, show_default=True, metavar="N", help="How many runs."
)
def command(size: int) -> None:
    """Start a fleet of three workers on this machine, kill one and freeze one, and count what became of the runs.

    It starts a Redis or Valkey of its own where this machine has one, else it uses a SQLite file. What it started is
    gone when it ends, also after Ctrl-C.

    \b
    Examples:
      oao demo fleet
      oao demo fleet --runs 100
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if not hasattr(signal, "SIGSTOP"):
        raise UsageError("oao demo fleet freezes a process, and this system cannot; run it on Linux or macOS")
    on, folder = console(), Path(tempfile.mkdtemp(prefix="oao-fleet-"))
    try:
        (folder / "pyproject.toml").write_text(_PROJECT, encoding="utf-8")
        with demo_server(folder) as server:
            scheduler, name = server or ("local:", "a SQLite file: no redis-server is on the PATH")
            store = scheduler if server is not None else f"sqlite:{folder / 'oao.db'}"
            _open_act(on, "A fleet on this machine", f"{_WORKERS} workers with {_SLOTS} slots each, over {name}.")
            with _fleet(folder, scheduler, store) as scene:
                asyncio.run(_play(on, scene, folder, (scheduler, store), size))
    except KeyboardInterrupt:
        on.print(Text(" stopped; everything that it had started is gone", style="yellow"))
        raise click.exceptions.Exit(128 + signal.SIGINT) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _fleet(folder: Path, scheduler: str, store: str) -> Generator[_Scene]:
    """Start the workers; end them, whatever state they are in."""
    scene = _Scene(workers=[], effects=folder / "effects")
    path = os.pathsep.join(str(Path(one).resolve()) for one in sys.path if one)
    env = {**os.environ, EFFECTS: str(scene.effects), "PYTHONPATH": path}
    asked = ["--scheduler", scheduler, "--store", store, "--slots", str(_SLOTS), "--lease", str(_LEASE_S), "--json"]
    files: list[IO[bytes]] = []
    try:
        for n in range(1, _WORKERS + 1):
            files.append((folder / f"worker-{n}").open("wb"))
            process = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-m", "oao_harness", "worker", *asked],
                cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=files[-1], stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            scene.workers.append(_Worker(f"worker {n}", process))
        for n, worker in enumerate(scene.workers, start=1):
            _wait_for_start(worker, folder / f"worker-{n}")
        yield scene
    finally:
        for worker in scene.workers:
            # It ends a frozen process as well.
            worker.process.kill()
            worker.process.wait()
        for file in files:
            file.close()


def _wait_for_start(worker: _Worker, said: Path) -> None:
    until = time.monotonic() + _LONGEST_S
    while b'"started"' not in said.read_bytes():
        if worker.process.poll() is not None or time.monotonic() > until:
            raise UsageError(f"a worker did not start: {said.read_text(encoding='utf-8', errors='replace')[-800:]}")
        time.sleep(0.05)


async def _play(on: Console, scene: _Scene, folder: Path, urls: tuple[str, str], size: int) -> None:
    jobs = Jobs(*urls, Agents.discover(folder))
    try:
        scene.runs = [await jobs.submit("courier", f"parcel {n}") for n in range(1, size + 1)]
        scene.began = time.monotonic()
        print_paragraph(on, f"{size} runs are queued, of {STOPS} tool calls each. Worker 1 will be killed, 2 frozen.")
        on.print()
        with Live(_table(on, scene), console=on, auto_refresh=False, transient=False) as live:
            while scene.over < size and time.monotonic() - scene.began < _LONGEST_S:
                scene.statuses = {run.execution_id: run.status for run in await jobs.jobs(limit=size)}
                _do_harm(scene, size)
                live.update(_table(on, scene), refresh=True)
                await asyncio.sleep(_LOOK_S)
            live.update(_table(on, scene), refresh=True)
        took_s = time.monotonic() - scene.began
        journals = {run: list(jobs.store.read(run)) for run in scene.runs}
    finally:
        await jobs.close()
    _report(on, scene, journals, took_s)


def _do_harm(scene: _Scene, size: int) -> None:
    """Kill the first worker and freeze the second one, each in the middle of its runs; later wake that one up."""
    killed, frozen = scene.workers[0], scene.workers[1]
    now = time.time()
    if not killed.hit_at and scene.made >= size and (had := scene.has(killed)):
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.had, killed.hit_at, killed.state = had, now, "killed with kill -9"
    elif not frozen.hit_at and scene.made >= 2 * size and (had := scene.has(frozen)):
        os.kill(frozen.process.pid, signal.SIGSTOP)
        frozen.had, frozen.hit_at, frozen.state = had, now, "frozen"
    elif frozen.state == "frozen" and now - frozen.hit_at > 2 * _LEASE_S:
        with suppress(ProcessLookupError):
            os.kill(frozen.process.pid, signal.SIGCONT)
        frozen.state = "woke up; what it had is not its own any more"


def _table(on: Console, scene: _Scene) -> Table:
    """Return workers and runs as they are now."""
    table = Table.grid(padding=(0, 2))
    for worker in scene.workers:
        style = "green" if worker.state == "at work" else "red" if "killed" in worker.state else "yellow"
        has = "" if "killed" in worker.state else f"{len(scene.has(worker))} runs"
        mark = symbol(on, "✘" if "killed" in worker.state else "◆" if worker.state == "frozen" else "●")
        table.add_row(f" {worker.name}", Text(f"{mark} {worker.state}", style=style), has)
    counted = Counter(scene.statuses.values())
    shown = [status_text(on, one) + Text(f" {counted[one]}") for one in ("QUEUED", "RUNNING", "SUCCESS", "FAILED")]
    table.add_row(" runs", Text("  ").join(text for text in shown if not text.plain.endswith(" 0")), "")
    return table


def _report(on: Console, scene: _Scene, journals: Mapping[str, Sequence[Record]], took_s: float) -> None:
    counts: Counts = count_effects(journals, [key for key, _ in scene.lines()])
    _open_act(on, "What became of them", "Counted from the journals, and from what the tools themselves wrote down.")
    rows = [
        ("runs", count(counts.runs), f"in {duration(took_s)}"),
        ("lost", count(counts.lost), "each run has an end, each finished call its effect"),
        ("finished calls", count(counts.calls), f"{STOPS} of each run"),
        ("finished calls repeated", count(counts.repeated), "none is ever made again"),
        ("calls in doubt, made again", count(counts.again), "begun when it was hit; the tool is idempotent"),
    ]
    for worker in scene.workers:
        if worker.hit_at:
            what = "killed" if "killed" in worker.state else "frozen"
            waits = _takeovers(worker, journals)
            longest = duration(max(waits)) if waits else "-"
            rows.append((f"takeover, {what}", longest, f"the longest of {len(waits)}; a lease lives {_LEASE_S:g} s"))
    bad = {"lost": counts.lost, "finished calls repeated": counts.repeated}
    columns = (Column(title=""), Column(title="", right=True), Column(title=""))
    cells = [
        [Text(a), Text(b, style=("red" if bad[a] else "green") if a in bad else ""), Text(c, style="dim")]
        for a, b, c in rows
    ]
    print_columns(on, columns, cells)
    for what in counts.wrong:
        print_paragraph(on, Text(what, style="red"))
    on.print()
    for what, line in (
        ("your own worker", "oao worker --scheduler redis://localhost:6379/0"),
        ("queue a run", 'oao submit AGENT "a task" --wait'),
        ("look at the queue", "oao jobs --watch"),
    ):
        on.print(Text.assemble((f" {what:<22}", "dim"), (line, "cyan")), soft_wrap=True)
    if counts.lost or counts.repeated or counts.wrong:
        raise click.exceptions.Exit(1)


def _takeovers(worker: _Worker, journals: Mapping[str, Sequence[Record]]) -> list[float]:
    """Return after how many seconds others went on with each run that a worker had."""
    found: list[float] = []
    for run in worker.had:
        resumed = [number(record, "at") for record in journals[run] if record["type"] == "run.resumed"]
        later = [at for at in resumed if at > worker.hit_at]
        found += later[:1]
    return [at - worker.hit_at for at in found]


def _open_act(on: Console, title: str, what: str) -> None:
    on.print()
    on.rule(Text(title, style="bold"), style="dim", align="left")
    print_paragraph(on, what)
    on.print()
