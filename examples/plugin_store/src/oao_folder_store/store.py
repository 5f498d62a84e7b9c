"""The store: two files for each run, its journal and its state. The state says how much of the journal counts.

A batch is first written behind what counts, then the state is replaced by one that counts it too: whoever is killed
between the two has written nothing. One lock for the whole folder: simple, and fast enough for a few agents. POSIX.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from oao_harness import StoreError
from oao_harness.stores.refusals import busy, fenced, gap, missing, require_own_seq
from oao_harness.stores.summaries import ENDS_LEASE, after, tells
from oao_hookspecs import Record, RunQuery, RunSummary
from oao_hookspecs.journals import chained, line_of

__all__ = ["FolderStore"]


@dataclass(frozen=True, kw_only=True)
class _State:
    """What is known of a run beside its journal."""

    id: str
    epoch: int = 0
    owner: str = ""
    leased_until: float = 0.0
    count: int = 0
    size: int = 0
    """Bytes of the journal that count."""
    last: str = ""
    """Hash of the last record."""
    rewritten: int = 0
    """How often the journal was rewritten: each time into a new file."""
    begun: int = 0
    """Place among the runs of the folder, in the order in which they began."""
    row: dict[str, Any] | None = None


class FolderStore:
    """Keeps journals in a folder. Implements `oao_hookspecs.Store`.

    Args:
        folder: Made where there is none. Any number of processes of one machine may open it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = threading.RLock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder {str(folder)!r} cannot be made: {error}; give another one") from error

    def claim(self, execution_id: str, *, owner: str = "", ttl_s: float = 0.0, over: int | None = None) -> int:
        """Become the only writer of a run; see `Store.claim`."""
        with self._locked():
            now = time.time()
            state = self._load(execution_id) or _State(id=execution_id, epoch=self._numbers()["epoch"])
            if state.leased_until > now and over != state.epoch:
                raise busy(execution_id, state.epoch, state.owner, state.leased_until - now)
            until = now + ttl_s if ttl_s else 0.0
            self._save(replace(state, epoch=state.epoch + 1, owner=owner, leased_until=until))
            return state.epoch + 1

    def renew(self, execution_id: str, epoch: int, ttl_s: float) -> None:
        """Let a lease live on; see `Store.renew`."""
        with self._locked():
            self._save(replace(self._held(execution_id, epoch), leased_until=time.time() + ttl_s))

    def release(self, execution_id: str, epoch: int) -> None:
        """End a lease; see `Store.release`."""
        with self._locked():
            state = self._load(execution_id)
            if state is not None and state.epoch == epoch:
                self._save(replace(state, leased_until=0.0))

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        """Append records; see `Store.append`."""
        with self._locked():
            self._append(self._held(execution_id, epoch), records)

    def _append(self, state: _State, records: Sequence[Record]) -> None:
        lines: list[str] = []
        row = None if state.row is None else RunSummary(**state.row)
        had_row, last, until = row is not None, state.last, state.leased_until
        for seq, record in enumerate(records, start=state.count + 1):
            if type(record["seq"]) is not int or record["seq"] != seq:
                raise gap(state.id, record["seq"], seq - 1)
            line, last = chained(last, record)
            lines.append(line + "\n")
            if tells(record):
                row = after(row, state.id, record)
            until = 0.0 if record["type"] in ENDS_LEASE else until
        written = "".join(lines).encode("ascii")
        with self._journal(state).open("ab") as file:
            # What a process left that was killed in the middle.
            file.truncate(state.size)
            file.write(written)
        self._save(
            replace(
                state,
                count=state.count + len(records),
                size=state.size + len(written),
                last=last,
                leased_until=until,
                begun=state.begun if had_row or row is None else self._next("begun"),
                row=None if row is None else asdict(row),
            )
        )

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[Record]:
        """Yield the records of a run in order; see `Store.read`."""
        with self._locked():
            state = self._load(execution_id)
            lines = [] if state is None else self._lines(state)
        for line in lines[after:]:
            yield json.loads(line)

    def runs(self, limit: int | None = 100, *, offset: int = 0, query: RunQuery | None = None) -> Sequence[RunSummary]:
        """Return the newest runs first; see `Store.runs`."""
        with self._locked():
            states = [_State(**json.loads(path.read_bytes())) for path in self._folder.glob("*.state")]
        states.sort(key=lambda state: state.begun, reverse=True)
        rows = [RunSummary(**state.row) for state in states if state.row is not None]
        rows = [row for row in rows if query is None or query.matches(row)]
        rows.sort(key=lambda row: row.started_at, reverse=True)
        return rows[offset:] if limit is None else rows[offset : offset + limit]

    def rewrite(self, execution_id: str, epoch: int, replaced: Mapping[int, Record], *records: Record) -> None:
        """Put other records in place of some; see `Store.rewrite`."""
        require_own_seq(execution_id, replaced)
        with self._locked():
            state = self._held(execution_id, epoch)
            lines = self._lines(state)
            for seq, record in replaced.items():
                if not 1 <= seq <= len(lines):
                    raise missing(execution_id, seq, len(lines))
                lines[seq - 1] = line_of({**record, "hash": json.loads(lines[seq - 1])["hash"]})
            for seq, record in enumerate(records, start=state.count + 1):
                if record["seq"] != seq:
                    raise gap(execution_id, record["seq"], seq - 1)
            written = "".join(f"{line}\n" for line in lines).encode("ascii")
            new = replace(state, rewritten=state.rewritten + 1, size=len(written))
            self._journal(new).write_bytes(written)
            # Saves the state, which names the new file.
            self._append(new, records)
            self._journal(state).unlink(missing_ok=True)

    def delete(self, execution_id: str) -> None:
        """Forget a run; see `Store.delete`."""
        with self._locked():
            state = self._load(execution_id)
            if state is None:
                return
            # First: whoever claims the id anew must get a higher epoch, whatever happens next.
            numbers = self._numbers()
            self._keep({**numbers, "epoch": max(numbers["epoch"], state.epoch)})
            self._state(execution_id).unlink()
            self._journal(state).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is held open."""

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Keep threads and processes away. A process that dies gives its lock back."""
        try:
            with self._threads, (self._folder / "lock").open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StoreError(f"the folder {str(self._folder)!r} cannot be used: {error}") from error

    def _held(self, execution_id: str, epoch: int) -> _State:
        state = self._load(execution_id)
        if state is None or state.epoch != epoch:
            raise fenced(execution_id, epoch)
        return state

    def _load(self, execution_id: str) -> _State | None:
        try:
            return _State(**json.loads(self._state(execution_id).read_bytes()))
        except FileNotFoundError:
            return None

    def _save(self, state: _State) -> None:
        _replace(self._state(state.id), json.dumps(asdict(state)).encode("ascii"))

    def _lines(self, state: _State) -> list[str]:
        if not state.size:
            return []
        with self._journal(state).open("rb") as file:
            return file.read(state.size).decode("ascii").splitlines()

    def _numbers(self) -> dict[str, int]:
        """Return the highest epoch of a run that was deleted, and how many runs have begun."""
        try:
            numbers: dict[str, int] = json.loads((self._folder / "numbers").read_bytes())
        except FileNotFoundError:
            return {"epoch": 0, "begun": 0}
        return numbers

    def _keep(self, numbers: Mapping[str, int]) -> None:
        _replace(self._folder / "numbers", json.dumps(numbers).encode("ascii"))

    def _next(self, name: str) -> int:
        numbers = self._numbers()
        self._keep({**numbers, name: numbers[name] + 1})
        return numbers[name] + 1

    def _state(self, execution_id: str) -> Path:
        return self._folder / f"{_file_name(execution_id)}.state"

    def _journal(self, state: _State) -> Path:
        return self._folder / f"{_file_name(state.id)}.{state.rewritten}.jsonl"


def _file_name(execution_id: str) -> str:
    # An id may hold any character, and half of a surrogate pair.
    return hashlib.sha256(execution_id.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole, or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)
