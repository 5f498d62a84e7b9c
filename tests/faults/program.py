"""The agent that the faults hit: fifty calls, each with an effect that a process of its own writes to a file."""

from __future__ import annotations

import json
import os
import subprocess
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

import oao_harness as oao
from oao_harness import OaoError, Orchestrator

__all__ = ["CALLS", "EXPECTED", "agent", "main"]

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


def main(
    what: str, store: str, id_: str, folder: str, task: str = "t", lease_s: float = 30.0, is_ready: Event | None = None
) -> None:
    """Run or resume the agent in this process, and leave in `folder` what became of it.

    Args:
        what: `run` or `resume`.
        store: URL.
        id_: Of the run.
        folder: For `effects`, one line for each effect, and `report.<pid>`.
        task: `slowly` for a run of more than a second.
        lease_s: See `Orchestrator`.
        is_ready: Set when the run is about to begin or to go on.
    """
    os.environ["EFFECTS"] = str(Path(folder, "effects"))
    try:
        orchestrator = Orchestrator(store=store, lease_s=lease_s)
        if is_ready is not None:
            is_ready.set()
        if what == "run":
            report = orchestrator.run(agent, task, execution_id=id_)
        else:
            report = orchestrator.resume(id_, agent)
        said = {"status": report.status, "output": report.final_output, "error": report.error}
        orchestrator.store.close()
    except OaoError as error:
        said = {"status": type(error).__name__, "output": None, "error": str(error)}
    Path(folder, f"report.{os.getpid()}").write_text(json.dumps(said), encoding="utf-8")
