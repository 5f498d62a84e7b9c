"""Contenders for the tests of `benchmarks/measuring.py`: what processes of it import."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def constant(*, value: float, log: str = "", who: str = "") -> Callable[[], dict[str, float]]:
    """Give a number, and write down who gave it, and in which process."""

    def measure() -> dict[str, float]:
        if log:
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(f"{who} {os.getpid()}\n")
        print("what contenders print goes nowhere")
        return {"us": value}

    return measure


def raises() -> Callable[[], dict[str, float]]:
    raise ValueError("cannot be made")


def dies() -> Callable[[], dict[str, float]]:
    os.write(2, b"killed by itself\n")
    os._exit(3)


def hangs() -> Callable[[], dict[str, float]]:
    time.sleep(60)
    return constant(value=1)


def not_installed() -> Callable[[], dict[str, float]]:
    import a_package_that_nobody_has  # noqa: F401

    return constant(value=1)


def hangs_with_a_server(*, pid_file: str) -> Callable[[], dict[str, float]]:
    """Start a process that is ended by whoever leaves the context, and never answer."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    Path(pid_file).write_text(str(process.pid), encoding="utf-8")
    try:
        time.sleep(60)
    finally:
        process.kill()
        process.wait()
    return constant(value=1)
