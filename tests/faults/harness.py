"""Runs the program in processes of its own, does something bad to them, and counts what became of the effects."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final, cast

from oao_harness import Orchestrator
from oao_hookspecs import Principal, Record
from tests.faults.program import CALLS, EXPECTED, Job, main

__all__ = ["PERSON", "Bench", "Tally", "kill_and_resume"]

PERSON: Final = Principal(id="person")
# Its processes are forked from a server that has imported oao: a fresh interpreter each time would take minutes.
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.faults.program", "oao_harness.stores.sqlite", "oao_harness.stores.redis"])
_LONGEST_S: Final = 60.0


@dataclass(slots=True)
class Tally:
    """What was done to runs, and what became of their effects."""

    faults: int = 0
    runs: int = 0
    calls: int = 0
    lost: int = 0
    """Calls whose effect is missing although the run succeeded."""
    doubled: int = 0
    """Calls whose effect is there more than once."""
    in_doubt: int = 0
    """Calls that a person was asked about."""
    wrong: list[str] = field(default_factory=list[str])
    """What is not as it should be."""


class Bench:
    """One run in a folder of its own.

    Args:
        folder: Empty.
        store: URL; a SQLite file in the folder by default.
        id_: Of the run.
    """

    def __init__(self, folder: Path, store: str = "", id_: str = "run") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store = store or f"sqlite:{folder / 'oao.db'}"
        self.id = id_
        self.is_ready = _CONTEXT.Event()
        """Set when the process that was started last is about to run or resume."""
        self._events: list[object] = []

    def start(self, what: str, **more: Any) -> ForkServerProcess:
        """Start `run` or `resume` in a process; see `Job` for more."""
        self.is_ready = _CONTEXT.Event()
        self._events.append(self.is_ready)  # kept until the process has it too
        job = Job(what=what, store=self.store, id_=self.id, folder=str(self.folder), **more)
        process = _CONTEXT.Process(target=main, args=(job, self.is_ready), daemon=True)
        process.start()
        return process

    def finish(self, what: str, **more: Any) -> dict[str, Any]:
        """Do `run` or `resume` to its end, and return what the process said."""
        return self.said(self.start(what, **more))

    def said(self, process: ForkServerProcess) -> dict[str, Any]:
        """Wait for a process, and return what it said; nothing where it was killed."""
        process.join(_LONGEST_S)
        assert process.exitcode is not None, "the process hangs"
        path = self.folder / f"report.{process.pid}"
        return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def effects(self) -> Counter[str]:
        """Return how often each key was written."""
        path = self.folder / "effects"
        return Counter(path.read_text(encoding="utf-8").split() if path.exists() else [])

    def wait_for_effects(self, count: int) -> None:
        """Wait until so many calls have had their effect."""
        until = time.monotonic() + _LONGEST_S
        while sum(self.effects().values()) < count:
            assert time.monotonic() < until, "the program does nothing"
            time.sleep(0.002)

    def resolve(self) -> int:
        """Be the person: look at the effects, and say what became of each call in doubt; return how many there were."""
        orchestrator = Orchestrator(store=self.store)
        try:
            doubts = orchestrator.in_doubt()
            for doubt in doubts:
                landed = self.effects()[doubt.id] > 0
                number = cast("int", doubt.arguments["number"])
                result = f"done {number}" if landed else None
                orchestrator.resolve(doubt.id, landed=landed, result=result, by=PERSON)
            return len(doubts)
        finally:
            orchestrator.store.close()

    def journal(self) -> list[Record]:
        """Return what the store holds of the run."""
        store = Orchestrator(store=self.store).store
        try:
            return list(store.read(self.id))
        finally:
            store.close()

    def next_step(self) -> str:
        """Return whether the run is to be begun, to be resumed, or over."""
        records = self.journal()
        return "run" if not records else "over" if records[-1]["type"] == "run.finished" else "resume"

    def go_on(self, tally: Tally, **more: Any) -> dict[str, Any]:
        """Resume until the run is over; a person answers what is asked."""
        while (step := self.next_step()) != "over":
            said = self.finish(step, **more)
            if said.get("status") == "SUSPENDED":
                tally.in_doubt += self.resolve()
            elif said.get("status") != "SUCCESS":
                return said
        last = self.journal()[-1]
        return {"status": last["status"], "output": last["output"], "error": last["error"]}

    def count(self, tally: Tally, said: dict[str, Any]) -> None:
        """Add what became of the run that is over."""
        tally.runs += 1
        tally.calls += CALLS
        if (said.get("status"), said.get("output")) != ("SUCCESS", EXPECTED):
            tally.wrong.append(f"{self.folder.name}: {said}")
        effects = self.effects()
        keys = {f"{self.id}#{n}" for n in range(1, CALLS + 1)}
        tally.lost += len(keys - set(effects))
        tally.doubled += sum(times > 1 for times in effects.values())
        if set(effects) - keys:
            tally.wrong.append(f"{self.folder.name}: effects of no call: {sorted(set(effects) - keys)}")


def kill_and_resume(
    folder: Path,
    faults: int,
    *,
    how: signal.Signals = signal.SIGKILL,
    seed: int = 0,
    store: str = "",
    **more: Any,
) -> Tally:
    """Kill runs at random moments, resume each time until done, and count.

    Args:
        folder: For the runs.
        faults: How many processes to kill.
        how: The signal.
        seed: Of the moments.
        store: URL; a SQLite file for each run by default.
        more: See `Job`.
    """
    moments = random.Random(seed)
    tally = Tally()
    takes_s = _LONGEST_S
    for name in ("first", "second"):  # the first one also starts the server of processes
        whole = Bench(folder / name, store, f"{name}-{seed}")
        process = whole.start("run")
        whole.is_ready.wait(_LONGEST_S)
        began = time.monotonic()
        whole.count(tally, whole.said(process))
        takes_s = min(takes_s, time.monotonic() - began)
    while tally.faults < faults:
        bench = Bench(folder / f"run-{tally.runs}", store, f"run-{seed}-{tally.runs}")
        while tally.faults < faults and (step := bench.next_step()) != "over":
            process = bench.start(step, **more)
            bench.is_ready.wait(_LONGEST_S)
            left = max(0.35, 1 - len(bench.effects()) / CALLS)
            time.sleep(moments.uniform(0, takes_s * left))
            if process.is_alive():
                with suppress(ProcessLookupError):  # it ended by itself meanwhile
                    os.kill(cast("int", process.pid), how)
                    tally.faults += 1
            if bench.said(process).get("status") == "SUSPENDED":
                tally.in_doubt += bench.resolve()
        bench.count(tally, bench.go_on(tally, **more))
    return tally
