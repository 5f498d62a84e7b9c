"""Journals in one SQLite file (WAL): the default of the command line, `.oao/oao.db`."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

from oao_harness.errors import ConfigError, StoreError
from oao_harness.stores.refusals import (
    busy,
    damaged,
    deleted_meanwhile,
    fenced,
    first_of,
    gap,
    missing,
    require_own_seq,
)
from oao_harness.stores.sqlite_commits import Append, Commits
from oao_harness.stores.sqlite_file import SQLiteFile, load_text, to_text
from oao_harness.stores.summaries import told
from oao_hookspecs import Record, RunQuery, RunSummary, chained, line_of, without_hash

__all__ = ["SQLiteStore"]

_COLUMNS: Final = "execution_id, agent_name, status, started_at, finished_at, totals, parent, forked_from, tenant"
_PAGE: Final = 1000
_REMEMBERED: Final = 10_000
_NEW_RUN: Final = (
    "insert into runs (execution_id, epoch, owner, leased_until) "
    "select ?, n + 1, ?, ? from counts where name = 'deleted' returning epoch"
)
_HIGHEST_DELETED: Final = (
    "update counts set n = max(n, coalesce((select epoch from runs where execution_id = ?), 0)) where name = 'deleted'"
)


class _Run(NamedTuple):
    """What a writer must know of a run."""

    epoch: int
    owner: str
    leased_until: float
    """Unix seconds; 0 where nobody holds a lease."""


class SQLiteStore:
    """A store in a file that many processes may open.

    A record is on its way to the disk when `append` returns: it survives the death of the process, at any moment.
    Threads that append at once share one transaction, see `Commits`. What is deleted or redacted is overwritten in
    the file, and gone from its write-ahead log when the store is closed.

    Args:
        path: The database file; its folder is made where it is missing. Not on a network drive.
        busy_timeout_s: Seconds to wait for another process that writes.
        durability: `process`: the newest records may be lost when the machine loses power, the others not.
            `power`: none is, and each transaction waits for the disk.

    Raises:
        ConfigError: There is no such durability.
        StoreError: The file cannot be opened, is no database, or was written by a newer oao.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        busy_timeout_s: float = 10.0,
        durability: Literal["process", "power"] = "process",
    ) -> None:
        if durability not in {"process", "power"}:
            raise ConfigError(f"a store knows no durability {durability!r}; give 'process' or 'power'")
        synchronous = "full" if durability == "power" else "normal"
        self._file = SQLiteFile(path, busy_timeout_s=busy_timeout_s, synchronous=synchronous)
        self._db = self._file.writer
        self._lock = threading.Lock()
        self._commits = Commits(self._file, self._lock)
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._closed = False
        self._erased = False
        self._last: dict[str, tuple[int, int, str]] = {}
        """Epoch, number and hash of the last record of the runs that are written here: only that epoch appends."""

    def claim(self, execution_id: str, *, owner: str = "", ttl_s: float = 0.0, over: int | None = None) -> int:
        """Become the only writer of a run; see `Store.claim`. The lease is on the clock of this machine."""
        id_ = to_text(execution_id)
        with self._writing():
            found = self._run(id_)
            now = time.time()
            until = now + ttl_s if ttl_s else 0.0
            if found is None:
                return int(self._execute(_NEW_RUN, (id_, to_text(owner), until)).fetchall()[0][0])
            if found.leased_until > now and over != found.epoch:
                raise busy(execution_id, found.epoch, found.owner, found.leased_until - now)
            sql = "update runs set epoch = epoch + 1, owner = ?, leased_until = ? where execution_id = ?"
            self._execute(sql, (to_text(owner), until, id_))
            return found.epoch + 1

    def renew(self, execution_id: str, epoch: int, ttl_s: float) -> None:
        """Let a lease live on; see `Store.renew`."""
        sql = "update runs set leased_until = ? where execution_id = ? and epoch = ?"
        with self._writing():
            if self._execute(sql, (time.time() + ttl_s, to_text(execution_id), epoch)).rowcount != 1:
                raise fenced(execution_id, epoch)

    def release(self, execution_id: str, epoch: int) -> None:
        """End a lease; see `Store.release`."""
        sql = "update runs set leased_until = 0 where execution_id = ? and epoch = ?"
        with self._writing():
            self._execute(sql, (to_text(execution_id), epoch))

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        """Append records; see `Store.append`."""
        if not records:
            with self._writing():
                self._require_held(execution_id, epoch)
            return
        entry = self._prepared(execution_id, epoch, records)
        if entry is None:
            raise self._refusal(execution_id, epoch, records[0])
        try:
            kept = self._commits.append(entry)
        except BaseException:
            self._last.pop(execution_id, None)
            raise
        if not kept:
            self._last.pop(execution_id, None)
            raise self._refusal(execution_id, epoch, records[0])
        if entry.told is not None and entry.told.ends_lease:
            self._last.pop(execution_id, None)
            return
        if len(self._last) >= _REMEMBERED:
            self._last.clear()
        self._last[execution_id] = (epoch, entry.rows[-1][1], entry.hash)

    def _prepared(self, execution_id: str, epoch: int, records: Sequence[Record]) -> Append | None:
        """Return records as rows, or None where they cannot be the next ones. Nothing of it needs the writer's lock."""
        first = first_of(execution_id, records)
        if first is None:
            return None
        id_ = to_text(execution_id)
        known = self._last.get(execution_id)
        if known is not None and known[:2] == (epoch, first - 1):
            previous: str | None = known[2]
        else:
            previous = self._hash_of(id_, first - 1)
        if previous is None:
            return None
        rows = list[tuple[str | bytes, int, str]]()
        for seq, record in enumerate(records, start=first):
            line, previous = chained(previous, record)
            rows.append((id_, seq, line))
        return Append(epoch, rows, previous, told(execution_id, records))

    def _hash_of(self, id_: str | bytes, seq: int) -> str | None:
        """Return the hash of a record, "" for the one before the first, None where there is none."""
        if seq == 0:
            return ""
        sql = "select substr(body, -66, 64) from records where execution_id = ? and seq = ?"
        row = self._fetch(sql, (id_, seq))
        return str(row[0][0]) if row else None

    def _refusal(self, execution_id: str, epoch: int, record: Record) -> StoreError:
        """Return why a writer was refused."""
        found = self._fetch("select epoch from runs where execution_id = ?", (to_text(execution_id),))
        if not found or found[0][0] != epoch:
            return fenced(execution_id, epoch)
        return gap(execution_id, record["seq"], self._count(execution_id))

    def _count(self, execution_id: str) -> int:
        sql = "select coalesce(max(seq), 0) from records where execution_id = ?"
        return int(self._fetch(sql, (to_text(execution_id),))[0][0])

    def rewrite(self, execution_id: str, epoch: int, replaced: Mapping[int, Record], *records: Record) -> None:
        """Put other records in place of some; see `Store.rewrite`."""
        require_own_seq(execution_id, replaced)
        id_ = to_text(execution_id)
        self._last.pop(execution_id, None)
        entry = self._prepared(execution_id, epoch, records) if records else None
        sql = (
            "update records set body = ? || substr(body, -75) where execution_id = ? and seq = ? "
            'and substr(body, -75, 9) = \',"hash":"\''
        )
        with self._writing():
            self._require_held(execution_id, epoch)
            if records and entry is None:
                raise self._refusal(execution_id, epoch, records[0])
            for seq, record in replaced.items():
                line = line_of(without_hash(record))[:-1]
                if not 1 <= seq < 2**53 or self._execute(sql, (line, id_, seq)).rowcount != 1:
                    raise missing(execution_id, seq, self._count(execution_id))
            if entry is not None and not self._commits.write(entry):
                raise self._refusal(execution_id, epoch, records[0])
            self._erased = True

    def delete(self, execution_id: str) -> None:
        """Forget a run; see `Store.delete`."""
        id_ = to_text(execution_id)
        self._last.pop(execution_id, None)
        with self._writing():
            self._execute(_HIGHEST_DELETED, (id_,))
            self._execute("delete from records where execution_id = ?", (id_,))
            self._execute("delete from runs where execution_id = ?", (id_,))
            self._erased = True

    def compact(self) -> bool:
        """Write the file anew, so that nothing of what was deleted or replaced is left in it or in its log.

        Free pages, and pages that were split, hold old content until then. Takes as long as copying the file.

        Returns:
            False where another connection reads an older state of the file: then that state is still in the log.
        """
        with self._lock:
            self._file.require_usable()
            self._execute("vacuum")
            busy_, _, _ = self._execute("pragma wal_checkpoint(truncate)").fetchone()
        return not busy_

    def _require_held(self, execution_id: str, epoch: int) -> None:
        found = self._run(to_text(execution_id))
        if found is None or found.epoch != epoch:
            raise fenced(execution_id, epoch)

    def _run(self, id_: str | bytes) -> _Run | None:
        sql = "select epoch, owner, leased_until from runs where execution_id = ?"
        row = self._execute(sql, (id_,)).fetchone()
        return None if row is None else _Run(row[0], load_text(row[1]), row[2])

    @contextmanager
    def _writing(self) -> Generator[None]:
        with self._lock:
            self._file.require_usable()
            self._execute("begin immediate")
            try:
                yield
                self._execute("commit")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    self._db.execute("rollback")
                if isinstance(error, sqlite3.Error):
                    raise self._file.failure(error) from error
                raise

    def _execute(self, sql: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, cast("tuple[str, ...]", parameters))
        except sqlite3.Error as error:
            raise self._file.failure(error) from error

    def _fetch(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Read through a connection of its own, so that nobody waits for a writer."""
        self._file.require_same_process()
        with self._reading:
            if self._closed:
                raise StoreError(f"the store {self._file.name} is closed")
            try:
                if self._reader is None:
                    self._reader = self._file.connect()
                    self._reader.execute("pragma query_only=on")
                return self._reader.execute(sql, cast("tuple[str, ...]", parameters)).fetchall()
            except sqlite3.Error as error:
                raise self._file.failure(error) from error

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[Record]:
        """Yield the records of a run in order; those that it has when the reading begins."""
        id_, count, seq = to_text(execution_id), self._count(execution_id), after
        sql = "select seq, body from records where execution_id = ? and seq > ? and seq <= ? order by seq limit ?"
        while seq < count:
            page = self._fetch(sql, (id_, seq, count, _PAGE))
            if not page and not self._count(execution_id):
                raise deleted_meanwhile(execution_id)
            for found, body in page or [(0, "")]:
                seq += 1
                if found != seq:
                    raise damaged(execution_id, seq, "it is missing")
                try:
                    record = json.loads(body)
                except (TypeError, ValueError, RecursionError) as error:
                    raise damaged(execution_id, seq, f"it is not JSON: {error}") from error
                if not isinstance(record, dict):
                    raise damaged(execution_id, seq, "it is no record")
                yield record

    def runs(self, limit: int | None = 100, *, offset: int = 0, query: RunQuery | None = None) -> Sequence[RunSummary]:
        """Return the newest runs first; see `Store.runs`."""
        asked = query or RunQuery()
        where, values = ["started_at is not null"], list[object]()
        for column, value in (
            ("status", asked.status),
            ("agent_name", asked.agent_name),
            ("forked_from", asked.forked_from),
        ):
            if value:
                where.append(f"{column} = ?")
                values.append(to_text(value))
        order = "started_at desc, ordinal desc"
        if asked.starts_with:
            start = asked.starts_with.encode("utf-8", "surrogatepass")
            # The second range is that of the ids that are kept as bytes, see `to_text`.
            where.append("(execution_id >= ? and execution_id < ? or execution_id >= ? and execution_id < ?)")
            values += [to_text(asked.starts_with), to_text(asked.starts_with + chr(0x10FFFF)), start, start + b"\xff"]
            # The sign keeps SQLite from walking through all runs in their order instead of looking the id up.
            order = "+started_at desc, +ordinal desc"
        if asked.started_before is not None:
            where.append("started_at < ?")
            values.append(asked.started_before)
        if asked.outer:
            where.append("parent is null")
        if asked.tenant is not None:
            where.append("tenant = ?")
            values.append(to_text(asked.tenant))
        sql = (
            f"select {_COLUMNS} from runs where {' and '.join(where)} "  # noqa: S608 - only fixed texts
            f"order by {order} limit ? offset ?"
        )
        rows = self._fetch(sql, (*values, -1 if limit is None else limit, offset))
        return [_summary(row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._reading:
            if self._closed:
                return
            self._closed = True
            if self._reader is not None:
                self._reader.close()
            if self._erased:
                with suppress(sqlite3.Error):
                    self._db.execute("pragma wal_checkpoint(truncate)")
            self._db.close()


def _summary(row: Sequence[Any]) -> RunSummary:
    return RunSummary(
        execution_id=load_text(row[0]),
        agent_name=load_text(row[1]),
        status=load_text(row[2]),
        started_at=row[3],
        finished_at=row[4],
        totals=None if row[5] is None else json.loads(row[5]),
        parent=None if row[6] is None else load_text(row[6]),
        forked_from=None if row[7] is None else load_text(row[7]),
        tenant=load_text(row[8]),
    )
