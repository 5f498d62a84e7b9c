"""The processes that contenders are measured in, seen from outside."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from benchmarks.contending import Contender
from benchmarks.timing import SLICE_VARIABLE

ROOT = Path(__file__).parents[1]
END_S = 10.0
"""Seconds that a process has for what it has started itself."""


class FailedError(Exception):
    """A contender gives no figures; the message says why."""


class MissingError(FailedError):
    """A contender is not installed."""


class Apart:
    """A process that measures contenders, one at a time."""

    def __init__(self, slice_s: float) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        paths = (str(ROOT), str(ROOT / "hookspecs"), os.environ.get("PYTHONPATH", ""))
        environment = {
            **os.environ,
            SLICE_VARIABLE: str(slice_s),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            # Fresh processes are to find byte code, as they do where a package was installed.
            "PYTHONDONTWRITEBYTECODE": "",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.apart"],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def measure(self, contender: Contender, limit_s: float) -> dict[str, float]:
        """Return the figures of one round.

        Raises:
            MissingError: It is not installed.
            FailedError: It raised, it died, or it took longer than the limit.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        order = {"make": contender.make, "options": dict(contender.options), "warm": bool(contender.process)}
        with suppress(BrokenPipeError):
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
        if not select.select([stdout], [], [], limit_s)[0]:
            self.close()
            raise FailedError(f"took longer than {limit_s:g} s")
        answer: dict[str, Any] = json.loads(stdout.readline() or "{}")
        if "missing" in answer:
            raise MissingError(f"not installed: {answer['missing']}")
        if "figures" not in answer:
            raise FailedError(answer.get("error") or f"its process ended: {self._last_error()}")
        return answer["figures"]

    def _last_error(self) -> str:
        self._process.wait(10)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        return next((line[:300] for line in reversed(lines) if line.strip()), "no message")

    @property
    def ended(self) -> bool:
        """Whether it answers no more."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End it, with what it has started."""
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None and not pipe.closed:
                with suppress(BrokenPipeError):
                    pipe.close()


class Processes:
    """The processes of one row by name; those without a name live for one round."""

    def __init__(self, slice_s: float) -> None:
        self._slice_s = slice_s
        self._named: dict[str, Apart] = {}

    def measure(self, contender: Contender, limit_s: float) -> dict[str, float]:
        """Return the figures of one round of a contender; see `Apart.measure`."""
        if not contender.process:
            fresh = Apart(self._slice_s)
            try:
                return fresh.measure(contender, limit_s)
            finally:
                fresh.close()
        named = self._named.get(contender.process)
        if named is None or named.ended:
            named = self._named[contender.process] = Apart(self._slice_s)
        return named.measure(contender, limit_s)

    def close(self) -> None:
        """End all of them."""
        for process in self._named.values():
            process.close()


@contextmanager
def processes(slice_s: float) -> Iterator[Processes]:
    """Yield what measures, and end its processes afterwards."""
    made = Processes(slice_s)
    try:
        yield made
    finally:
        made.close()
