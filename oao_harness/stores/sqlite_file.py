"""The SQLite file of the journals: opening it, its schema and the upgrade of older ones, and what its errors mean."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final, cast

from oao_harness.errors import DamagedError, StoreError
from oao_hookspecs import link, tenant_of

__all__ = ["SCHEMA_VERSION", "SQLiteFile", "load_text", "to_text"]

SCHEMA_VERSION: Final = 3
_RUNS: Final = """
create table runs (
    execution_id text primary key, epoch integer not null, owner text not null default '',
    leased_until real not null default 0, agent_name text, status text, started_at real, ordinal integer,
    finished_at real, totals text, parent text, forked_from text, tenant text,
    constraint written_by_an_older_oao check (started_at is null or tenant is not null)
) without rowid
"""
# `records` has no more than it had in version 1; `counts` holds `begun`, how many runs began, and `deleted`, the
# highest epoch of a run that was deleted.
_SCHEMA: Final = (
    _RUNS,
    "create index runs_by_start on runs (started_at desc, ordinal desc)",
    "create index runs_by_status on runs (status, started_at desc, ordinal desc)",
    "create index runs_by_fork on runs (forked_from) where forked_from is not null",
    "create index runs_by_tenant on runs (tenant, started_at desc, ordinal desc)",
    """
    create table if not exists records (
        execution_id text not null, seq integer not null, body text not null, primary key (execution_id, seq)
    ) without rowid
    """,
    "create table if not exists counts (name text primary key, n integer not null) without rowid",
    "insert or ignore into counts values ('begun', 0), ('deleted', 0)",
)
_BUSY: Final = sqlite3.SQLITE_BUSY
_NO_ROOM: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_TOOBIG}
_NO_RIGHT: Final = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH}
_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class SQLiteFile:
    """A database file that holds journals.

    Args:
        path: The file; its folder is made where it is missing.
        busy_timeout_s: Seconds to wait for another process that writes.
        synchronous: SQLite's own word, `normal` or `full`.

    Raises:
        StoreError: The file cannot be opened, is no database, or was written by a newer oao.
    """

    def __init__(self, path: str | Path, *, busy_timeout_s: float, synchronous: str) -> None:
        self._path = Path(path)
        self._busy_timeout_s = busy_timeout_s
        self._pid = os.getpid()
        self._stat_path = str(self._path)
        self.name = repr(str(self._path))
        """How a message names the file."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = self.connect()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open the store {self.name}: {error}; choose another --store") from error
        try:
            self._prepare(synchronous)
            found = self._path.stat()
            self._file = (found.st_dev, found.st_ino)
        except (OSError, sqlite3.Error) as error:
            self.writer.close()
            raise StoreError(self._why_unusable(error)) from error
        except StoreError:
            self.writer.close()
            raise

    def connect(self) -> sqlite3.Connection:
        """Return one more connection, without transactions of Python's own."""
        return sqlite3.connect(self._path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False)

    def _why_unusable(self, error: Exception) -> str:
        if isinstance(error, sqlite3.Error) and _code(error) in _NO_RIGHT | {_BUSY}:
            return str(self.failure(error))
        return f"{self.name} is not a usable oao store: {error}; move it away or choose another --store"

    def _prepare(self, synchronous: str) -> None:
        found = self._version()
        if found > SCHEMA_VERSION:
            raise StoreError(
                f"{self.name} was written by a newer oao (schema {found}, this one knows {SCHEMA_VERSION}); "
                "upgrade oao-harness or choose another --store"
            )
        self._journal_in_wal()
        self.writer.execute(f"pragma synchronous={synchronous}")
        # What is redacted or deleted is overwritten, not only unlinked.
        self.writer.execute("pragma secure_delete=on")
        if found < SCHEMA_VERSION:
            self._upgrade()

    def _version(self) -> int:
        return int(self.writer.execute("pragma user_version").fetchone()[0])

    def _journal_in_wal(self) -> None:
        give_up = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                self.writer.execute("pragma journal_mode=wal")
                break
            except sqlite3.OperationalError as error:
                # The change to WAL does not wait for others: SQLite asks no busy handler there.
                if _code(error) != _BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.005)

    def _upgrade(self) -> None:
        """Make the tables, or bring those of an older version to this one: wholly or not at all."""
        db = self.writer
        db.execute("begin immediate")
        try:
            # Whoever was faster has done it meanwhile.
            found = self._version()
            if found < SCHEMA_VERSION:
                tables = {name for (name,) in db.execute("select name from sqlite_master where type = 'table'")}
                if "runs" in tables:
                    # A process of an older version that still has the file open fails now where it begins a run,
                    # one of version 1 at every record: it would chain nothing, or not say whose the run is.
                    db.execute("alter table runs rename to old_runs")
                    for index in ("runs_by_start", "runs_by_status", "runs_by_fork"):
                        db.execute(f"drop index if exists {index}")
                for statement in _SCHEMA:
                    db.execute(statement)
                if "runs" in tables:
                    # Version 1 did not number itself.
                    take_over = _take_over_2 if found == 2 else _take_over_1
                    take_over(db)
                    db.execute("drop table old_runs")
                db.execute(f"pragma user_version={SCHEMA_VERSION}")
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise

    def require_usable(self) -> None:
        """Refuse to write into a file that nobody else would find, or through a connection of another process.

        Raises:
            StoreError: The file was deleted or replaced, or this process was forked since it was opened.
        """
        self.require_same_process()
        # SQLite goes on writing into a file that was deleted or replaced: every record of it would be lost.
        try:
            found = os.stat(self._stat_path)
        except OSError as error:
            raise StoreError(f"the store {self.name} is gone: {error}") from error
        if (found.st_dev, found.st_ino) != self._file:
            raise StoreError(f"the store {self.name} was replaced by another file while it was open")

    def require_same_process(self) -> None:
        """Refuse a connection that was carried over a fork: what is written through it is lost.

        Raises:
            StoreError: This process was forked since the file was opened.
        """
        if os.getpid() != self._pid:
            raise StoreError(f"the store {self.name} was opened before this process was forked; open it anew")

    def failure(self, error: sqlite3.Error) -> StoreError:
        """Return what an error of SQLite means, and what to do."""
        code, said = _code(error), f"the store {self.name} failed: {error}"
        if code == _BUSY:
            return StoreError(
                f"{said}; another process has been writing for {self._busy_timeout_s:g} s: wait until it is done, or "
                "end it"
            )
        if code in _NO_ROOM:
            return StoreError(f"{said}; nothing of it was kept: make room on its disk, and check the disk")
        if code in _NO_RIGHT:
            return StoreError(f"{said}; it cannot be written: give this user the right to write to it and its folder")
        if code in _DAMAGE:
            return DamagedError(
                f"{said}; take the last copy of it, or save what can be read with: sqlite3 {self.name} .recover"
            )
        return StoreError(said)


