"""Keeps the holds of this process alive in their ledgers: one daemon thread, which ends when nothing is held."""

from __future__ import annotations

import atexit
import contextvars
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Final, Protocol

from oao_hookspecs import Ledger

__all__ = ["Holder", "keep", "let_go", "owe", "release_all"]

_log: Final = logging.getLogger(__name__)


class Holder(Protocol):
    """Whose holds are kept."""

    @property
    def name(self) -> str:
        """The account in the ledger."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Where the holds are."""
        ...

    @property
    def ttl_s(self) -> float:
        """Seconds that a hold lives; it is renewed four times in them."""
        ...


class _Renewer:
    """The holds of the process. One instance, because it owns the one thread."""

    def __init__(self) -> None:
        self.forked()

    def forked(self) -> None:
        """In a forked child: the holds are the parent's to renew, to settle and to release."""
        self._changed = threading.Condition()
        self._holds: dict[Holder, dict[str, Mapping[str, int] | None]] = {}
        """By hold, what is to be settled for it as soon as the ledger is back, or None while its call is in flight."""
        self._due: dict[Holder, float] = {}
        self._thread: threading.Thread | None = None

    def put(self, holder: Holder, hold: str, spent: Mapping[str, int] | None) -> None:
        """Keep a hold, or try again to settle it."""
        with self._changed:
            self._holds.setdefault(holder, {})[hold] = spent
            if holder not in self._due:
                self._due[holder] = time.monotonic() + holder.ttl_s / 4
                self._changed.notify()
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="oao-renewal", daemon=True)
                # In an empty context: else the thread would belong to the run that is being judged.
                contextvars.Context().run(thread.start)
                self._thread = thread

    def take(self, holder: Holder, hold: str) -> None:
        """Keep a hold no more."""
        with self._changed:
            self._holds.get(holder, {}).pop(hold, None)

    def _work(self) -> None:
        while (holder := self._next()) is not None:
            try:
                self._renew(holder)
            except Exception:  # noqa: BLE001 - the next try comes, and until then the ledger counts the holds
                _log.warning("budget %r: its holds could not be renewed", holder.name, exc_info=True)

    def _next(self) -> Holder | None:
        """Wait for the next holder that is due; return None where nobody holds anything, and the thread is to end."""
        with self._changed:
            while self._due:
                holder, due = min(self._due.items(), key=lambda item: item[1])
                left_s = due - time.monotonic()
                if left_s > 0:
                    self._changed.wait(left_s)
                elif self._holds[holder]:
                    self._due[holder] = time.monotonic() + holder.ttl_s / 4
                    return holder
                else:
                    del self._due[holder], self._holds[holder]
            self._thread = None
            return None

    def _renew(self, holder: Holder) -> None:
        with self._changed:
            holds = dict(self._holds.get(holder, {}))
        lost = holder.ledger.renew(holder.name, tuple(holds), holder.ttl_s)
        for hold, spent in holds.items():
            if spent is not None:
                holder.ledger.settle(holder.name, hold, spent)
                self.take(holder, hold)
        with self._changed:
            # What was settled meanwhile is not lost, and what is owed meanwhile is settled the next time.
            mine = self._holds.get(holder, {})
            expired = [hold for hold in lost if hold in mine and mine[hold] is None]
            for hold in expired:
                del mine[hold]
        if expired:
            _log.warning(
                "budget %r: %d holds expired while their calls were in flight (was the process suspended?); what they "
                "spend is still counted",
                holder.name,
                len(expired),
            )

    def release_all(self) -> None:
        """At the end of the process: settle what is owed, give back what is held; as far as the ledgers answer."""
        with self._changed:
            left = {holder: dict(holds) for holder, holds in self._holds.items()}
            self._holds.clear()
            self._due.clear()
            self._changed.notify()
        for holder, holds in left.items():
            try:
                for hold, spent in holds.items():
                    holder.ledger.settle(holder.name, hold, spent or {})
            except Exception as error:  # noqa: BLE001 - they come back by themselves
                _log.warning("budget %r: its holds were not released: %s", holder.name, error)


_renewer: Final = _Renewer()


def release_all() -> None:
    """Settle what is owed and give back what is held in this process; called when it ends."""
    _renewer.release_all()


atexit.register(release_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renewer.forked)


def keep(holder: Holder, hold: str) -> None:
    """Renew a hold until it is let go."""
    _renewer.put(holder, hold, None)


def owe(holder: Holder, hold: str, spent: Mapping[str, int]) -> None:
    """Settle a hold as soon as its ledger can be reached again; until then it is renewed."""
    _renewer.put(holder, hold, spent)


def let_go(holder: Holder, hold: str) -> None:
    """Renew a hold no more."""
    _renewer.take(holder, hold)
