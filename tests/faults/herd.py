"""Worker processes of one fleet, what is done to them, and what became of the runs."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from oao_harness.cli.effects import count_effects
from oao_harness.fleet.jobs import Jobs
from oao_harness.fleet.status import JobStatus
from oao_hookspecs import Record
from tests.faults.fleet_program import CALLS, Work, agents, main
from tests.faults.harness import Tally

__all__ = ["Herd"]

T = TypeVar("T")

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_PRELOADED: Final = ["tests.faults.fleet_program", "oao_harness.schedulers.redis", "oao_harness.stores.redis"]
_CONTEXT.set_forkserver_preload(_PRELOADED)
_START_S: Final = 30.0


class Herd:
    """The workers of a fleet; leaving it ends them all.

    Args:
        folder: Empty.
        url: Of the server, as the workers see it.
        jobs_url: The same as who submits sees it; the same by default.
        defaults: See `Work`; for every worker.
    """

    def __init__(self, folder: Path, url: str, jobs_url: str = "", **defaults: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.url = url
        self.runs: list[str] = []
        self.workers: list[ForkServerProcess] = []
        self.frozen: dict[int, float] = {}
        """By process: until when, in monotonic seconds."""
        self._defaults = defaults
        self._jobs_url = jobs_url or url
        self._events: list[object] = []

    def __enter__(self) -> Herd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.join(10)

    def start(self, **more: Any) -> ForkServerProcess:
        """Start a worker and wait until it begins; see `Work` for more."""
        ready = _CONTEXT.Event()
        self._events.append(ready)  # kept until the process has it too
        work = Work(scheduler=self.url, store=self.url, folder=str(self.folder), **{**self._defaults, **more})
        worker = _CONTEXT.Process(target=main, args=(work, ready), daemon=True)
        worker.start()
        self.workers.append(worker)
        assert ready.wait(_START_S), f"a worker did not start: {self.said()}"
        return worker

    def kill(self, worker: ForkServerProcess) -> None:
        """`kill -9`, and wait until it is gone."""
        worker.kill()
        worker.join(10)
        self.frozen.pop(cast("int", worker.pid), None)

    def freeze(self, worker: ForkServerProcess, for_s: float) -> None:
        """SIGSTOP, until `thaw` finds that the time is over."""
        os.kill(cast("int", worker.pid), signal.SIGSTOP)
        self.frozen[cast("int", worker.pid)] = time.monotonic() + for_s

    def thaw(self, *, every: bool = False) -> None:
        """Let those go on whose time is over."""
        for pid, until in list(self.frozen.items()):
            if every or time.monotonic() >= until:
                os.kill(pid, signal.SIGCONT)
                del self.frozen[pid]

    @property
    def alive(self) -> list[ForkServerProcess]:
        """The workers that are, frozen ones too."""
        return [worker for worker in self.workers if worker.is_alive()]

    def ask(self, question: Callable[[Jobs], Awaitable[T]]) -> T:
        """Ask the fleet something, as who submits."""

        async def asked() -> T:
            jobs = Jobs(self._jobs_url, self._jobs_url, agents())
            try:
                return await question(jobs)
            finally:
                await jobs.close()

        return asyncio.run(asked())

    def submit(self, number: int, agent: str = "six", task: str = "t", **more: Any) -> list[str]:
        """Submit so many jobs; return their ids."""

        async def all_of(jobs: Jobs) -> list[str]:
            return [await jobs.submit(agent, task, **more) for _ in range(number)]

        made = self.ask(all_of)
        self.runs += made
        return made

    def status(self, run: str) -> JobStatus:
        """Return how far a job is."""
        return self.ask(lambda jobs: jobs.status(run))

    def over(self, runs: Sequence[str] | None = None) -> int:
        """Return how many of the runs have ended."""
        wanted = set(self.runs if runs is None else runs)

        async def count(jobs: Jobs) -> int:
            rows = jobs.store.runs(None)
            return sum(row.execution_id in wanted and row.finished_at is not None for row in rows)

        return self.ask(count)

    def wait(
        self, seconds: float, until: Callable[[], bool] | None = None, meanwhile: Callable[[], object] | None = None
    ) -> bool:
        """Wait until something is so, by default until all runs are over; return False where it is not in time."""
        give_up = time.monotonic() + seconds
        is_so = until or (lambda: self.over() >= len(self.runs))
        while time.monotonic() < give_up:
            self.thaw()
            if meanwhile is not None:
                meanwhile()
            if is_so():
                return True
            time.sleep(0.1)
        return is_so()

    def wait_for_effects(self, number: int) -> None:
        """Wait until so many bodies ran."""
        assert self.wait(30, lambda: len(self.effects()) >= number), f"the workers do nothing: {self.said()}"

    def effects(self) -> list[str]:
        """Return the idempotency key of each body that ran, in order."""
        path = self.folder / "effects"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line.split()[0] for line in lines if line]

    def said(self) -> str:
        """Return what the workers wrote on standard error."""
        files = sorted(self.folder.glob("worker.*"))
        return "\n".join(file.read_text(encoding="utf-8", errors="replace")[-2000:] for file in files)

    def journals(self, runs: Sequence[str] | None = None) -> dict[str, list[Record]]:
        """Return the journals of the runs."""

        async def read(jobs: Jobs) -> dict[str, list[Record]]:
            return {run: list(jobs.store.read(run)) for run in (self.runs if runs is None else runs)}

        return self.ask(read)

    def count(self, tally: Tally, runs: Sequence[str] | None = None, calls: int = CALLS) -> None:
        """Add what became of runs: each has one end, and every call that ended has its effect, no more than allowed."""
        wanted = self.runs if runs is None else runs
        known = set(wanted)
        effects = [key for key in self.effects() if key.rpartition("#")[0] in known]
        found = count_effects(self.journals(wanted), effects)
        tally.runs += found.runs
        tally.calls += found.calls
        tally.lost += found.lost
        tally.doubled += found.repeated
        tally.in_doubt += found.again
        tally.wrong += found.wrong[:10]
        if not found.wrong and not found.lost and found.calls != calls * len(wanted):
            tally.wrong.append(f"{found.calls} calls ended, of {calls * len(wanted)}")
