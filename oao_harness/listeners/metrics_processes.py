"""Metrics of jobs that are done in processes of their own: where these write them, and that little of it remains.

A process that does one job is gone before anybody scrapes, so it counts in files of a folder. Each takes over the
files of one that has ended: there are never more of them than processes at once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from oao_hookspecs import Json

if TYPE_CHECKING:
    from oao_harness.listeners.metrics import Metrics

__all__ = ["ProcessMetrics", "metrics_of_process"]

_PREFIX: Final = "oao-metrics-"
_LOCK: Final = "lock"


class ProcessMetrics:
    """The folder in which the processes of a worker count, for as long as the worker lives.

    ```python
    with ProcessMetrics.opened() as processes:
        fleet = Fleet(..., isolation="process", process_metrics=processes.lend)
        page, content_type = Exposition(folder=processes.folder).answer()
    ```

    Args:
        folder: Empty, and nobody else's.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._lent: set[int] = set()

    @classmethod
    @contextmanager
    def opened(cls) -> Generator[ProcessMetrics]:
        """Make a temporary folder and delete it at the end; those that killed workers have left are deleted too."""
        import fcntl  # noqa: PLC0415 - only Linux and macOS have it, and processes in place of threads

        parent = Path(tempfile.gettempdir())
        for left in parent.glob(f"{_PREFIX}*"):
            _delete_if_left(left)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with (folder / _LOCK).open("wb") as file:
            # Says that its worker lives, also to who cannot see the worker's process.
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield cls(folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def lend(self) -> Generator[Mapping[str, Json]]:
        """Yield what a process must be told to count here; when it has ended, what it had open is open no more."""
        from prometheus_client.multiprocess import (  # noqa: PLC0415 - it is what the extra holds
            mark_process_dead,  # pyright: ignore[reportUnknownVariableType]
        )

        with self._lock:
            slot = next(number for number in range(len(self._lent) + 1) if number not in self._lent)
            self._lent.add(slot)
        try:
            yield {"folder": str(self.folder), "slot": slot}
        finally:
            mark_process_dead(_identifier(slot), str(self.folder))  # type: ignore[no-untyped-call]
            with self._lock:
                self._lent.discard(slot)


def _delete_if_left(folder: Path) -> None:
    import fcntl  # noqa: PLC0415

    with suppress(OSError), (folder / _LOCK).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def metrics_of_process(told: Mapping[str, Json]) -> Metrics:
    """Return the listener of a process that was lent a place, before anything else in it counts.

    Args:
        told: What `ProcessMetrics.lend` yielded.
    """
    # The library reads this name whenever it opens a file.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(told["folder"])
    from prometheus_client import values  # noqa: PLC0415 - not before the line above
    from prometheus_client.values import (  # noqa: PLC0415
        MultiProcessValue,  # pyright: ignore[reportUnknownVariableType]
    )

    name, own = _identifier(cast("int", told["slot"])), os.getpid()

    def identify() -> str:
        # What the agent forks is another process, and may live longer than this one.
        return name if os.getpid() == own else str(os.getpid())

    # As its documentation does for uWSGI: read when a metric is made, which is later.
    values.ValueClass = cast("Callable[..., object]", MultiProcessValue)(identify)
    from oao_harness.listeners.metrics import Metrics  # noqa: PLC0415

    return Metrics()


def _identifier(slot: int) -> str:
    return f"slot{slot}"
