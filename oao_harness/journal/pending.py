"""Pending recordings: what a run would change, as a file `NAME.new` beside the recording, until a person accepts it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oao_harness.errors import RecordingError
from oao_harness.journal.changes import Changes, changes
from oao_harness.journal.recording import Recording

__all__ = ["SUFFIX", "Pending", "find_pending", "find_recordings", "pending_path", "recorded_path"]

SUFFIX: Final = ".new"
RECORDING_SUFFIX: Final = ".oao.json"
# Nobody's tests are in there, and some of these hold a hundred thousand files.
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "blobs"})


def pending_path(path: str | Path) -> Path:
    """Return where the pending recording of a recording is."""
    return Path(f"{path}{SUFFIX}")


def recorded_path(path: str | Path) -> Path:
    """Return the recording that a file, a recording or a pending one, is about."""
    return Path(str(path).removesuffix(SUFFIX))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A recording that waits for a person."""

    path: Path
    """Of the recording; the pending one is beside it."""

    @property
    def file(self) -> Path:
        """The pending file."""
        return pending_path(self.path)

    @property
    def is_new(self) -> bool:
        """True where there is no recording yet."""
        return not self.path.exists()

    def old(self) -> Recording | None:
        """Read the recording; None where there is none yet.

        Raises:
            RecordingError: It is damaged.
        """
        return Recording.load(self.path) if self.path.exists() else None

    def new(self) -> Recording:
        """Read the pending recording.

        Raises:
            RecordingError: It is damaged, or no longer there.
        """
        return Recording.load(self.file)

    def changes(self) -> Changes:
        """Compare the two.

        Raises:
            RecordingError: One of them is damaged.
        """
        return changes(self.old(), self.new())

    def accept(self) -> None:
        """Make the pending recording the recording.

        Raises:
            RecordingError: It is damaged, is no longer there, or cannot be moved.
        """
        # Whoever accepts what cannot be read has lost what could.
        self.new()
        try:
            self.file.replace(self.path)
        except OSError as error:
            raise RecordingError(f"{str(self.file)!r} cannot be moved: {error}") from error

    def reject(self) -> None:
        """Delete the pending recording; the recording stays.

        Raises:
            RecordingError: It cannot be deleted.
        """
        try:
            self.file.unlink(missing_ok=True)
        except OSError as error:
            raise RecordingError(f"{str(self.file)!r} cannot be deleted: {error}") from error


def find_pending(paths: Iterable[str | Path]) -> list[Pending]:
    """Return the pending recordings that files and folders name, each once, by path.

    Args:
        paths: Recordings, pending ones, or folders, which are searched.

    Raises:
        RecordingError: A path does not exist, or nothing is pending for a file.
    """
    found: dict[Path, Pending] = {}
    for path in map(Path, paths):
        if path.is_dir():
            for file in _files(path, RECORDING_SUFFIX + SUFFIX):
                found.setdefault(recorded_path(file).resolve(), Pending(path=recorded_path(file)))
            continue
        pending = Pending(path=recorded_path(path))
        if not pending.file.exists():
            if pending.path.exists():
                raise RecordingError(f"nothing is pending for {str(pending.path)!r}; `oao pending` lists what is")
            raise RecordingError(f"there is no recording {str(path)!r}; `oao pending` lists what is pending")
        found.setdefault(pending.path.resolve(), pending)
    return [found[key] for key in sorted(found)]


def find_recordings(paths: Iterable[str | Path]) -> list[Path]:
    """Return the recordings that files and folders name, each once, by path; pending ones are not among them.

    Raises:
        RecordingError: A path does not exist.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise RecordingError(f"there is no file or folder {str(path)!r}")
        for file in _files(path, RECORDING_SUFFIX) if path.is_dir() else [path]:
            found.setdefault(file.resolve(), file)
    return [found[key] for key in sorted(found)]


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if one not in _SKIPPED and not one.startswith("."))
        yield from (Path(here) / name for name in names if name.endswith(suffix) and not name.startswith("."))