def _take_over_2(db: sqlite3.Connection) -> None:
    """Fill the rows from those of version 2, which do not say whose a run is: its first record does."""
    columns = (
        "execution_id, epoch, owner, leased_until, agent_name, status, started_at, ordinal, finished_at, totals, "
        "parent, forked_from"
    )
    first = "select cast(body as blob) from records where records.execution_id = old_runs.execution_id and seq = 1"
    db.create_function("tenant_in", 1, _tenant_in, deterministic=True)
    db.execute(
        f"insert into runs ({columns}, tenant) select {columns}, "  # noqa: S608 - only fixed texts
        f"case when started_at is not null then tenant_in(({first})) end from old_runs"
    )


def _tenant_in(body: bytes | None) -> str | bytes:
    try:
        found: Any = json.loads(body or b"{}")
        return to_text(tenant_of(found))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _take_over_1(db: sqlite3.Connection) -> None:
    """Fill the tables from those of version 1: chain the records, and read what the rows lack."""
    db.execute(
        "insert into runs (execution_id, epoch, agent_name, status, started_at, finished_at, totals, tenant) "
        "select execution_id, epoch, agent_name, status, started_at, finished_at, totals, '' from old_runs"
    )
    ids = [id_ for (id_,) in db.execute("select execution_id from old_runs order by started_at, execution_id")]
    for ordinal, id_ in enumerate(ids, start=1):
        hashed, chained = "", list[tuple[str, str, int]]()
        rows = db.execute("select seq, body from records where execution_id = ? order by seq", (id_,)).fetchall()
        for seq, body in rows:
            # The text as it stands: it is what was written, also where it cannot be read any more.
            hashed = link(hashed, hashlib.sha256(str(body).encode("utf-8", "surrogatepass")).hexdigest())
            chained.append((f'{body[:-1]},"hash":"{hashed}"}}', id_, seq))
        db.executemany("update records set body = ? where execution_id = ? and seq = ?", chained)
        first = str(rows[0][1]) if rows else "{}"
        values = (ordinal, _parent_of(first), _tenant_in(first.encode("utf-8", "surrogatepass")), id_)
        db.execute("update runs set ordinal = ?, parent = ?, tenant = ? where execution_id = ?", values)
    db.execute("update counts set n = ? where name = 'begun'", (len(ids),))


def _parent_of(body: str) -> str | bytes | None:
    try:
        found: Any = json.loads(body)
        parent = found.get("parent")
    except (ValueError, AttributeError, RecursionError):
        return None
    return None if parent is None else to_text(str(parent))


def to_text(text: str) -> str | bytes:
    """Return a text as SQLite takes it: as bytes where it holds half of a surrogate pair, which UTF-8 cannot."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def load_text(kept: str | bytes) -> str:
    """Return the text that `to_text` made something of."""
    return kept if isinstance(kept, str) else kept.decode("utf-8", "surrogatepass")


def _code(error: sqlite3.Error) -> int:
    return cast("int", getattr(error, "sqlite_errorcode", 0)) & 0xFF
