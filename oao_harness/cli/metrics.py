"""What a worker tells Prometheus, on loopback only."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

from oao_harness.errors import ConfigError
from oao_harness.fleet.worker import Fleet
from oao_hookspecs import RunQuery

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.metrics_core import GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:  # pragma: no cover - the environment of the extra alone shows it
    raise ConfigError(
        'the metrics need the package prometheus-client; install it with: pip install "oao-harness[fleet]"'
    ) from error

__all__ = ["serve_metrics"]

_LONGEST_S: Final = 5.0


@contextmanager
def serve_metrics(fleet: Fleet, port: int) -> Generator[int]:
    """Serve the metrics of a fleet on 127.0.0.1, each asked for when somebody asks; yield the port.

    Args:
        fleet: Whose queue it is; used from the running loop.
        port: 0 takes a free one.

    Raises:
        ConfigError: The port is taken.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Queue(fleet, asyncio.get_running_loop()))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ConfigError(f"--metrics {port}: the port cannot be used: {error}; give another one, or 0") from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_LONGEST_S)


class _Queue(Collector):
    def __init__(self, fleet: Fleet, loop: asyncio.AbstractEventLoop) -> None:
        self._fleet = fleet
        self._loop = loop

    def describe(self) -> Iterator[Metric]:
        # Asked at the start, where the loop is not free to answer.
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Ask the queue; an error is the server's 500, since no number is better than a wrong one."""
        stats = asyncio.run_coroutine_threadsafe(self._fleet.stats(), self._loop).result(_LONGEST_S)
        size = GaugeMetricFamily("oao_queue_size", "Jobs in the queue, by state.", labels=["state"])
        for state, number in (("queued", stats.queued), ("delayed", stats.delayed), ("running", stats.running)):
            size.add_metric([state], number)
        yield size
        yield GaugeMetricFamily("oao_workers", "Workers that were heard of.", value=len(stats.workers))
        dead = self._fleet.store.runs(None, query=RunQuery(status="DEAD", outer=True))
        yield GaugeMetricFamily("oao_dead_letters", "Jobs that ended too many workers.", value=len(dead))
