"""How often somebody may do something: counters in bounded memory. Knows nothing of HTTP."""

from __future__ import annotations

import ipaddress
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from oao_harness.errors import ConfigError

__all__ = ["Quota", "Quotas", "group_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What is left to somebody after one more request."""

    allowed: bool
    limit: int
    window_s: int
    remaining: int
    resets_in_s: float


class _BoundedStorage(Storage):
    """Counters of which the one that was not asked for longest is forgotten where there are too many.

    Whoever has so many addresses that this helps them has as many times the limit anyway. The library's own storage
    in memory is not bounded, and starts a thread every few milliseconds to tidy up.
    """

    STORAGE_SCHEME = None

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        super().__init__()
        self._most = most
        self._clock = clock
        self._counters: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = self._clock()
        count, until = self._counters.get(key, (0, 0.0))
        if until <= now:
            count, until = 0, now + expiry
        self._counters[key] = (count + amount, until)
        self._counters.move_to_end(key)
        while len(self._counters) > self._most:
            self._counters.popitem(last=False)
        return count + amount

    def get(self, key: str) -> int:
        count, until = self._counters.get(key, (0, 0.0))
        return count if until > self._clock() else 0

    def get_expiry(self, key: str) -> float:
        return max(self._counters.get(key, (0, 0.0))[1], self._clock())

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._counters)
        self._counters.clear()
        return count

    def clear(self, key: str) -> None:
        self._counters.pop(key, None)

    def __len__(self) -> int:
        return len(self._counters)


class Quotas:
    """One limit, for each of many. Not for several threads at once: a server asks on its event loop.

    Args:
        limit: As the library `limits` writes it: `600/minute`, `20 per 5 minutes`.
        most: How many are counted at once.
        clock: Returns seconds that never go back.

    Raises:
        ConfigError: The limit is none.
    """

    def __init__(self, limit: str, *, most: int = 20_000, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            self._item: RateLimitItem = parse(limit)
        except ValueError as error:
            raise ConfigError(f"{limit!r} is no rate limit; write for example 600/minute") from error
        self._clock = clock
        self._storage = _BoundedStorage(most, clock)
        self._limiter = FixedWindowRateLimiter(self._storage)

    @property
    def policy(self) -> tuple[int, int]:
        """How many, in how many seconds."""
        return self._item.amount, self._item.get_expiry()

    @property
    def counted(self) -> int:
        """How many have a counter."""
        return len(self._storage)

    def hit(self, *who: str) -> Quota:
        """Count one more request of somebody, and return what is left.

        Args:
            who: In parts; somebody else in any part has a counter of their own.
        """
        # One part, in which no two are written alike: the library joins parts by a stroke.
        name = json.dumps(who)
        allowed = self._limiter.hit(self._item, name)
        found = self._limiter.get_window_stats(self._item, name)
        return Quota(
            allowed=allowed,
            limit=self._item.amount,
            window_s=self._item.get_expiry(),
            remaining=found.remaining,
            resets_in_s=max(0.0, found.reset_time - self._clock()),
        )


def group_of(host: str | None) -> str:
    """Return whose counter an address has: an IPv6 network of 64 bits is one client, which has all its addresses.

    Args:
        host: The address; None where nobody knows it, and all such clients are one.
    """
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False).network_address)
    return str(address)
