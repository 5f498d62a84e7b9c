"""The process that `run_in_process` starts: does one job and ends, with exit code 0 where nothing went wrong.

It is told on standard input what to do, and lives no longer than that stays open. What the agent prints goes to
standard error; standard output belongs to the worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

from oao_harness.fleet.isolation import said_of

if TYPE_CHECKING:
    from oao_harness.runtime.report import ExecutionReport

__all__ = ["main"]

_Tell = Callable[[Mapping[str, object]], None]


def main() -> NoReturn:
    """Read from standard input what to do, do it, and end this process; its other threads are not waited for."""
    line = os.fdopen(os.dup(0), "rb")
    said = os.dup(1)
    # Before any code of the agent's: what it reads or prints must not be the worker's.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    first = line.readline()
    if not first:
        os._exit(1)
    asked = cast("dict[str, Any]", json.loads(first))
    threading.Thread(target=_die_with, args=(line,), name="oao-lifeline", daemon=True).start()

    def tell(what: Mapping[str, object]) -> None:
        os.write(said, json.dumps(what).encode() + b"\n")

    code = 0
    try:
        _do(asked, tell)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the worker must hear of it
        tell(said_of(error))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # An agent's thread that hangs would keep the process from ending.
    os._exit(code)


def _die_with(line: IO[bytes]) -> None:
    line.read()
    os.killpg(0, signal.SIGKILL)


def _do(asked: Mapping[str, Any], tell: _Tell) -> None:
    # Not before the lifeline is there: it takes half a second.
    from oao_harness.errors import UsageError  # noqa: PLC0415
    from oao_harness.fleet.agents import Agents  # noqa: PLC0415
    from oao_harness.fleet.status import job_of  # noqa: PLC0415
    from oao_harness.fleet.worker import retries_of, shared_of  # noqa: PLC0415
    from oao_harness.loading import import_policies, prefer_working_folder  # noqa: PLC0415
    from oao_harness.runtime.orchestrator import Orchestrator  # noqa: PLC0415

    prefer_working_folder()
    id_ = str(asked["execution_id"])
    store = Orchestrator(store=str(asked["store"])).store
    plugins: list[object] = [*asked["plugins"]]
    if asked.get("metrics"):
        from oao_harness.listeners.metrics_processes import metrics_of_process  # noqa: PLC0415
        from oao_harness.stores.observed import ObservedStore  # noqa: PLC0415

        # Before the agent is imported: what it counts itself goes to the same place.
        metrics = metrics_of_process(asked["metrics"])
        store = ObservedStore(store, metrics.appended)
        plugins.append(metrics)
    job = job_of(list(store.read(id_)))
    if job is None:
        raise UsageError(f"run {id_!r} is no job of this store")
    registered = Agents.discover().get(str(job["agent"]))
    agent = registered.load()
    policies = registered.policies([str(name) for name in cast("list[object]", job.get("policy") or [])])
    import_policies(policies)
    orchestrator = Orchestrator(policies, store, plugins, lease_s=asked["lease_s"])
    retries, shared = retries_of(job), shared_of(job, str(asked["store"]))
    tell({"begins": id_})
    # Without asyncio.run, which waits for threads of the agent's when the loop is closed.
    loop = asyncio.new_event_loop()
    work = loop.create_task(orchestrator.work(id_, agent, retries=retries, shared=shared))
    loop.add_signal_handler(signal.SIGTERM, _put_down, id_)
    loop.add_signal_handler(signal.SIGINT, work.cancel)
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(work)
    if work.cancelled():
        store.close()
        return
    report = work.result()
    _require_kept(report)
    store.close()


def _put_down(execution_id: str) -> None:
    """Halt the run so that another worker goes on with it."""
    from oao_harness.runtime import context  # noqa: PLC0415
    from oao_harness.runtime.requeuing import Requeued, put_down  # noqa: PLC0415

    runs = context.open_runs({execution_id})
    if not runs:
        os._exit(1)
    for run in runs:
        put_down(run, Requeued(reason="its worker stopped", attempt=None, delay_s=0.0, again=()))


def _require_kept(report: ExecutionReport) -> None:
    from oao_harness.errors import FencedError, StoreError  # noqa: PLC0415

    rule = (report.violation or {}).get("rule")
    if report.status == "FAILED" and rule in {"lease", "journal"}:
        # Nobody knows here how the run ends: another worker has it, or the store is away.
        raise (FencedError if rule == "lease" else StoreError)(str(report.error))


if __name__ == "__main__":
    main()
