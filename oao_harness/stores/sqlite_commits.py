"""Group commit: threads that append at once share one transaction. Owns the order of writes, not what a journal is."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from oao_harness.stores.sqlite_file import SQLiteFile, to_text

if TYPE_CHECKING:
    from oao_harness.stores.summaries import Told

__all__ = ["Append", "Commits"]

# One statement that is also its own transaction: the writer has the run, and the record before it is there. The
# primary key refuses a number twice.
_FIRST: Final = (
    "insert into records select ?1, ?2, ?3 from runs where execution_id = ?1 and epoch = ?4 "
    "and (?2 = 1 or exists (select 1 from records where execution_id = ?1 and seq = ?2 - 1))"
)
_NEXT: Final = "insert into records values (?, ?, ?)"
_BEGUN: Final = (
    "update runs set agent_name = ?, status = ?, started_at = ?, finished_at = ?, totals = ?, parent = ?, "
    "forked_from = ?, tenant = ?, ordinal = coalesce(ordinal, (select n + 1 from counts where name = 'begun')) "
    "where execution_id = ?"
)
_COUNT_BEGUN: Final = "update counts set n = n + 1 where name = 'begun'"
_MOVED: Final = (
    "update runs set status = ?, finished_at = coalesce(?, finished_at), totals = coalesce(?, totals) "
    "where execution_id = ? and started_at is not null"
)
_END_LEASE: Final = "update runs set leased_until = 0 where execution_id = ?"
_MOST: Final = 256
_PATIENCE_S: Final = 0.5


class Append:
    """Records that one caller wants to have kept, and what became of them.

    Args:
        epoch: Of the writer.
        rows: Id, number and line of each record, at least one.
        hash: Of the last one.
        told: What they say of the row of their run.
    """

    __slots__ = ("again", "done", "epoch", "error", "hash", "kept", "leads", "rows", "told", "turn")

    def __init__(self, epoch: int, rows: Sequence[tuple[str | bytes, int, str]], hash: str, told: Told | None) -> None:
        self.epoch = epoch
        self.rows = rows
        self.hash = hash
        self.told = told
        self.again = False
        """True after an interrupt: it may be there already."""
        self.done = False
        self.kept = False
        self.leads = False
        self.turn: threading.Lock | None = None
        """Held until its caller is to look again; None where it never waited."""
        self.error: BaseException | None = None


class Commits:
    """Leader and followers, no thread of its own.

    Who finds nobody at work leads: it writes for itself and for everybody who waits, in one transaction, wakes those,
    and hands the lead to the first that came meanwhile. A single caller pays for two locks that nobody holds, where one
    thread that writes for all would cost it two switches of threads per record; for many callers neither of the two
    was measured to be the faster one beyond the noise.

    A refusal is found before the first row of its caller is written, so that it takes nothing from the others. Where
    SQLite itself fails, each caller of the group is tried again alone.

    Args:
        file: Whose connection writes.
        lock: Held by whoever uses that connection.
    """

    def __init__(self, file: SQLiteFile, lock: threading.Lock) -> None:
        self._file = file
        self._db = file.writer
        self._lock = lock
        self._order = threading.Lock()
        """Of the two below; never held while something is written."""
        self._led = False
        self._waiting: deque[Append] = deque()

    def append(self, entry: Append) -> bool:
        """Keep records; return when they are kept.

        Returns:
            False where they were refused: the writer has not the run, or they are not the next ones.

        Raises:
            StoreError: They could not be kept.
        """
        try:
            with self._order:
                if self._led:
                    turn = threading.Lock()
                    turn.acquire()
                    self._waiting.append(entry)
                    entry.turn = turn
                else:
                    entry.leads = self._led = True
            self._wait(entry)
            if entry.leads:
                self._lead(entry)
                self._leave(entry)
        except BaseException:
            # Interrupted, at whatever line. Where another thread is writing it, that is waited for: what is not kept
            # when this call ends is never kept.
            if not self._leave(entry):
                self._wait(entry)
                self._leave(entry)
            raise
        if entry.error is not None:
            raise entry.error
        return entry.kept

    def _wait(self, entry: Append) -> None:
        """Return when an entry is done or leads."""
        while entry.turn is not None and not entry.done and not entry.leads:
            if not entry.turn.acquire(timeout=_PATIENCE_S):
                # Somebody is slow; or was interrupted at the one line where the lead is lost. To have two who lead
                # does no harm: they write one after the other.
                entry.again = entry.leads = True

    def _leave(self, entry: Append) -> bool:
        """Take an entry out of the queue and let somebody else lead; return True where nobody else will write it."""
        with self._order:
            if not entry.leads:
                try:
                    self._waiting.remove(entry)
                except ValueError:
                    return False
                return True
            while self._waiting and self._waiting[0].done:
                self._waiting.popleft()
            if self._waiting:
                heir = self._waiting.popleft()
                heir.leads = True
                _wake(heir)
            else:
                self._led = False
            entry.leads = False
            return True

    def _lead(self, entry: Append) -> None:
        group = list[Append]()
        try:
            with self._lock:
                with self._order:
                    group += [entry]
                    while self._waiting and len(group) < _MOST:
                        group.append(self._waiting.popleft())
                group = [member for member in dict.fromkeys(group) if not member.done]
                self._file.require_usable()
                self._write_group(group)
        except Exception as error:  # noqa: BLE001 - everybody in the group is told
            for member in group:
                if not member.done:
                    member.done, member.error = True, error
        except BaseException:
            # This thread was interrupted, the others were not: the next of them takes the lead.
            with self._order:
                for member in reversed(group):
                    if not member.done and member is not entry:
                        member.again = True
                        self._waiting.appendleft(member)
            raise
        finally:
            for member in group:
                if member.done:
                    _wake(member)

    def _write_group(self, group: Sequence[Append]) -> None:
        if len(group) > 1:
            try:
                self._transact(group)
            except sqlite3.Error as error:
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                    # Nobody of them shall wait for another writer again.
                    raise self._file.failure(error) from error
            else:
                return
        for entry in group:
            try:
                self._transact([entry])
            except sqlite3.Error as error:
                entry.done, entry.error = True, self._file.failure(error)

    def _transact(self, group: Sequence[Append]) -> None:
        """Write a group, wholly or not at all."""
        one = group[0]
        try:
            if len(group) == 1 and len(one.rows) == 1 and one.told is None:
                results = [self._write_first(one) or (one.again and self._has(one))]
            else:
                self._db.execute("begin immediate")
                results = [self.write(entry) for entry in group]
                self._db.execute("commit")
        except BaseException:
            if self._db.in_transaction:
                with suppress(sqlite3.Error):
                    self._db.execute("rollback")
            raise
        for entry, result in zip(group, results, strict=True):
            entry.kept = result
            entry.done = True

    def write(self, entry: Append) -> bool:
        """Write the rows of one caller within the transaction that is open.

        Returns:
            False where they are refused; then nothing was written.
        """
        if not self._write_first(entry):
            return entry.again and self._has(entry)
        if len(entry.rows) > 1:
            self._db.executemany(_NEXT, entry.rows[1:])
        if entry.told is not None:
            self._summarise(entry.rows[0][0], entry.told)
        return True

    def _write_first(self, entry: Append) -> bool:
        try:
            return self._db.execute(_FIRST, cast("tuple[str, ...]", (*entry.rows[0], entry.epoch))).rowcount == 1
        except sqlite3.IntegrityError:
            # The number is taken. The statement has undone itself, the transaction goes on.
            return False

    def _has(self, entry: Append) -> bool:
        """Return True where the rows of an interrupted transaction are there: it was committed before the interrupt."""
        id_, seq, line = entry.rows[-1]
        sql = "select 1 from records where execution_id = ? and seq = ? and body = ?"
        return self._db.execute(sql, cast("tuple[str, ...]", (id_, seq, line))).fetchone() is not None

    def _summarise(self, id_: str | bytes, told: Told) -> None:
        row = told.row
        totals = None if row.totals is None else json.dumps(row.totals)
        if told.begun:
            source = None if row.forked_from is None else to_text(row.forked_from)
            parent = None if row.parent is None else to_text(row.parent)
            names = (to_text(row.agent_name), to_text(row.status))
            values = (*names, row.started_at, row.finished_at, totals, parent, source, to_text(row.tenant), id_)
            self._db.execute(_BEGUN, cast("tuple[str, ...]", values))
            self._db.execute(_COUNT_BEGUN)
        else:
            moved = (to_text(row.status), row.finished_at, totals, id_)
            self._db.execute(_MOVED, cast("tuple[str, ...]", moved))
        if told.ends_lease:
            self._db.execute(_END_LEASE, cast("tuple[str]", (id_,)))


def _wake(entry: Append) -> None:
    if entry.turn is not None:
        with suppress(RuntimeError):  # it is awake already
            entry.turn.release()
