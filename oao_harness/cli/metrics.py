"""What a worker tells Prometheus, on loopback only: of its queue and its runs, also those in other processes."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from oao_harness.errors import ConfigError
from oao_harness.fleet.isolation import ProcessMetricsOf
from oao_harness.fleet.worker import Fleet
from oao_harness.listeners.metrics import Metrics
from oao_harness.listeners.metrics_exposition import Exposition, asked_of_loop
from oao_harness.listeners.metrics_processes import ProcessMetrics
from oao_harness.stores.observed import ObservedStore

__all__ = ["WorkerMetrics"]

_LONGEST_S: Final = 5.0


class WorkerMetrics:
    """Counts the runs of one worker.

    Args:
        processes: Where its processes count, where each run has one of its own.
    """

    def __init__(self, processes: ProcessMetrics | None = None) -> None:
        self._processes = processes
        self._listener = Metrics() if processes is None else None

    @classmethod
    @contextmanager
    def opened(cls, *, isolated: bool) -> Generator[WorkerMetrics]:
        """Make what is needed, and delete the files of processes at the end.

        Args:
            isolated: True where each run has a process of its own.
        """
        if not isolated:
            yield cls()
            return
        with ProcessMetrics.opened() as processes:
            yield cls(processes)

    @property
    def plugins(self) -> tuple[object, ...]:
        """The plugins of the worker's runs."""
        return () if self._listener is None else (self._listener,)

    @property
    def lend(self) -> ProcessMetricsOf | None:
        """Where the worker's processes count; None where it has none."""
        return None if self._processes is None else self._processes.lend

    @contextmanager
    def served(self, fleet: Fleet, port: int) -> Generator[int]:
        """Serve the metrics on 127.0.0.1 and yield the port.

        Args:
            fleet: The worker; used from the running loop. From now on the appends of its store are timed.
            port: 0 takes a free one.

        Raises:
            ConfigError: The port is taken.
        """
        from prometheus_client import start_http_server  # noqa: PLC0415 - it is there: `Metrics` needs it

        if self._listener is not None:
            fleet.store = ObservedStore(fleet.store, self._listener.appended)
        exposition = Exposition(
            self._listener,
            store=fleet.store,
            stats=asked_of_loop(asyncio.get_running_loop(), fleet.stats),
            folder=None if self._processes is None else self._processes.folder,
        )
        try:
            server, thread = start_http_server(port, addr="127.0.0.1", registry=exposition.registry)
        except OSError as error:
            raise ConfigError(f"--metrics {port}: the port cannot be used: {error}; give another one, or 0") from error
        try:
            yield int(server.server_port)
        finally:
            server.shutdown()
            server.server_close()
            thread.join(_LONGEST_S)
