"""Does one job in a process of its own, which can be killed: for agents that no thread and no event loop can stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final, Literal, TypeAlias, cast

from oao_harness.errors import (
    AgentError,
    BusyError,
    ChangedError,
    ConfigError,
    DamagedError,
    FencedError,
    OaoError,
    StoreError,
    UsageError,
)
from oao_hookspecs import Json

__all__ = ["Ended", "ProcessMetricsOf", "run_in_process", "said_of"]

Ended: TypeAlias = Literal["ended", "died", "limit"]
"""How the process ended: by itself; killed by somebody else, or by its own fault; killed because its time was over."""

ProcessMetricsOf: TypeAlias = Callable[[], AbstractContextManager[Mapping[str, Json]]]
"""Yields what a process must be told to count its run, for as long as the process lives."""

_GRACE_S: Final = 3.0
"""Seconds that a process gets to end its run, or to put it down."""
_SAID_BYTES: Final = 65536
_MOST_CHARS: Final = 4000
_ERRORS: Final[dict[str, type[OaoError]]] = {
    kind.__name__: kind
    for kind in (AgentError, ChangedError, ConfigError, UsageError, DamagedError, FencedError, StoreError, OaoError)
}


async def run_in_process(
    store_url: str,
    execution_id: str,
    *,
    lease_s: float,
    limit_s: float | None = None,
    plugins: Sequence[str] = (),
    put_down: asyncio.Event | None = None,
    metrics: ProcessMetricsOf | None = None,
) -> Ended:
    """Begin with a queued run, or go on with it, in a new process. What became of the run is in its journal.

    The process finds the agent by its registered name, in the working folder of this one. It dies with this process.
    Cancelling this coroutine cancels the run, and kills the process after 3 seconds; the journal of one that had to
    be killed ends anywhere. Killing takes its whole process group: what the agent has started too.

    Args:
        store_url: Where the journal is; handed over by a pipe, so that no list of processes shows a password.
        execution_id: The run; its journal says which agent and which policies.
        lease_s: See `Orchestrator`.
        limit_s: Seconds after which it is killed at once; None never.
        plugins: Names of installed plugins that may decide; see `Orchestrator`.
        put_down: When it is set, the process is told to put the run down, so that another worker goes on with it: its
            journal says `run.queued` then. After 3 seconds it is killed.
        metrics: Where the process counts its run, see `ProcessMetrics.lend`; None: nowhere.

    Returns:
        `ended` says nothing of how: the run may have failed. After `died` and `limit` the journal may end anywhere.

    Raises:
        BusyError: Another worker has the run.
        StoreError: The store cannot be reached, or another worker took the run over.
        UsageError: The process cannot do this job: it does not know the agent, or has other code.
    """
    if not hasattr(os, "killpg"):
        raise UsageError("isolation='process' needs the process groups of Linux or macOS; leave it out here")
    asked: dict[str, object] = {"store": store_url, "execution_id": execution_id, "lease_s": lease_s}
    with nullcontext(None) if metrics is None else metrics() as counted:
        process, line, said = await _spawn({**asked, "plugins": list(plugins), "metrics": counted})
        try:
            ended = await _watched(process, limit_s, put_down or asyncio.Event())
            told = _read(said)
        finally:
            # Nothing of it outlives this coroutine, however that ends.
            if process.returncode is None:
                _signal(process.pid, signal.SIGKILL)
            os.close(line)
            os.close(said)
    return _outcome(ended, told, process.returncode, execution_id)


async def _spawn(asked: dict[str, object]) -> tuple[asyncio.subprocess.Process, int, int]:
    """Return the process, the end of the pipe that it lives as long as, and that on which it says what was wrong."""
    asked_in, line = os.pipe()
    said, said_in = os.pipe()
    try:
        # Plain pipes and no streams: those would keep `wait` waiting for what the agent has started and left.
        os.write(line, json.dumps(asked).encode() + b"\n")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "oao_harness.fleet.child", stdin=asked_in, stdout=said_in, start_new_session=True
        )
    except BaseException:
        os.close(line)
        os.close(said)
        raise
    finally:
        os.close(asked_in)
        os.close(said_in)
    return process, line, said


async def _watched(process: asyncio.subprocess.Process, limit_s: float | None, put_down: asyncio.Event) -> Ended:
    ends, told = asyncio.ensure_future(process.wait()), asyncio.ensure_future(put_down.wait())
    try:
        done, _ = await asyncio.wait({ends, told}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            # No time to put the run down: one that always takes too long would come back for ever.
            _signal(process.pid, signal.SIGKILL)
            await ends
            return "limit"
        if not ends.done():
            await _stopped(process, ends, signal.SIGTERM)
    except asyncio.CancelledError:
        await _stopped(process, ends, signal.SIGTERM if put_down.is_set() else signal.SIGINT)
        raise
    finally:
        told.cancel()
        ends.cancel()
    if process.returncode == 0:
        return "ended"
    _signal(process.pid, signal.SIGKILL)
    return "died"


async def _stopped(process: asyncio.subprocess.Process, ends: asyncio.Future[int], number: signal.Signals) -> None:
    """Ask a process to end, and kill it where it does not."""
    if process.returncode is None:
        # Only the process: what its agent has started would not know what it means.
        with suppress(ProcessLookupError):
            process.send_signal(number)
        await asyncio.wait({ends}, timeout=_GRACE_S)
        _signal(process.pid, signal.SIGKILL)
        await asyncio.wait({ends})


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _read(said: int) -> list[dict[str, object]]:
    """Return what the process has said; it is dead, so nothing more comes."""
    os.set_blocking(said, False)
    with suppress(BlockingIOError):
        lines = os.read(said, _SAID_BYTES).decode("utf-8", "replace").split("\n")[:-1]
        return [cast("dict[str, object]", json.loads(line)) for line in lines]
    return []


def _outcome(ended: Ended, told: list[dict[str, object]], code: int | None, execution_id: str) -> Ended:
    for one in told:
        if "error" in one:
            raise _error(one)
    if ended == "died" and not told:
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        raise AgentError(
            f"the process of run {execution_id!r} ended with {how} before it could begin; import the agent's module "
            "by hand to see why"
        )
    return ended


def said_of(error: BaseException) -> dict[str, object]:
    """Return an error as the process says it to its worker.

    Args:
        error: What stopped it before the run did.
    """
    kind = next((one.__name__ for one in type(error).__mro__ if one.__name__ in _ERRORS or one is BusyError), "")
    reason = str(error) if kind else f"{type(error).__name__}: {error}"
    said: dict[str, object] = {"error": kind or "AgentError", "reason": reason[:_MOST_CHARS]}
    if isinstance(error, BusyError):
        said |= {"epoch": error.epoch, "owner": error.owner[:_MOST_CHARS], "left_s": error.left_s}
    return said


def _error(said: dict[str, object]) -> OaoError:
    reason = str(said["reason"])
    if said["error"] == "BusyError":
        return BusyError(
            reason,
            epoch=cast("int", said["epoch"]),
            owner=str(said["owner"]),
            left_s=cast("float", said["left_s"]),
        )
    return _ERRORS[str(said["error"])](reason)
