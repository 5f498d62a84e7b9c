"""Opens the bundled schedulers by URL: `local:` and `redis://host:port/db`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, cast

from oao_harness.errors import ConfigError
from oao_hookspecs import hookimpl
from oao_hookspecs.schedulers import Scheduler, SchedulerSettings

__all__ = ["oao_open_scheduler"]

_LEASE: Final = 0.8
"""Part of the time until a job is delivered again after which its run's lease has lapsed."""
_REDIS: Final = ("redis", "docket", "cloudpickle")
"""Packages of the extra `fleet` that the Redis scheduler imports."""


@hookimpl
def oao_open_scheduler(url: str, settings: SchedulerSettings) -> Scheduler | None:
    """Open a bundled scheduler; other schemes are other plugins' business."""
    scheme, _, rest = url.partition(":")
    limits: Mapping[str, Any] = {"tenant_limit": settings.tenant_limit, "agent_limits": settings.agent_limits}
    if scheme == "local":
        if rest.strip("/"):
            raise ConfigError(f"the scheduler's URL {url!r} says more than local: has; give local:")
        # A bundled plugin, loaded when asked for.
        return cast("Scheduler", import_module("oao_harness.schedulers.local").LocalScheduler(**limits))
    if scheme in {"redis", "rediss"}:
        try:
            found = import_module("oao_harness.schedulers.redis")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _REDIS:
                raise
            raise ConfigError(
                f"a {scheme}: scheduler needs the package {'pydocket' if error.name != 'redis' else 'redis'}: "
                "pip install 'oao-harness[fleet]'"
            ) from error
        return cast("Scheduler", found.RedisScheduler(url, redelivery_s=settings.lease_s / _LEASE, **limits))
    return None
