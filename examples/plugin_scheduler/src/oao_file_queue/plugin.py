"""The entry point: opens `queue:PATH`, for `--scheduler queue:jobs.db`."""

from __future__ import annotations

from pathlib import Path

from oao_file_queue.scheduler import FileQueue
from oao_harness import ConfigError
from oao_hookspecs import Scheduler, SchedulerSettings, hookimpl

__all__ = ["oao_open_scheduler"]


@hookimpl
def oao_open_scheduler(url: str, settings: SchedulerSettings) -> Scheduler | None:
    """Open a queue; other schemes are other plugins' business."""
    scheme, _, path = url.partition(":")
    if scheme != "queue":
        return None
    if settings.tenant_limit is not None or settings.agent_limits:
        raise ConfigError(f"{url!r}: this queue knows no limits on tenants and agents; leave them out")
    return FileQueue(Path(path or "jobs.db"), redelivery_s=settings.lease_s * 1.25)
