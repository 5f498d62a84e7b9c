"""The scheduler: a table of jobs, one transaction for each step. Workers look into it 50 times a second.

Good for a few workers on one machine, without a server: a queue that many machines share needs one that can wake them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from oao_harness import StoreError, UsageError
from oao_hookspecs import Handler, Job, Later, QueueStats, WorkerSeen

__all__ = ["FileQueue"]

_log: Final = logging.getLogger(__name__)
_LOOK_S: Final = 0.02
_BROKEN_S: Final = 1.0
"""Seconds until a job is delivered again whose handler raised."""
_RANKS: Final = {"high": 0, "normal": 1, "low": 2}
_TOLD_S: Final = 600.0
"""Seconds for which it is known that a run has ended."""
_workers: Final = itertools.count(1)
_SCHEMA: Final = """
create table if not exists job (
    place integer primary key autoincrement,
    id text not null unique, body text not null, rank integer not null, nested integer not null, due real not null,
    worker text not null default '', seen real not null default 0, cancelled integer not null default 0
);
create table if not exists ended (n integer primary key autoincrement, id text not null, at real not null);
"""


class FileQueue:
    """Carries jobs to workers of this machine, through a file. Implements `oao_hookspecs.Scheduler`.

    Args:
        path: The file; made where there is none.
        redelivery_s: Seconds after which a worker that is not heard of loses its jobs, > 0.
    """

    durable: Final = True

    def __init__(self, path: Path, *, redelivery_s: float = 30.0) -> None:
        self._path = path
        self._redelivery_s = redelivery_s
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self._db.executescript(f"pragma journal_mode = wal; {_SCHEMA}")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the queue {str(path)!r} cannot be opened: {error}; give another file") from error

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Cursor]:
        with self._lock:
            if self._db is None:
                raise StoreError(f"the queue {str(self._path)!r} is closed; open it again")
            try:
                with closing(self._db.cursor()) as cursor:
                    cursor.execute("begin immediate")
                    try:
                        yield cursor
                    except BaseException:
                        cursor.execute("rollback")
                        raise
                    cursor.execute("commit")
            except sqlite3.Error as error:
                raise StoreError(f"the queue {str(self._path)!r} cannot be used: {error}") from error

    async def submit(self, job: Job) -> None:
        """Let a worker have the job; see `Scheduler.submit`."""
        row = (_key(job.execution_id), json.dumps(asdict(job)), _RANKS[job.priority], job.nested, job.not_before)
        with self._transaction() as db:
            db.execute("insert or ignore into job (id, body, rank, nested, due) values (?, ?, ?, ?, ?)", row)

    async def cancel(self, execution_id: str) -> None:
        """Forget a queued job, or cancel the handler that is at work on it; see `Scheduler.cancel`."""
        with self._transaction() as db:
            db.execute("delete from job where id = ? and worker = ''", (_key(execution_id),))
            db.execute("update job set cancelled = 1 where id = ?", (_key(execution_id),))

    async def ended(self, execution_id: str) -> None:
        """Tell everybody who waits for a run."""
        now = time.time()
        with self._transaction() as db:
            db.execute("delete from ended where at < ?", (now - _TOLD_S,))
            db.execute("insert into ended (id, at) values (?, ?)", (_key(execution_id), now))

    async def wait(self, execution_id: str, timeout_s: float) -> bool:
        """Return True as soon as `ended` is told from now on, False after the time."""
        give_up = time.monotonic() + timeout_s
        last = self._last(execution_id)
        while self._last(execution_id) == last:
            if time.monotonic() >= give_up:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    def _last(self, execution_id: str) -> int:
        with self._transaction() as db:
            (n,) = db.execute("select coalesce(max(n), 0) from ended where id = ?", (_key(execution_id),)).fetchone()
        return int(n)

    async def stats(self) -> QueueStats:
        """Return what is in the queue."""
        now = time.time()
        with self._transaction() as db:
            rows = db.execute("select id, due, worker, seen from job").fetchall()
        running: dict[str, list[str]] = {}
        heard: dict[str, float] = {}
        for id_, _, worker, seen in rows:
            if worker:
                running.setdefault(worker, []).append(json.loads(id_))
                heard[worker] = max(seen, heard.get(worker, 0.0))
        waiting = [due for _, due, worker, _ in rows if not worker]
        return QueueStats(
            queued=sum(due <= now for due in waiting),
            delayed=sum(due > now for due in waiting),
            running=len(rows) - len(waiting),
            workers=tuple(WorkerSeen(name=one, last_heard=heard[one], running=ids) for one, ids in running.items()),
        )

    async def close(self) -> None:
        """Close the file. What waits in it stays there."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    async def work(self, handler: Handler, *, slots: int, stop: asyncio.Event) -> None:
        """Hand jobs to a handler until `stop` is set; see `Scheduler.work`."""
        if slots < 1:
            raise UsageError(f"slots={slots!r}: give a whole number, at least 1")
        await _Worker(self, handler, slots, stop).work()

    def take(self, worker: str, slots: int, *, nested: bool) -> list[Job]:
        """Give a worker the next jobs: those that wait, and those of workers that were not heard of."""
        now = time.time()
        old = now - self._redelivery_s
        with self._transaction() as db:
            db.execute("delete from job where cancelled and worker != '' and seen < ?", (old,))
            rows = db.execute(
                "select id, body from job where due <= ? and nested = ? and (worker = '' or seen < ?) "
                "order by rank, place limit ?",
                (now, nested, old, slots),
            ).fetchall()
            mine = [(worker, now, id_) for id_, _ in rows]
            db.executemany("update job set worker = ?, seen = ? where id = ?", mine)
        return [Job(**json.loads(body)) for _, body in rows]

    def keep(self, worker: str) -> list[str]:
        """Say that a worker lives; return which of its jobs are cancelled."""
        with self._transaction() as db:
            db.execute("update job set seen = ? where worker = ?", (time.time(), worker))
            rows = db.execute("select id from job where worker = ? and cancelled", (worker,)).fetchall()
        return [json.loads(id_) for (id_,) in rows]

    def done(self, worker: str, execution_id: str) -> None:
        """Forget a job that a worker has done."""
        with self._transaction() as db:
            db.execute("delete from job where id = ? and worker = ?", (_key(execution_id), worker))

    def put_back(self, worker: str, execution_id: str, due: float) -> None:
        """Let a job wait again."""
        row = (due, _key(execution_id), worker)
        with self._transaction() as db:
            db.execute("update job set worker = '', due = ? where id = ? and worker = ?", row)


