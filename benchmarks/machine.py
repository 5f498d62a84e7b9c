"""The machine that is measured on: what it is, how busy it is, and a quiet moment to measure in."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LOOK_S = 0.25
QUIET_CORES = 0.8
"""Idle cores that count as a quiet moment: contenders have one thread at work."""


def described() -> dict[str, object]:
    """Return what the record says of the machine."""
    models = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": next(models, "model name : ?").partition(":")[2].strip(),
        "cores": os.cpu_count(),
    }


def load() -> float:
    """Return the load of the last minute."""
    return os.getloadavg()[0]


def idle_cores(over_s: float = LOOK_S) -> float:
    """Return how many cores had nothing to do, over some seconds from now on."""
    before = _times()
    time.sleep(over_s)
    idle, total = (after - earlier for after, earlier in zip(_times(), before, strict=True))
    return idle / total * (os.cpu_count() or 1) if total else 0.0


def _times() -> tuple[int, int]:
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


def wait_for_quiet(most_s: float) -> tuple[bool, float]:
    """Wait until about one core is idle, or for some seconds; return whether it was, and the seconds."""
    began = time.monotonic()
    while (idle := idle_cores()) < QUIET_CORES and time.monotonic() - began < most_s:
        pass
    return idle >= QUIET_CORES, time.monotonic() - began


def installed(package: str) -> str | None:
    """Return the version of a distribution; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
