"""The worker that the faults of a fleet hit, and its agents; each body of a tool adds a line to a file, always."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

import time_machine

import oao_harness as oao
from oao_harness.errors import OaoError
from oao_harness.fleet.agents import Agents, Registered
from oao_harness.fleet.worker import Fleet
from oao_harness.schedulers.redis import RedisScheduler

__all__ = ["CALLS", "MEGABYTE", "Work", "agents", "main"]

CALLS: Final = 6
MEGABYTE: Final = 1024 * 1024


def _write_down() -> None:
    """Say that this body ran: one write of a few bytes, whole whoever else writes."""
    call = oao.current_call()
    assert call is not None
    file = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{call.idempotency_key} {os.getpid()}\n".encode())
    os.close(file)


@oao.tool(effect="idempotent")
async def step(number: int) -> str:
    _write_down()
    await asyncio.sleep(float(os.environ["BODY_S"]))
    return f"done {number}"


@oao.tool(effect="idempotent")
async def deadly(number: int) -> str:
    """End the worker that runs it, until somebody has mended it."""
    _write_down()
    _die_unless_mended()
    return f"done {number}"


@oao.tool(effect="idempotent")
async def hungry(number: int) -> int:
    """Take 2 GB, where the process may."""
    _write_down()
    return len(bytearray(2048 * MEGABYTE))


def _die_unless_mended() -> None:
    if not Path(os.environ["EFFECTS"]).with_name("mended").exists():
        os.kill(os.getpid(), signal.SIGKILL)


async def six(task: str) -> str:
    return ", ".join([await step(number) for number in range(CALLS)])


async def six_changed(task: str) -> str:
    """Another version of the same agent."""
    return ", ".join([await step(number) for number in range(CALLS)]) + ", by the new one"


async def poison(task: str) -> str:
    first = await step(0)
    if task == "in a call":
        return f"{first}, {await deadly(1)}"
    _die_unless_mended()
    return f"{first}, {await step(1)}"


async def eater(task: str) -> str:
    return f"{await step(0)}, {await hungry(1)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a worker process is to do.

    Args:
        scheduler: URL.
        store: URL.
        folder: For `effects`, and for what it says on standard error.
        slots: Runs at once.
        lease_s: See `Fleet`.
        body_s: Seconds that the body of a tool takes.
        shift_s: How wrong its clock is, in seconds.
        most_bytes: Memory that it may have more than it has at its start; 0 for any amount.
        changed: True for the other version of the agent `six`.
    """

    scheduler: str
    store: str
    folder: str
    slots: int = 20
    lease_s: float = 2.0
    body_s: float = 0.05
    shift_s: float = 0.0
    most_bytes: int = 0
    changed: bool = False


def agents(*, changed: bool = False) -> Agents:
    """Return the agents of the fleet."""
    made: dict[str, Callable[..., object]] = {
        "six": six_changed if changed else six,
        "poison": poison,
        "eater": eater,
    }
    return Agents(Registered(name=name, source="the faults", load=lambda a=agent: a) for name, agent in made.items())


def main(work: Work, is_ready: Event) -> None:
    """Work until SIGTERM.

    Args:
        work: What to do.
        is_ready: Set when it is about to begin.
    """
    said = os.open(str(Path(work.folder, f"worker.{os.getpid()}")), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 2)
    os.environ |= {"EFFECTS": str(Path(work.folder, "effects")), "BODY_S": str(work.body_s)}
    if work.shift_s:
        # Every clock of this process that tells the time of day, those of C code too.
        time_machine.travel(time.time() + work.shift_s, tick=True).start()
    if work.most_bytes:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + work.most_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    asyncio.run(_work(work, is_ready))


async def _work(work: Work, is_ready: Event) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # As `oao worker` does it: delivered again a little after the lease has lapsed.
    scheduler = RedisScheduler(work.scheduler, redelivery_s=work.lease_s / 0.8)
    fleet = Fleet(scheduler, work.store, agents(changed=work.changed), lease_s=work.lease_s)
    is_ready.set()
    try:
        await fleet.work(work.slots, stop, 5.0)
    except OaoError as error:
        os.write(2, f"the worker ended: {error!r}\n".encode())
        raise
    finally:
        await fleet.close()
