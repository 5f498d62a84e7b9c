"""What somebody who scrapes is shown: the metrics of a listener, and what store and queue say at that moment."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import (
    MultiProcessCollector,
    mark_process_dead,  # pyright: ignore[reportUnknownVariableType]
)
from prometheus_client.registry import Collector

from oao_harness.listeners.metrics import Metrics
from oao_harness.listeners.metrics_table import family
from oao_harness.listeners.metrics_waiting import PendingQuestions
from oao_hookspecs import QueueStats, RunQuery, Store

__all__ = ["Exposition", "asked_of_loop"]

_log: Final = logging.getLogger("oao")

_PATIENCE_S: Final = 3.0
"""Seconds that a scrape waits for a source; Prometheus itself gives up after 10."""
_HANGING_S: Final = 0.05
"""The same while the answer to an earlier scrape is still out."""
_LOOP_S: Final = 30.0
_DEAD: Final = RunQuery(status="DEAD", outer=True)
_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"


def asked_of_loop(
    loop: asyncio.AbstractEventLoop, stats: Callable[[], Coroutine[Any, Any, QueueStats]]
) -> Callable[[], QueueStats]:
    """Return what asks a queue from any thread but the loop's own.

    Args:
        loop: Runs; the queue is used from it.
        stats: For example `Jobs.stats`.
    """
    return lambda: asyncio.run_coroutine_threadsafe(stats(), loop).result(_LOOP_S)


class Exposition:
    """The page `/metrics` of a server or of a worker.

    A source that fails, or does not answer in 3 seconds, takes only its own metrics away: `oao_scrape_up` says so, and
    the page is there. It may be asked from several threads at once.

    Args:
        metrics: The listener; None where the runs are other processes'.
        store: Where the journals are; None leaves out what it would say. It must be safe to use from any thread.
        stats: Asks the queue, in a thread, see `asked_of_loop`; None leaves out what it would say.
        folder: Where processes keep their metrics: then theirs are shown, all together. By default the folder that
            the environment names for the multiprocess mode of prometheus_client.
        fresh_s: Seconds for which what store and queue said is shown again, >= 0.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        *,
        store: Store | None = None,
        stats: Callable[[], QueueStats] | None = None,
        folder: str | Path | None = None,
        fresh_s: float = 5.0,
    ) -> None:
        self._metrics = metrics
        folder = folder or os.environ.get(_DIRECTORY) or None
        self._processes = None if folder is None else _Processes(Path(folder))
        self._sources: list[_Source] = []
        if store is not None:
            self._sources.append(_Source("store", _of_store(store), fresh_s))
        if stats is not None:
            self._sources.append(_Source("queue", _of_queue(stats), fresh_s))
        self.registry = CollectorRegistry(auto_describe=False)
        """All of it, for who serves registries, such as `prometheus_client.make_asgi_app`."""
        self.registry.register(_Everything(self._collect))

    def answer(self, accept: str = "") -> tuple[bytes, str]:
        """Return the page and its content type.

        Args:
            accept: The request's header; OpenMetrics where it is named there, else the text format of Prometheus.
        """
        wanted = "application/openmetrics-text; version=1.0.0" if "application/openmetrics-text" in accept else ""
        encode, content_type = choose_encoder(wanted)
        return encode(self.registry), content_type

    def _collect(self) -> Iterator[Metric]:
        up: dict[str, bool] = {}
        if self._metrics is not None:
            self._metrics.refresh()
        if self._processes is not None:
            found = self._processes.read()
            up["processes"] = found is not None
            yield from map(_without_creation, found or ())
        elif self._metrics is not None:
            yield from map(_without_creation, self._metrics.registry.collect())
        for source in self._sources:
            answer = source.answer()
            up[source.name] = answer is not None
            yield from answer or ()
        yield _gauge("oao_scrape_up", {(name,): float(is_up) for name, is_up in up.items()})


