"""Any order of reserving, settling, renewing and expiring: every ledger does what twenty lines of model do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oao_harness import StoreError
from oao_harness.stores.memory_ledger import MemoryLedger
from oao_harness.stores.redis_ledger import RedisLedger
from oao_harness.stores.sqlite_ledger import SQLiteLedger
from oao_hookspecs import Amounts, Ledger
from pytest_oao.testing import RedisServer
from tests.stores.test_ledgers import Clock, move_redis, move_sqlite

LIMITS = {"a": 10, "b": 7}


@dataclass
class Model:
    """A ledger that can be read at a glance."""

    now: float = 0
    spent: dict[str, int] = field(default_factory=lambda: {"a": 0, "b": 0})
    holds: dict[str, tuple[dict[str, int], float]] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)

    def live(self) -> dict[str, tuple[dict[str, int], float]]:
        return {hold: found for hold, found in self.holds.items() if found[1] > self.now}

    def held(self, counter: str) -> int:
        return sum(amounts.get(counter, 0) for amounts, _ in self.live().values())

    def reserve(self, hold: str, amounts: dict[str, int], ttl_s: float) -> str:
        if hold in self.settled:
            return "error"
        if hold in self.live():
            kept, expires = self.holds[hold]
            if {c: n for c, n in kept.items() if n} != {c: n for c, n in amounts.items() if n}:
                return "error"
            self.holds[hold] = kept, max(expires, self.now + ttl_s)
            return "taken"
        for counter, amount in amounts.items():
            if self.spent[counter] + self.held(counter) + amount > LIMITS[counter]:
                return counter
        self.holds[hold] = amounts, self.now + ttl_s
        return "taken"

    def settle(self, hold: str, spent: dict[str, int]) -> None:
        if hold not in self.settled:
            self.holds.pop(hold, None)
            self.settled.add(hold)
            for counter, amount in spent.items():
                self.spent[counter] += amount

    def renew(self, holds: list[str], ttl_s: float) -> list[str]:
        live = self.live()
        for hold in live.keys() & set(holds):
            self.holds[hold] = live[hold][0], max(live[hold][1], self.now + ttl_s)
        return [hold for hold in holds if hold not in live]

    def totals(self) -> dict[str, tuple[int, int]]:
        found = {counter: (self.spent[counter], self.held(counter)) for counter in LIMITS}
        return {counter: pair for counter, pair in found.items() if pair != (0, 0)}


HOLDS = st.sampled_from(["h1", "h2", "h3", "h4"])
AMOUNTS = st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 6))
TTLS = st.sampled_from([10, 20, 40])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), HOLDS, AMOUNTS, TTLS),
        st.tuples(st.just("settle"), HOLDS, AMOUNTS),
        st.tuples(st.just("renew"), st.lists(HOLDS, max_size=3, unique=True), TTLS),
        st.tuples(st.just("elapse"), st.sampled_from([5, 10, 25])),
    ),
    max_size=30,
)
Opened = tuple[Ledger, Callable[[str, float], None]]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """A ledger, and what lets seconds pass for an account of it."""
    if request.param == "memory":
        clock = Clock()
        yield MemoryLedger(clock=clock), lambda account, seconds: clock.move(seconds)
    elif request.param == "sqlite":
        ledger: Ledger = SQLiteLedger(tmp_path / "oao.db")
        yield ledger, lambda account, seconds: move_sqlite(tmp_path / "oao.db", seconds)
        ledger.close()
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        ledger = RedisLedger(server.url)
        yield ledger, lambda account, seconds: move_redis(server.url, account, seconds)
        ledger.close()


_NUMBERS = itertools.count()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
@given(steps=STEPS)
def test_a_ledger_is_its_model(opened: Opened, steps: list[tuple]) -> None:
    """The same answers and the same totals after every step; nothing new is taken above a limit."""
    ledger, elapse = opened
    account, model = f"random-{next(_NUMBERS)}", Model()
    # From here the ledger's clock is ahead, and stands still but for the steps.
    ledger.renew(account, ["nobody"], 1)
    elapse(account, 86_400)
    for step in steps:
        answer = ""
        if step[0] == "reserve":
            _, hold, amounts, ttl_s = step
            try:
                refusal = ledger.reserve(account, hold, amounts, LIMITS, ttl_s)
                answer = "taken" if refusal is None else refusal.counter
            except StoreError:
                answer = "error"
            renewed = hold in model.live()
            assert answer == model.reserve(hold, amounts, ttl_s)
            answer = "new" if answer == "taken" and not renewed else answer
        elif step[0] == "settle":
            ledger.settle(account, step[1], step[2])
            model.settle(step[1], step[2])
        elif step[0] == "renew":
            assert list(ledger.renew(account, step[1], step[2])) == model.renew(step[1], step[2])
        else:
            elapse(account, step[1])
            model.now += step[1]
        totals = ledger.totals(account)
        assert {counter: (found.spent, found.held) for counter, found in totals.items()} == model.totals()
        if answer == "new":
            for counter in step[2]:
                found = totals.get(counter, Amounts())
                assert found.spent + found.held <= LIMITS[counter]


def test_the_same_in_redis_as_in_the_others_for_large_numbers(redis_server: RedisServer) -> None:
    """Lua's numbers are floats: sums near 2**53 must not be rounded under a limit."""
    ledger, most = RedisLedger(redis_server.url), 2**53 - 1
    for spent in (most - 3, most - 2, most - 1, most):
        account = f"large-{spent}"
        ledger.settle(account, "h", {"n": spent})
        fits = [
            asked for asked in range(6) if ledger.reserve(account, f"h{asked}", {"n": asked}, {"n": most}, 60) is None
        ]
        with redis.Redis.from_url(redis_server.url) as client:
            assert int(client.hget(f"oao:budget:{{{account}}}:spent", "n") or 0) == spent
        left, expected = most - spent, []
        for asked in range(6):
            if asked <= left:
                expected.append(asked)
                left -= asked
        assert fits == expected
    ledger.close()
