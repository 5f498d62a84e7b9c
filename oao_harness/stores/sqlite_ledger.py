"""Budgets in a SQLite file (WAL), which every process of one machine may share; the same file as the journals."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from oao_harness.errors import StoreError
from oao_harness.stores.ledger_rules import (
    MOST,
    SETTLED_KEPT_S,
    dump_amounts,
    dump_name,
    in_use,
    load_amounts,
    load_name,
    require_amounts,
    require_names,
    require_ttl,
    settled_already,
    would_pass,
)
from oao_hookspecs import Amounts, Refusal

__all__ = ["SQLiteLedger"]

# Tables of its own, `user_version` untouched: that is the journals'. Times are milliseconds.
_SCHEMA: Final = """
create table if not exists budget_clock (id integer primary key, now integer not null);
create table if not exists budget_counters (
    account text not null, counter text not null, spent integer not null, held integer not null,
    primary key (account, counter)
) without rowid;
create table if not exists budget_holds (
    account text not null, hold text not null, expires integer not null, amounts text not null,
    primary key (account, hold)
) without rowid;
create index if not exists budget_holds_due on budget_holds (account, expires);
create table if not exists budget_settled (
    account text not null, hold text not null, forget integer not null, primary key (account, hold)
) without rowid;
create index if not exists budget_settled_due on budget_settled (account, forget)
"""
# The latest time that anybody saw: where the machine's clock goes back, it stands still until it has caught up.
# Source of 2440587.5: the Julian day of the Unix epoch. (`unixepoch('subsec')` needs SQLite 3.42.)
_TICK: Final = (
    "insert into budget_clock values (1, cast((julianday('now') - 2440587.5) * 86400000 as integer)) "
    "on conflict (id) do update set now = max(now, excluded.now) returning now"
)
_HOLD_MORE: Final = (
    "insert into budget_counters values (?, ?, 0, ?) on conflict (account, counter) "
    "do update set held = held + excluded.held"
)
_HOLD_LESS: Final = "update budget_counters set held = held - ? where account = ? and counter = ?"
_SPEND: Final = (
    "insert into budget_counters values (?, ?, ?, 0) on conflict (account, counter) "
    "do update set spent = min(spent + excluded.spent, ?)"
)


class SQLiteLedger:
    """A ledger in a file; see `Ledger`.

    What was settled survives the death of the process (`synchronous=normal`, as in the journals); the newest
    of it may be lost when the machine loses power. The clock is that of the machine, as SQLite reads it.

    Args:
        path: The database file; its folder is made where it is missing. Not on a network drive.
        busy_timeout_s: Seconds to wait for another process that writes.

    Raises:
        StoreError: The file cannot be opened or is no database.
    """

    def __init__(self, path: str | Path, *, busy_timeout_s: float = 10.0) -> None:
        self._path = Path(path)
        self._busy_timeout_s = busy_timeout_s
        self._closed = False
        self._file = (0, 0)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._db = self._connect()

    def _connect(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(
                self._path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open the ledger {str(self._path)!r}: {error}; choose another path") from error
        try:
            self._prepare(db)
            found = self._path.stat()
        except (OSError, sqlite3.Error) as error:
            db.close()
            raise StoreError(
                f"{str(self._path)!r} is not a usable ledger: {error}; move it away or choose another path"
            ) from error
        self._file = (found.st_dev, found.st_ino)
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        give_up = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                db.execute("pragma journal_mode=wal")
                break
            except sqlite3.OperationalError as error:
                # The change to WAL does not wait for others: SQLite asks no busy handler there.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.005)
        db.execute("pragma synchronous=normal")
        if db.execute("select 1 from sqlite_master where name = 'budget_settled_due'").fetchone() is None:
            db.execute("begin immediate")
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute("commit")

    @contextmanager
    def _written(self) -> Generator[sqlite3.Connection]:
        """Lend the connection for one transaction, which happens wholly or not at all."""
        # Before the lock: another thread may have held it when the process was forked.
        if os.getpid() != self._pid:
            # SQLite's own rule; tried: what the child writes is lost when the parent closes the file.
            raise StoreError(
                f"the ledger {str(self._path)!r} was opened before this process was forked, and SQLite cannot be "
                "carried through a fork; start processes by spawn, and open the ledger in each of them"
            )
        with self._lock:
            if self._closed:
                raise StoreError(f"the ledger {str(self._path)!r} is closed")
            self._require_file()
            db = self._db
            try:
                db.execute("begin immediate")
                yield db
                db.execute("commit")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    db.execute("rollback")
                if isinstance(error, sqlite3.Error):
                    raise StoreError(f"the ledger {str(self._path)!r} failed: {error}") from error
                raise

    def _require_file(self) -> None:
        """SQLite goes on writing into a file that was deleted or replaced: others would count from zero."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise StoreError(f"the ledger {str(self._path)!r} is gone: {error}") from error
        if (found.st_dev, found.st_ino) != self._file:
            raise StoreError(f"the ledger {str(self._path)!r} was replaced by another file while it was open")

    def reserve(
        self, account: str, hold: str, amounts: Mapping[str, int], limits: Mapping[str, int], ttl_s: float
    ) -> Refusal | None:
        """Take all amounts, or none; see `Ledger.reserve`."""
        require_names(account, hold)
        require_amounts("amount", amounts)
        require_amounts("limit", limits)
        require_ttl(ttl_s)
        key, wanted = (dump_name(account), dump_name(hold)), dump_amounts(amounts)
        with self._written() as db:
            now = _advance(db, key[0])
            expires = now + _ms(ttl_s)
            if db.execute("select 1 from budget_settled where account = ? and hold = ?", key).fetchone() is not None:
                raise settled_already(account, hold)
            found = db.execute("select amounts from budget_holds where account = ? and hold = ?", key).fetchone()
            if found is not None:
                if found[0] != wanted:
                    raise in_use(account, hold)
                _extend(db, key, expires)
                return None
            for counter, asked in amounts.items():
                sql = "select spent, held from budget_counters where account = ? and counter = ?"
                spent, held = db.execute(sql, (key[0], dump_name(counter))).fetchone() or (0, 0)
                refusal = would_pass(counter, asked, limits, spent, held)
                if refusal is not None:
                    return refusal
            rows = [(key[0], dump_name(counter), amount) for counter, amount in amounts.items() if amount]
            db.executemany(_HOLD_MORE, rows)
            db.execute("insert into budget_holds values (?, ?, ?, ?)", (*key, expires, wanted))
        return None

    def settle(self, account: str, hold: str, spent: Mapping[str, int]) -> None:
        """Replace a hold by what was really spent; see `Ledger.settle`."""
        require_names(account, hold)
        require_amounts("spent", spent)
        key = (dump_name(account), dump_name(hold))
        with self._written() as db:
            now = _advance(db, key[0])
            forget = now + _ms(SETTLED_KEPT_S)
            if db.execute("insert or ignore into budget_settled values (?, ?, ?)", (*key, forget)).rowcount == 0:
                return
            _give_back(
                db,
                key[0],
                db.execute("delete from budget_holds where account = ? and hold = ? returning amounts", key).fetchall(),
            )
            db.executemany(
                _SPEND, [(key[0], dump_name(counter), amount, MOST) for counter, amount in spent.items() if amount]
            )

    def renew(self, account: str, holds: Sequence[str], ttl_s: float) -> Sequence[str]:
        """Let live holds live on; see `Ledger.renew`."""
        require_names(account, *holds)
        require_ttl(ttl_s)
        key = dump_name(account)
        with self._written() as db:
            expires = _advance(db, key) + _ms(ttl_s)
            return [hold for hold in holds if not _extend(db, (key, dump_name(hold)), expires)]

    def totals(self, account: str) -> Mapping[str, Amounts]:
        """Return what is spent and held; see `Ledger.totals`."""
        require_names(account)
        key = dump_name(account)
        with self._written() as db:
            _advance(db, key)
            sql = "select counter, spent, held from budget_counters where account = ? and (spent > 0 or held > 0)"
            rows = db.execute(sql, (key,)).fetchall()
        return {load_name(counter): Amounts(spent=spent, held=held) for counter, spent, held in rows}

    def close(self) -> None:
        """Close the file; not in a forked child, where it would break the parent's locks."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._db.close()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _advance(db: sqlite3.Connection, account: str) -> int:
    """Let the time pass: expired holds come back, old ids are forgotten. Each of them is looked at once.

    Returns:
        The time in milliseconds.
    """
    now = int(db.execute(_TICK).fetchall()[0][0])
    expired = "delete from budget_holds where account = ? and expires <= ? returning amounts"
    _give_back(db, account, db.execute(expired, (account, now)).fetchall())
    db.execute("delete from budget_settled where account = ? and forget <= ?", (account, now))
    return now


def _give_back(db: sqlite3.Connection, account: str, rows: Sequence[Any]) -> None:
    for (amounts,) in rows:
        held = [(amount, account, dump_name(counter)) for counter, amount in load_amounts(amounts).items()]
        db.executemany(_HOLD_LESS, held)


def _extend(db: sqlite3.Connection, key: tuple[str, str], expires: int) -> bool:
    """Let a hold live until a time, or longer where it does already; return False where there is none."""
    sql = "update budget_holds set expires = max(expires, ?) where account = ? and hold = ?"
    return db.execute(sql, (expires, *key)).rowcount == 1