class _Worker:
    """One call of `work`."""

    def __init__(self, queue: FileQueue, handler: Handler, slots: int, stop: asyncio.Event) -> None:
        self._queue = queue
        self._handler = handler
        self._slots = slots
        self._stop = stop
        self._name = f"{os.getpid()}-{next(_workers)}"
        self._tasks: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._cancelled: set[str] = set()

    async def work(self) -> None:
        try:
            while not self._stop.is_set() or self._tasks:
                self._look()
                await asyncio.sleep(_LOOK_S)
        finally:
            for _, task in self._tasks.values():
                task.cancel()
            while self._tasks:
                await asyncio.wait([task for _, task in self._tasks.values()])
                await asyncio.sleep(0)

    def _look(self) -> None:
        for id_ in self._queue.keep(self._name):
            if id_ in self._tasks and id_ not in self._cancelled:
                self._cancelled.add(id_)
                self._tasks[id_][1].cancel()
        if self._stop.is_set():
            return
        for nested in (True, False):
            free = self._slots - sum(job.nested == nested for job, _ in self._tasks.values())
            for job in self._queue.take(self._name, free, nested=nested) if free > 0 else ():
                task = asyncio.create_task(self._do(job))
                self._tasks[job.execution_id] = job, task
                task.add_done_callback(lambda _, id_=job.execution_id: self._tasks.pop(id_))  # type: ignore[misc]

    async def _do(self, job: Job) -> None:
        id_ = job.execution_id
        try:
            later: Later | None = await self._handler(job)
        except asyncio.CancelledError:
            if id_ in self._cancelled:
                self._cancelled.discard(id_)
                self._queue.done(self._name, id_)
                return
            self._queue.put_back(self._name, id_, 0.0)
            raise
        except Exception:
            _log.exception("the handler of job %s raised; it is delivered again", id_)
            self._queue.put_back(self._name, id_, time.time() + _BROKEN_S)
            return
        if later is None:
            self._queue.done(self._name, id_)
        else:
            self._queue.put_back(self._name, id_, time.time() + later.after_s)


def _key(execution_id: str) -> str:
    # ASCII: an id may hold half of a surrogate pair, which SQLite's UTF-8 cannot.
    return json.dumps(execution_id)