class _Everything(Collector):
    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> Iterable[Metric]:
        # Asked at the start, where nobody may be able to answer.
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def _without_creation(metric: Metric) -> Metric:
    """Leave out when each series was created: a second series for each, which hardly anybody asks for."""
    metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    return metric


def _gauge(name: str, values: dict[tuple[str, ...], float]) -> Metric:
    one = family(name)
    gauge = GaugeMetricFamily(one.name, one.meaning, labels=one.labels)
    for labels, value in values.items():
        gauge.add_metric(labels, value)
    return gauge


def _of_store(store: Store) -> Callable[[], list[Metric]]:
    questions = PendingQuestions(store)

    def ask() -> list[Metric]:
        pending = questions.count(time.time())
        return [
            _gauge("oao_approvals_pending", {(): pending.questions}),
            _gauge("oao_approvals_oldest_age_seconds", {(): pending.oldest_age_s}),
            _gauge("oao_dead_letters", {(): len(store.runs(None, query=_DEAD))}),
        ]

    return ask


def _of_queue(stats: Callable[[], QueueStats]) -> Callable[[], list[Metric]]:
    def ask() -> list[Metric]:
        now = stats()
        sizes: dict[tuple[str, ...], float] = {
            ("queued",): now.queued,
            ("delayed",): now.delayed,
            ("running",): now.running,
        }
        return [_gauge("oao_queue_size", sizes), _gauge("oao_workers", {(): len(now.workers)})]

    return ask


class _Source:
    """Asks something that may fail or hang, one question at a time, in a thread that nobody waits for at the end."""

    def __init__(self, name: str, ask: Callable[[], list[Metric]], fresh_s: float) -> None:
        self.name = name
        self._ask = ask
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._asking: threading.Thread | None = None
        self._said: list[Metric] | None = None
        self._said_at = float("-inf")
        self._failed = False

    def answer(self) -> list[Metric] | None:
        """Return what it says now, or said a moment ago; None where it cannot."""
        with self._lock:
            if time.monotonic() - self._said_at <= self._fresh_s:
                return self._said
            thread, patience_s = self._asking, _HANGING_S
            if thread is None or not thread.is_alive():
                thread = threading.Thread(target=self._run, name=f"oao-scrape-{self.name}", daemon=True)
                self._asking, patience_s = thread, _PATIENCE_S
                thread.start()
        thread.join(patience_s)
        with self._lock:
            if thread.is_alive():
                self._fail(f"it does not answer within {_PATIENCE_S:g} s")
                return None
            return self._said

    def _run(self) -> None:
        try:
            said = self._ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, the page must be there
            with self._lock:
                self._said = None
                self._fail(f"{type(error).__name__}: {error}")
            return
        with self._lock:
            self._said, self._said_at, self._failed = said, time.monotonic(), False

    def _fail(self, why: str) -> None:
        """Say once why it cannot be asked, until it can again."""
        if not self._failed:
            _log.warning("the %s cannot be asked for metrics, which are left out: %s", self.name, why)
        self._failed = True


class _Processes:
    """Reads the files in which processes keep their metrics."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed = False

    def read(self) -> list[Metric] | None:
        """Return the metrics of all processes together; None where a file is damaged."""
        try:
            self._bury()
            # One that was only just made is empty.
            files = [str(file) for file in self._folder.glob("*.db") if _size(file)]
            merged = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
            found = list(cast("Iterable[Metric]", merged))
        except Exception as error:  # noqa: BLE001 - the library raises anything where a file is damaged
            if not self._failed:
                _log.warning("the metrics of processes in %s cannot be read: %s", self._folder, error)
            self._failed = True
            return None
        self._failed = False
        return found

    def _bury(self) -> None:
        """Take the gauges of what lives away from processes that do not."""
        for pid in {file.stem.rpartition("_")[2] for file in self._folder.glob("gauge_live*.db")}:
            if pid.isdecimal() and not _is_alive(int(pid)):
                mark_process_dead(int(pid), str(self._folder))  # type: ignore[no-untyped-call]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
