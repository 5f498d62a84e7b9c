"""Budgets that the threads of one process share. A forked child is refused: it would count for itself alone."""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from oao_harness.errors import StoreError
from oao_harness.stores.ledger_rules import (
    MOST,
    SETTLED_KEPT_S,
    dump_amounts,
    in_use,
    require_amounts,
    require_names,
    require_ttl,
    settled_already,
    would_pass,
)
from oao_hookspecs import Amounts, Refusal

__all__ = ["MemoryLedger", "shared_memory_ledger"]


@dataclass(slots=True)
class _Hold:
    amounts: dict[str, int]
    expires: float


@dataclass(slots=True)
class _Account:
    now: float = 0.0
    """The latest time seen."""
    spent: dict[str, int] = field(default_factory=dict[str, int])
    held: dict[str, int] = field(default_factory=dict[str, int])
    holds: dict[str, _Hold] = field(default_factory=dict[str, _Hold])
    due: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """A heap of when to look at which hold; a renewed or settled one is still in it."""
    settled: set[str] = field(default_factory=set[str])
    forget: deque[tuple[float, str]] = field(default_factory=deque[tuple[float, str]])

    def drop(self, hold: str) -> None:
        for counter, amount in self.holds.pop(hold).amounts.items():
            self.held[counter] -= amount
            if not self.held[counter]:
                del self.held[counter]

    def advance(self, now: float) -> None:
        """Let the time pass: expired holds come back, old ids are forgotten. Each of them is looked at once."""
        self.now = now = max(now, self.now)
        while self.due and self.due[0][0] <= now:
            _, hold = heapq.heappop(self.due)
            found = self.holds.get(hold)
            if found is None:
                continue
            if found.expires <= now:
                self.drop(hold)
            else:
                heapq.heappush(self.due, (found.expires, hold))
        while self.forget and self.forget[0][0] <= now:
            self.settled.discard(self.forget.popleft()[1])


class MemoryLedger:
    """A ledger that lives as long as the process; see `Ledger`.

    Args:
        clock: Returns seconds; a test can move it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}
        self._pid = os.getpid()

    def _advanced(self, account: str) -> _Account:
        found = self._accounts.get(account) or self._accounts.setdefault(account, _Account())
        found.advance(self._clock())
        return found

    def _require_process(self) -> None:
        # Before the lock: another thread may have held it when the process was forked.
        if os.getpid() != self._pid:
            raise StoreError(
                "a memory: ledger does not reach another process, and this one was forked; "
                "share the budget by sqlite:PATH or redis://host:port"
            )

    def reserve(
        self, account: str, hold: str, amounts: Mapping[str, int], limits: Mapping[str, int], ttl_s: float
    ) -> Refusal | None:
        """Take all amounts, or none; see `Ledger.reserve`."""
        require_names(account, hold)
        require_amounts("amount", amounts)
        require_amounts("limit", limits)
        require_ttl(ttl_s)
        self._require_process()
        with self._lock:
            state = self._advanced(account)
            if hold in state.settled:
                raise settled_already(account, hold)
            found = state.holds.get(hold)
            if found is not None:
                if dump_amounts(found.amounts) != dump_amounts(amounts):
                    raise in_use(account, hold)
                found.expires = max(found.expires, state.now + ttl_s)
                return None
            for counter, asked in amounts.items():
                spent, held = state.spent.get(counter, 0), state.held.get(counter, 0)
                refusal = would_pass(counter, asked, limits, spent, held)
                if refusal is not None:
                    return refusal
            taken = {counter: amount for counter, amount in amounts.items() if amount}
            for counter, amount in taken.items():
                state.held[counter] = state.held.get(counter, 0) + amount
            state.holds[hold] = _Hold(taken, state.now + ttl_s)
            heapq.heappush(state.due, (state.now + ttl_s, hold))
        return None

    def settle(self, account: str, hold: str, spent: Mapping[str, int]) -> None:
        """Replace a hold by what was really spent; see `Ledger.settle`."""
        require_names(account, hold)
        require_amounts("spent", spent)
        self._require_process()
        with self._lock:
            state = self._advanced(account)
            if hold in state.settled:
                return
            if hold in state.holds:
                state.drop(hold)
            for counter, amount in spent.items():
                if amount:
                    state.spent[counter] = min(state.spent.get(counter, 0) + amount, MOST)
            state.settled.add(hold)
            state.forget.append((state.now + SETTLED_KEPT_S, hold))

    def renew(self, account: str, holds: Sequence[str], ttl_s: float) -> Sequence[str]:
        """Let live holds live on; see `Ledger.renew`."""
        require_names(account, *holds)
        require_ttl(ttl_s)
        self._require_process()
        with self._lock:
            state = self._advanced(account)
            for hold in holds:
                found = state.holds.get(hold)
                if found is not None:
                    found.expires = max(found.expires, state.now + ttl_s)
            return [hold for hold in holds if hold not in state.holds]

    def totals(self, account: str) -> Mapping[str, Amounts]:
        """Return what is spent and held; see `Ledger.totals`."""
        require_names(account)
        self._require_process()
        with self._lock:
            if account not in self._accounts:
                return {}
            state = self._advanced(account)
            return {
                counter: Amounts(spent=state.spent.get(counter, 0), held=state.held.get(counter, 0))
                for counter in {**state.spent, **state.held}
            }

    def close(self) -> None:
        """Nothing to release."""


_named: Final[dict[str, MemoryLedger]] = {}


def shared_memory_ledger(name: str) -> MemoryLedger:
    """Return the ledger of this name in this process, the same for everybody who asks."""
    return _named.setdefault(name, MemoryLedger())
