"""The seed's `DistributedScheduler`: jobs of a fleet in three methods, for code that has no event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from oao_harness.fleet.agents import Agents
from oao_harness.fleet.jobs import Jobs
from oao_harness.runtime.report import ExecutionReport
from oao_hookspecs import Scheduler, Store

__all__ = ["DistributedScheduler"]

T = TypeVar("T")

_CLOSING_S: Final = 5.0


class DistributedScheduler:
    """Submits jobs to a fleet and fetches what became of them; thread-safe. `Fleet` is the whole of it, and async.

    ```python
    with DistributedScheduler("redis://localhost:6379/0") as scheduler:
        job = scheduler.submit_job("support", "Order A-1042 arrived broken")
        report = scheduler.fetch_result(job, timeout_s=60)
    ```

    Args:
        url: Of the scheduler, for example `redis://host:port/db`; what is no text is one.
        store: Where the journals are; by default the same server.
        agents: See `Jobs`.

    Raises:
        ConfigError: See `Jobs`.
        StoreError: See `Jobs`.
    """

    def __init__(self, url: str | Scheduler, store: str | Store | None = None, agents: Agents | None = None) -> None:
        where = store if store is not None else url if isinstance(url, str) else "memory:"
        self._loop = asyncio.new_event_loop()
        # The queue's connections belong to one loop, whoever calls.
        self._thread = threading.Thread(target=self._loop.run_forever, name="oao-jobs", daemon=True)
        self._thread.start()
        try:
            self._jobs = self._ask(_made(url, where, agents))
        except BaseException:
            self._stop()
            raise

    def submit_job(self, agent: str, task: object = None, **options: Any) -> str:
        """Queue a run of a registered agent and return its id; see `Jobs.submit` for options and errors."""
        return self._ask(self._jobs.submit(agent, task, **options))

    def get_status(self, job: str) -> str:
        """Return QUEUED, RUNNING, SUSPENDED, DEAD, SUCCESS or FAILED; see `Jobs.status` for the errors."""
        return self._ask(self._jobs.status(job)).status

    def fetch_result(self, job: str, timeout_s: float | None = None) -> ExecutionReport | None:
        """Return the report of a job as soon as it is over, None where it is not in time; see `Jobs.fetch`."""
        return self._ask(self._jobs.fetch(job, timeout_s))

    def close(self) -> None:
        """Close the connections. Calling it twice is allowed."""
        if self._loop.is_running():
            self._ask(self._jobs.close())
            self._stop()

    def __enter__(self) -> DistributedScheduler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        found: Future[T] = asyncio.run_coroutine_threadsafe(question, self._loop)
        return found.result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSING_S)
        self._loop.close()


async def _made(url: str | Scheduler, store: str | Store, agents: Agents | None) -> Jobs:
    return Jobs(url, store, agents)
