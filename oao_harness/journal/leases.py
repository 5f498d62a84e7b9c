"""Who is at work on a run: a lease in the store, renewed while this process lives, and taken over when it is dead.

Of two processes that want one run, one gets it. A process that was frozen and comes back late cannot write: its epoch
was superseded. What it had begun is in doubt for the other.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

from oao_harness.errors import BusyError, FencedError
from oao_hookspecs import Record, Store

__all__ = ["LEASE_S", "Lease", "claim", "keep", "me", "take"]

_log: Final = logging.getLogger(__name__)

LEASE_S: Final = 30.0
"""Seconds that a lease lives where nobody renews it, by default; it is renewed four times in them."""

_OWNER: Final = re.compile(r"pid (?P<pid>\d+) on (?P<host>.+) \[(?P<boot>[^-]*)-(?P<start>\d+)\]")


def claim(store: Store, execution_id: str, *, ttl_s: float = 0.0) -> int:
    """Become the only writer of a run; also where a process of this machine held it that is dead by now.

    Args:
        store: Where the run is.
        execution_id: The run.
        ttl_s: See `Store.claim`.

    Returns:
        The epoch.

    Raises:
        BusyError: Somebody is at work on it.
    """
    return _claim(store, execution_id, ttl_s, read=False, by_force=False)[0]


def _claim(
    store: Store, execution_id: str, ttl_s: float, *, read: bool, by_force: bool
) -> tuple[int, Sequence[Record] | None]:
    """Return the epoch, and the records where they were asked for and the store returns them in the same step."""
    # A store that is far away has one step for both.
    both = getattr(store, "claim_and_read", None) if read else None

    def ask(over: int | None) -> tuple[int, Sequence[Record] | None]:
        if both is not None:
            return cast("tuple[int, Sequence[Record] | None]", both(execution_id, owner=me(), ttl_s=ttl_s, over=over))
        return store.claim(execution_id, owner=me(), ttl_s=ttl_s, over=over), None

    try:
        return ask(None)
    except BusyError as busy:
        if not by_force and not _is_dead(busy.owner):
            raise
        return ask(busy.epoch)


def take(
    store: Store,
    execution_id: str,
    on_lost: Callable[[str], None],
    *,
    ttl_s: float = LEASE_S,
    by_force: bool = False,
    read: bool = False,
) -> tuple[Lease, Sequence[Record] | None]:
    """Claim a run and keep it until the lease is let go.

    Args:
        store: Where the run is.
        execution_id: The run.
        on_lost: Told why, from another thread, when the run has another writer or cannot be kept any longer.
        ttl_s: Seconds that the lease lives where nobody renews it.
        by_force: True where whoever else holds it may hold it no more.
        read: True where the caller wants the records too.

    Returns:
        The lease, and what the run had when it was claimed; None where nobody asked, or the store did not say.

    Raises:
        BusyError: Somebody is at work on it.
    """
    epoch, records = _claim(store, execution_id, ttl_s, read=read, by_force=by_force)
    return keep(store, execution_id, epoch, on_lost, ttl_s=ttl_s), records


def keep(
    store: Store, execution_id: str, epoch: int, on_lost: Callable[[str], None], *, ttl_s: float = LEASE_S
) -> Lease:
    """Keep a run that was claimed just now; see `take`.

    Args:
        store: Where the run is.
        execution_id: The run.
        epoch: Of the claim.
        on_lost: See `take`.
        ttl_s: See `take`.
    """
    lease = Lease(store, execution_id, epoch, on_lost, ttl_s)
    _keeper.put(lease)
    return lease


def _nobody(why: str) -> None:
    """Is told of a lease that was let go."""


class Lease:
    """A run that this process is at work on.

    Args:
        store: Where the run is.
        execution_id: The run.
        epoch: Of the claim.
        on_lost: See `take`.
        ttl_s: See `take`.
    """

    __slots__ = (
        "_gone",
        "_lock",
        "_on_lost",
        "_store",
        "epoch",
        "execution_id",
        "late_at",
        "renewed",
        "ttl_s",
    )

    def __init__(
        self, store: Store, execution_id: str, epoch: int, on_lost: Callable[[str], None], ttl_s: float
    ) -> None:
        self._store = store
        self.ttl_s = ttl_s
        self.execution_id = execution_id
        self.epoch = epoch
        self.renewed = time.perf_counter()
        """When it was renewed last; by a clock that no test moves."""
        self.late_at = self.renewed + ttl_s
        """From when on, by that clock, another process may have the run: this one was not heard of for so long."""
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._gone = False

    def renew(self) -> bool:
        """Let it live on; return False where it is lost, or was let go."""
        lost = ""
        with self._lock:
            if self._gone:
                return False
            try:
                self._store.renew(self.execution_id, self.epoch, self.ttl_s)
                self.renewed = time.perf_counter()
                self.late_at = self.renewed + self.ttl_s
            except FencedError as error:
                lost = f"another process has taken the run over: {error}"
            except Exception as error:  # noqa: BLE001 - a store that is away may be back in time
                _log.warning("run %s: its lease could not be renewed: %s", self.execution_id, error)
                if time.perf_counter() > self.late_at:
                    lost = f"its lease lapsed, and the store cannot be reached: {error}"
        if lost:
            self._on_lost(lost)
        return not lost

    def let_go(self, *, release: bool = False) -> None:
        """Keep it no more; the record of the run's end ends it in the store.

        Args:
            release: True where no such record comes: who goes on with the run need not wait.
        """
        _keeper.take(self)
        with self._lock:
            self._gone = True
            # Whose it was: its objects go with the last one that holds them.
            self._on_lost = _nobody
        if release:
            # A store that is away does not know; then the lease lapses by itself.
            with suppress(Exception):
                self._store.release(self.execution_id, self.epoch)


class _Keeper:
    """The leases of this process. One instance, because it owns the one thread."""

    def __init__(self) -> None:
        self.forked()

    def forked(self) -> None:
        """In a forked child: the runs are the parent's."""
        self._some = threading.Condition()
        self._leases: dict[int, Lease] = {}
        self._rest_s = LEASE_S / 8
        """Seconds that the thread sleeps at most."""
        self._thread: threading.Thread | None = None

    def put(self, lease: Lease) -> None:
        with self._some:
            self._leases[id(lease)] = lease
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="oao-leases", daemon=True)
                # In an empty context: else the thread would belong to the run that starts.
                contextvars.Context().run(self._thread.start)
            elif lease.ttl_s / 8 < self._rest_s:
                self._some.notify()

    def take(self, lease: Lease) -> None:
        with self._some:
            self._leases.pop(id(lease), None)

    def _work(self) -> None:
        while True:
            with self._some:
                # Where nothing is kept now it slows down by and by: runs that come one after the other must not each
                # wake it. Never longer than a lease: a wait of years is refused, and would end this thread.
                idle_s = 2 * self._rest_s
                rest_s = min((lease.ttl_s / 8 for lease in self._leases.values()), default=idle_s)
                self._rest_s = min(rest_s, LEASE_S)
                self._some.wait(self._rest_s)
                leases = list(self._leases.values())
            now = time.perf_counter()
            for lease in leases:
                if now - lease.renewed >= lease.ttl_s / 4 and not self._renewed(lease):
                    self.take(lease)

    def _renewed(self, lease: Lease) -> bool:
        try:
            return lease.renew()
        except Exception:  # noqa: BLE001 - one run's trouble must not cost the others their leases
            _log.exception("run %s: that its lease is lost could not be told", lease.execution_id)
            return False


_keeper: Final = _Keeper()


@functools.cache
def _boot() -> str:
    """Return what tells this start of the machine from any other, as far as the system says."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()[:8]
    return "0"


@functools.cache
def me() -> str:
    """Return this process in words, the owner of what it claims; after a fork, or a restart, it is another one."""
    pid = os.getpid()
    return f"pid {pid} on {socket.gethostname()} [{_boot()}-{_started(pid)}]"


def _started(pid: int) -> str:
    """Return when a process was started, in ticks since the machine was; empty where there is none."""
    with suppress(OSError, IndexError):
        # The name of the program comes second, in brackets, and may hold anything.
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    return ""


def _is_dead(owner: str) -> bool:
    """Return True for a process of this machine that is gone; of others nobody knows."""
    found = _OWNER.fullmatch(owner)
    if found is None or found["host"] != socket.gethostname():
        return False
    pid = int(found["pid"])
    return found["boot"] != _boot() or _started(pid) != found["start"] or _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] in {"Z", "X"}
    return True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keeper.forked)
    os.register_at_fork(after_in_child=me.cache_clear)
