"""Journals in one SQLite file (WAL): the default of the command line, `.oao/oao.db`."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from oao_harness.errors import DamagedError, StoreError
from oao_harness.stores.refusals import busy, fenced, gap, missing
from oao_harness.stores.summaries import ENDS_LEASE, TOLD, after
from oao_hookspecs import Record, RunQuery, RunSummary, chained, line_of

__all__ = ["SQLiteStore"]

_SCHEMA_VERSION: Final = 2
_COLUMNS: Final = "execution_id, agent_name, status, started_at, finished_at, totals, parent, forked_from"
_SCHEMA: Final = """
create table if not exists runs (
    execution_id text primary key, epoch integer not null, last_seq integer not null,
    agent_name text, status text, started_at real, finished_at real, totals text
) without rowid;
create index if not exists runs_by_start on runs (started_at desc);
create index if not exists runs_by_status on runs (status, started_at desc);
create table if not exists records (
    execution_id text not null, seq integer not null, body text not null, primary key (execution_id, seq)
) without rowid;
"""


# What version 2 added to the table of runs.
_ADDED: Final = (
    "owner text not null default ''",
    "leased_until real not null default 0",
    "parent text",
    "forked_from text",
)


class _Run(NamedTuple):
    """What a writer must know of a run."""

    epoch: int
    last_seq: int
    owner: str
    leased_until: float
    """Unix seconds; 0 where nobody holds a lease."""


class SQLiteStore:
    """A store in a file that many processes may open.

    A record is on its way to the disk when `append` returns: it survives the death of the process
    (`synchronous=normal`), the newest ones may be lost when the machine loses power.

    Args:
        path: The database file; its folder is made where it is missing.
        busy_timeout_s: Seconds to wait for another process that writes.

    Raises:
        StoreError: The file cannot be opened, is no database, or was written by a newer oao.
    """

    def __init__(self, path: str | Path, *, busy_timeout_s: float = 10.0) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._closed = False
        self._pid = os.getpid()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                self._path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open the store {str(self._path)!r}: {error}; choose another --store") from error
        try:
            self._prepare()
            found = self._path.stat()
            self._file = (found.st_dev, found.st_ino)
        except (OSError, sqlite3.Error) as error:
            self._db.close()
            raise StoreError(
                f"{str(self._path)!r} is not a usable oao store: {error}; move it away or choose another --store"
            ) from error
        except StoreError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        found = self._db.execute("pragma user_version").fetchone()[0]
        if found > _SCHEMA_VERSION:
            raise StoreError(
                f"{str(self._path)!r} was written by a newer oao (schema {found}, this one knows {_SCHEMA_VERSION}); "
                "upgrade oao-harness or choose another --store"
            )
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=normal")
        if found < _SCHEMA_VERSION:
            self._upgrade()

    def _upgrade(self) -> None:
        self._db.execute("begin immediate")
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)
        # Whoever was faster has done it meanwhile.
        if self._db.execute("pragma user_version").fetchone()[0] < _SCHEMA_VERSION:
            for column in _ADDED:
                self._db.execute(f"alter table runs add column {column}")
            self._db.execute(f"pragma user_version={_SCHEMA_VERSION}")
        self._db.execute("commit")

    def claim(self, execution_id: str, *, owner: str = "", ttl_s: float = 0.0, over: int | None = None) -> int:
        """Become the only writer of a run; see `Store.claim`. The lease is on the clock of this machine."""
        self._require_usable()
        with self._writing():
            found = self._run(execution_id)
            now = time.time()
            until = now + ttl_s if ttl_s else 0.0
            if found is None:
                sql = "insert into runs (execution_id, epoch, last_seq, owner, leased_until) values (?, 1, 0, ?, ?)"
                self._execute(sql, (execution_id, owner, until))
                return 1
            if found.leased_until > now and over != found.epoch:
                raise busy(execution_id, found.epoch, found.owner, found.leased_until - now)
            sql = "update runs set epoch = epoch + 1, owner = ?, leased_until = ? where execution_id = ?"
            self._execute(sql, (owner, until, execution_id))
            return found.epoch + 1

    def renew(self, execution_id: str, epoch: int, ttl_s: float) -> None:
        """Let a lease live on; see `Store.renew`."""
        self._require_usable()
        sql = "update runs set leased_until = ? where execution_id = ? and epoch = ?"
        with self._writing():
            if self._execute(sql, (time.time() + ttl_s, execution_id, epoch)).rowcount != 1:
                raise fenced(execution_id, epoch)

    def release(self, execution_id: str, epoch: int) -> None:
        """End a lease; see `Store.release`."""
        self._require_usable()
        with self._writing():
            self._execute(
                "update runs set leased_until = 0 where execution_id = ? and epoch = ?", (execution_id, epoch)
            )

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        """Append records; see `Store.append`."""
        self._require_usable()
        with self._writing():
            self._append(execution_id, self._held(execution_id, epoch), records)

    def rewrite(self, execution_id: str, epoch: int, replaced: Mapping[int, Record], *records: Record) -> None:
        """Put other records in place of some; see `Store.rewrite`."""
        self._require_usable()
        with self._writing():
            found = self._held(execution_id, epoch)
            for seq, record in replaced.items():
                sql = "update records set body = ? where execution_id = ? and seq = ?"
                kept = self._hash_of(execution_id, seq)
                if kept is None:
                    raise missing(execution_id, seq, found.last_seq)
                self._execute(sql, (f'{line_of(record)[:-1]},"hash":"{kept}"}}', execution_id, seq))
            self._append(execution_id, found, records)

    def delete(self, execution_id: str) -> None:
        """Forget a run; see `Store.delete`."""
        self._require_usable()
        with self._writing():
            self._execute("delete from records where execution_id = ?", (execution_id,))
            self._execute("delete from runs where execution_id = ?", (execution_id,))

    def compact(self) -> bool:
        """Write the file anew, so that nothing of what was deleted or replaced is left in it or in its log.

        Free pages, and pages that were split, hold old content until then. Takes as long as copying the file.

        Returns:
            False where another connection reads an older state of the file: then that state is still in the log.
        """
        self._require_usable()
        with self._lock:
            self._execute("vacuum")
            busy_, _, _ = self._execute("pragma wal_checkpoint(truncate)").fetchone()
        return not busy_

    def _held(self, execution_id: str, epoch: int) -> _Run:
        found = self._run(execution_id)
        if found is None or found.epoch != epoch:
            raise fenced(execution_id, epoch)
        return found

    def _append(self, execution_id: str, run: _Run, records: Sequence[Record]) -> None:
        if not records:
            return
        previous = self._hash_of(execution_id, run.last_seq) or ""
        for seq, record in enumerate(records, start=run.last_seq + 1):
            if record["seq"] != seq:
                raise gap(execution_id, record["seq"], seq - 1)
            line, previous = chained(previous, record)
            self._execute("insert into records values (?, ?, ?)", (execution_id, seq, line))
            if record["type"] in TOLD:
                self._summarise(execution_id, record)
        last = run.last_seq + len(records)
        self._execute("update runs set last_seq = ? where execution_id = ?", (last, execution_id))

    def _hash_of(self, execution_id: str, seq: int) -> str | None:
        sql = "select body from records where execution_id = ? and seq = ?"
        row = self._execute(sql, (execution_id, seq)).fetchone()
        return None if row is None else str(row[0][-66:-2])

    def _run(self, execution_id: str) -> _Run | None:
        sql = "select epoch, last_seq, owner, leased_until from runs where execution_id = ?"
        row = self._execute(sql, (execution_id,)).fetchone()
        return None if row is None else _Run(*row)

    @contextmanager
    def _writing(self) -> Generator[None]:
        with self._lock:
            self._execute("begin immediate")
            try:
                yield
                self._execute("commit")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("rollback")
                raise

    def _require_usable(self) -> None:
        self._require_same_process()
        self._require_file()

    def _require_same_process(self) -> None:
        """A connection that was carried over a fork loses what is written through it."""
        if os.getpid() != self._pid:
            raise StoreError(f"the store {str(self._path)!r} was opened before this process was forked; open it anew")

    def _require_file(self) -> None:
        """SQLite goes on writing into a file that was deleted or replaced: every record of it would be lost."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise StoreError(f"the store {str(self._path)!r} is gone: {error}") from error
        if (found.st_dev, found.st_ino) != self._file:
            raise StoreError(f"the store {str(self._path)!r} was replaced by another file while it was open")

    def _summarise(self, execution_id: str, record: Record) -> None:
        row = after(self._row(execution_id), execution_id, record)
        if row is None:
            return
        totals = None if row.totals is None else json.dumps(row.totals)
        values = (row.agent_name, row.status, row.started_at, row.finished_at, totals, row.parent, row.forked_from)
        sql = (
            "update runs set agent_name = ?, status = ?, started_at = ?, finished_at = ?, totals = ?, parent = ?, "
            "forked_from = ? where execution_id = ?"
        )
        self._execute(sql, (*values, execution_id))
        if record["type"] in ENDS_LEASE:
            self._execute("update runs set leased_until = 0 where execution_id = ?", (execution_id,))

    def _row(self, execution_id: str) -> RunSummary | None:
        sql = f"select {_COLUMNS} from runs where execution_id = ? and started_at is not null"  # noqa: S608 - fixed
        found = self._execute(sql, (execution_id,)).fetchone()
        return None if found is None else _summary(found)

    def _execute(self, sql: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, cast("tuple[str, ...]", parameters))
        except sqlite3.Error as error:
            raise StoreError(f"the store {str(self._path)!r} failed: {error}") from error

    def read(self, execution_id: str) -> Iterator[Record]:
        """Yield the records of a run in order."""
        with self._lock:
            rows = self._execute(
                "select body from records where execution_id = ? order by seq", (execution_id,)
            ).fetchall()
        for (body,) in rows:
            try:
                yield json.loads(body)
            except ValueError as error:
                raise DamagedError(f"run {execution_id!r}: a record is not JSON: {error}") from error

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
                values.append(value)
        if asked.starts_with:
            where.append("execution_id >= ? and execution_id < ?")
            values += [asked.starts_with, asked.starts_with + chr(0x10FFFF)]
        if asked.started_before is not None:
            where.append("started_at < ?")
            values.append(asked.started_before)
        if asked.outer:
            where.append("parent is null")
        sql = (
            f"select {_COLUMNS} from runs where {' and '.join(where)} "  # noqa: S608 - only fixed texts
            "order by started_at desc limit ? offset ?"
        )
        with self._lock:
            rows = self._execute(sql, (*values, -1 if limit is None else limit, offset)).fetchall()
        return [_summary(row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._db.close()


def _summary(row: Sequence[Any]) -> RunSummary:
    return RunSummary(
        execution_id=row[0],
        agent_name=row[1],
        status=row[2],
        started_at=row[3],
        finished_at=row[4],
        totals=None if row[5] is None else json.loads(row[5]),
        parent=row[6],
        forked_from=row[7],
    )
