"""Journals in one SQLite file (WAL): the default of the command line, `.oao/oao.db`."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

from oao_harness.errors import FencedError, StoreError
from oao_harness.stores.summaries import MOVES, moved, opened, settled
from oao_hookspecs import Json, Record, RunSummary

__all__ = ["SQLiteStore"]

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
create table if not exists runs (
    execution_id text primary key, epoch integer not null, last_seq integer not null,
    agent_name text, status text, started_at real, finished_at real, totals text
) without rowid;
create index if not exists runs_by_start on runs (started_at desc);
create table if not exists records (
    execution_id text not null, seq integer not null, body text not null, primary key (execution_id, seq)
) without rowid;
"""


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
            self._db.executescript(_SCHEMA)
            self._db.execute(f"pragma user_version={_SCHEMA_VERSION}")

    def claim(self, execution_id: str) -> int:
        """Become the only writer of a run; see `Store.claim`."""
        sql = (
            "insert into runs (execution_id, epoch, last_seq) values (?, 1, 0) "
            "on conflict (execution_id) do update set epoch = epoch + 1 returning epoch"
        )
        self._require_same_process()
        with self._lock:
            return int(self._execute(sql, (execution_id,)).fetchall()[0][0])

    def append(self, execution_id: str, epoch: int, record: Record) -> None:
        """Append one record; see `Store.append`."""
        # ASCII: a model's answer may hold half of a surrogate pair, which UTF-8 cannot.
        body = json.dumps(record, separators=(",", ":"))
        self._require_same_process()
        self._require_file()
        seq = record["seq"]
        with self._lock:
            self._execute("begin immediate")
            try:
                advance = "update runs set last_seq = ? where execution_id = ? and epoch = ? and last_seq = ?"
                fields = (seq, execution_id, epoch, cast("int", seq) - 1)
                if self._execute(advance, fields).rowcount != 1:
                    raise self._refusal(execution_id, epoch, seq)
                self._execute("insert into records values (?, ?, ?)", (execution_id, seq, body))
                self._summarise(execution_id, record)
                self._execute("commit")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("rollback")
                raise

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
        if record["type"] == "run.started":
            row = opened(execution_id, record)
            sql = "update runs set agent_name = ?, status = ?, started_at = ? where execution_id = ?"
            self._execute(sql, (row.agent_name, row.status, row.started_at, execution_id))
        elif record["type"] in MOVES:
            row = moved(RunSummary(execution_id=execution_id, agent_name="", status="", started_at=0), record)
            self._execute("update runs set status = ? where execution_id = ?", (row.status, execution_id))
        elif record["type"] == "run.finished":
            row = settled(RunSummary(execution_id=execution_id, agent_name="", status="", started_at=0), record)
            sql = "update runs set status = ?, finished_at = ?, totals = ? where execution_id = ?"
            self._execute(sql, (row.status, row.finished_at, json.dumps(row.totals), execution_id))

    def _refusal(self, execution_id: str, epoch: int, seq: Json) -> StoreError:
        row = self._execute("select epoch, last_seq from runs where execution_id = ?", (execution_id,)).fetchone()
        if row is None or row[0] != epoch:
            return FencedError(f"run {execution_id!r}: epoch {epoch} was superseded; another writer has the run")
        return StoreError(f"run {execution_id!r}: record {seq!r} after {row[1]} records")

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
                raise StoreError(f"run {execution_id!r}: a record is not JSON: {error}") from error

    def runs(self, limit: int = 100) -> Sequence[RunSummary]:
        """Return the newest runs first."""
        sql = (
            "select execution_id, agent_name, status, started_at, finished_at, totals from runs "
            "where started_at is not null order by started_at desc limit ?"
        )
        with self._lock:
            rows = self._execute(sql, (limit,)).fetchall()
        return [
            RunSummary(
                execution_id=row[0],
                agent_name=row[1],
                status=row[2],
                started_at=row[3],
                finished_at=row[4],
                totals=None if row[5] is None else json.loads(row[5]),
            )
            for row in rows
        ]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._db.close()
