"""The agent that the faults hit: fifty calls, each with an effect that a process of its own writes to a file."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

import oao_harness as oao
from oao_harness import OaoError, Orchestrator, SQLiteStore
from oao_harness.runtime.clock import SystemClock
from oao_hookspecs import Store

__all__ = ["CALLS", "EXPECTED", "Job", "agent", "main"]

CALLS: Final = 50
_EFFECTS: Final = ("once", "idempotent", "pure")
# The service behind the tools: the careful one looks whether it has seen the key, the other one does not.
_ONCE: Final = 'echo "$1" >> "$2"'
_BY_KEY: Final = f'grep -qxF "$1" "$2" 2>/dev/null || {{ {_ONCE}; }}'


def _effect(script: str, number: int) -> str:
    call = oao.current_call()
    assert call is not None
    subprocess.run(["/bin/sh", "-c", script, "sh", call.idempotency_key, os.environ["EFFECTS"]], check=True)
    return f"done {number}"


@oao.tool(effect="once")
def once(number: int) -> str:
    return _effect(_ONCE, number)


@oao.tool(effect="idempotent")
def idempotent(number: int) -> str:
    return _effect(_BY_KEY, number)


@oao.tool(effect="pure")
def pure(number: int) -> str:
    return _effect(_BY_KEY, number)


def _tool(number: int) -> str:
    return {"once": once, "idempotent": idempotent, "pure": pure}[_EFFECTS[number % 3]](number)


def agent(task: str) -> str:
    """Make fifty calls; the answer says what each of them returned."""
    answers: list[str] = []
    for number in range(CALLS):
        answers.append(_tool(number))
        if task == "slowly":
            time.sleep(0.02)
    return ", ".join(answers)


EXPECTED: Final = ", ".join(f"done {number}" for number in range(CALLS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a process is to do.

    Args:
        what: `run` or `resume`.
        store: URL.
        id_: Of the run.
        folder: For `effects`, one line for each effect, and `report.<pid>`.
        task: `slowly` for a run of more than a second.
        lease_s: See `Orchestrator`.
        most_bytes: How large a file of this process may become; 0 for any size.
        busy_timeout_s: See `SQLiteStore`; 0 for the default.
        clock_jumps: True for a clock that jumps an hour to and fro.
    """

    what: str
    store: str
    id_: str
    folder: str
    task: str = "t"
    lease_s: float = 30.0
    most_bytes: int = 0
    busy_timeout_s: float = 0.0
    clock_jumps: bool = False


class _Jumping(SystemClock):
    """A clock that somebody sets all the time."""

    def time(self) -> float:
        return super().time() + random.uniform(-3600, 3600)


def main(job: Job, is_ready: Event) -> None:
    """Run or resume the agent in this process, and leave in its folder what became of it.

    Args:
        job: What to do.
        is_ready: Set when the run is about to begin or to go on.
    """
    os.environ["EFFECTS"] = str(Path(job.folder, "effects"))
    if job.most_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.most_bytes, job.most_bytes))
    try:
        store: Store | str = job.store
        if job.busy_timeout_s:
            store = SQLiteStore(job.store.removeprefix("sqlite:"), busy_timeout_s=job.busy_timeout_s)
        orchestrator = Orchestrator(
            store=store,
            lease_s=job.lease_s,
            clock=_Jumping() if job.clock_jumps else None,
        )
        is_ready.set()
        if job.what == "run":
            report = orchestrator.run(agent, job.task, execution_id=job.id_)
        else:
            report = orchestrator.resume(job.id_, agent)
        said = {"status": report.status, "output": report.final_output, "error": report.error}
        orchestrator.store.close()
    except OaoError as error:
        said = {"status": type(error).__name__, "output": None, "error": str(error)}
    is_ready.set()
    # Whole or not at all: this process may be killed here too.
    written = Path(job.folder, f"writing.{os.getpid()}")
    written.write_text(json.dumps(said), encoding="utf-8")
    written.rename(Path(job.folder, f"report.{os.getpid()}"))
