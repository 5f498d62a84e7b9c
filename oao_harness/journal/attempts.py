"""Attempts: the journal of a test while it is recorded, one JSON line for each record, so that a crash loses nothing.

Kept outside of the recordings, in a folder that version control ignores. An attempt that became a recording is
deleted; one that failed is kept, to be looked at: its calls were paid for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final, cast

from oao_harness.errors import RecordingError
from oao_harness.journal.credentials import may_hold_credentials, without_credentials
from oao_harness.journal.secrets import Scrubber
from oao_hookspecs import Json, Record

__all__ = ["Attempt", "read_attempt"]

_IGNORE: Final = "# Attempts at recordings, and what sessions share; nothing here is to be committed.\n*\n"


class Attempt:
    """Writes the records of one attempt, from any thread.

    Args:
        folder: `.oao` of the project; made where it is missing.
        name: File name without suffix.
        scrubber: Takes secrets out.
    """

    def __init__(self, folder: Path, name: str, scrubber: Scrubber) -> None:
        self._folder = folder
        self._path = folder / "wip" / f"{name}.jsonl"
        self._scrubber = scrubber
        self._lock = threading.Lock()
        self._file: IO[str] | None = None

    def write(self, run: str, record: Record) -> None:
        """Append a record.

        Raises:
            OSError: It cannot be written.
        """
        clean = self._scrubber.scrub({"run": run, "record": cast("Json", record)})
        line = json.dumps(clean, ensure_ascii=True)
        if may_hold_credentials(line):
            # A recording is not saved then; an attempt was paid for, and stays.
            line = json.dumps(without_credentials(clean), ensure_ascii=True)
        with self._lock:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                ignore = self._folder / ".gitignore"
                if not ignore.exists():
                    ignore.write_text(_IGNORE, encoding="utf-8")
                if self._path.exists():
                    # Left by a process that was killed.
                    self._keep()
                self._file = self._path.open("w", encoding="utf-8")
            self._file.write(line + "\n")
            self._file.flush()

    def close(self, *, kept: bool) -> Path | None:
        """End the attempt.

        Args:
            kept: True where it became a recording: then it is deleted.

        Returns:
            Where it can be looked at, where it failed.
        """
        with self._lock:
            if self._file is None:
                return None
            self._file.close()
            self._file = None
        if kept:
            self._path.unlink(missing_ok=True)
            return None
        return self._keep()

    def _keep(self) -> Path:
        failed = self._folder / "failed" / self._path.name
        failed.parent.mkdir(exist_ok=True)
        return self._path.replace(failed)


def read_attempt(path: Path) -> Sequence[tuple[str, Record]]:
    """Return `(run name, record)` of an attempt; a last line that a crash cut off is left out.

    Raises:
        RecordingError: It is no attempt.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    found: list[tuple[str, Record]] = []
    for number, line in enumerate(lines, start=1):
        try:
            node = cast("dict[str, Any]", json.loads(line))
            found.append((str(node["run"]), cast("Record", node["record"])))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and found:
                break
            raise RecordingError(f"{path}:{number}: this is no attempt at a recording: {error}") from error
    return found
