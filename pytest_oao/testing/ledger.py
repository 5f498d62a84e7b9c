"""What every ledger promises, as tests that the author of a ledger inherits.

```python
class TestMyLedger(LedgerConformance):
    @pytest.fixture
    def ledger(self, tmp_path):
        ledger = MyLedger(tmp_path)
        yield ledger
        ledger.close()
```
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from oao_harness.errors import ConfigError, StoreError
from oao_hookspecs import Amounts, Ledger, Refusal
from pytest_oao.testing.capabilities import Declaring

__all__ = ["LedgerConformance"]

_MOST: Final = 2**53 - 1
_ODD: Final = (
    "a b",
    "zwölf ✓ 🚀",
    "half \ud83d",
    "{braces}:*?[x]",
    "line\nbreak\r\t\0",
    "' or 1=1 --",
    "7",
    "x" * 1024,
)
_BAD_AMOUNTS: Final = (-1, 1.0, 1.5, math.nan, math.inf, True, "1", None, 2**53, 10**40)
_BAD_TTLS: Final = (0, -1, math.nan, math.inf, 601, "60", None, True)
_BAD_NAMES: Final = ("", "x" * 1025, "x" * 10_240, None, 7, b"bytes")


class LedgerConformance(Declaring):
    """Inherit it in a class whose name starts with `Test`, and override the fixture `ledger`.

    Where the clock of the ledger can be moved, override `elapse` too: else the tests wait, about 3 seconds in all.
    """

    TTL_S = 0.2
    """Seconds that a short hold lives in these tests."""

    @pytest.fixture
    def ledger(self) -> Ledger:
        """Override this: return the ledger to test."""
        raise NotImplementedError("override the fixture `ledger` in your class")

    @pytest.fixture
    def account(self) -> str:
        """Return the account that a test uses: one that nobody used before."""
        return f"conformance-{uuid.uuid4().hex}"

    @pytest.fixture
    def elapse(self) -> Callable[[float], None]:
        """Override this where you can: return what lets seconds pass for the account of the test."""
        return time.sleep

    def test_nothing_is_known_of_an_unknown_account(self, ledger: Ledger, account: str) -> None:
        """To ask makes no account."""
        assert ledger.totals(account) == {}

    def test_what_is_reserved_is_held_until_it_is_settled(self, ledger: Ledger, account: str) -> None:
        """Held first; then spent, as much as it really was."""
        assert ledger.reserve(account, "h", {"steps": 1, "tokens": 50}, {}, 60) is None
        assert ledger.totals(account) == {"steps": Amounts(held=1), "tokens": Amounts(held=50)}

        ledger.settle(account, "h", {"steps": 1, "tokens": 20})
        assert ledger.totals(account) == {"steps": Amounts(spent=1), "tokens": Amounts(spent=20)}

    def test_a_limit_can_be_reached_and_not_passed(self, ledger: Ledger, account: str) -> None:
        """Spent, held and asked together; the refusal says all of it."""
        limits = {"tokens": 10}
        assert ledger.reserve(account, "a", {"tokens": 4}, limits, 60) is None
        ledger.settle(account, "a", {"tokens": 4})
        assert ledger.reserve(account, "b", {"tokens": 3}, limits, 60) is None

        refusal = ledger.reserve(account, "c", {"tokens": 4}, limits, 60)
        assert refusal == Refusal(counter="tokens", limit=10, spent=4, held=3, asked=4)
        assert ledger.reserve(account, "c", {"tokens": 3}, limits, 60) is None
        assert ledger.totals(account) == {"tokens": Amounts(spent=4, held=6)}

    def test_all_or_nothing(self, ledger: Ledger, account: str) -> None:
        """Where one counter refuses, none is touched; the first in the order asked is named."""
        asked = {"a": 1, "b": 6, "c": 7}
        refusal = ledger.reserve(account, "h", asked, {"a": 5, "b": 5, "c": 5}, 60)

        assert refusal is not None
        assert (refusal.counter, refusal.asked) == ("b", 6)
        assert ledger.totals(account) == {}

    def test_limits_of_other_counters_do_not_matter(self, ledger: Ledger, account: str) -> None:
        """A tool call is not refused because of tokens."""
        ledger.settle(account, "h", {"tokens": 100})
        assert ledger.reserve(account, "i", {"steps": 1}, {"tokens": 5, "steps": 1}, 60) is None

    def test_a_limit_of_zero_lets_nothing_through(self, ledger: Ledger, account: str) -> None:
        """Asking for nothing is allowed, also then."""
        assert ledger.reserve(account, "a", {"steps": 1}, {"steps": 0}, 60) is not None
        assert ledger.reserve(account, "b", {"steps": 0}, {"steps": 0}, 60) is None
        assert ledger.reserve(account, "c", {}, {"steps": 0}, 60) is None
        assert ledger.totals(account) == {}

    def test_reserving_again_with_equal_amounts_changes_nothing(self, ledger: Ledger, account: str) -> None:
        """A retry after a lost answer is no second reservation, also at the limit."""
        for amounts in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 2, "c": 0}):
            assert ledger.reserve(account, "h", amounts, {"a": 1, "b": 2}, 60) is None
        assert ledger.totals(account) == {"a": Amounts(held=1), "b": Amounts(held=2)}

    def test_an_id_cannot_hold_other_amounts(self, ledger: Ledger, account: str) -> None:
        """It is an error, not a refusal, and the first hold stays."""
        ledger.reserve(account, "h", {"a": 1}, {}, 60)

        for other in ({"a": 2}, {"b": 1}, {"a": 1, "b": 1}, {}):
            with pytest.raises(StoreError, match="in use"):
                ledger.reserve(account, "h", other, {}, 60)
        assert ledger.totals(account) == {"a": Amounts(held=1)}

    def test_a_settled_id_cannot_be_reserved(self, ledger: Ledger, account: str) -> None:
        """A reservation that arrives late must not hold for nobody."""
        ledger.reserve(account, "h", {"a": 1}, {}, 60)
        ledger.settle(account, "h", {"a": 1})

        with pytest.raises(StoreError, match="settled"):
            ledger.reserve(account, "h", {"a": 1}, {}, 60)
        assert ledger.totals(account) == {"a": Amounts(spent=1)}

    def test_settling_again_changes_nothing(self, ledger: Ledger, account: str) -> None:
        """Whatever the repetition says."""
        ledger.reserve(account, "h", {"a": 5}, {}, 60)
        for spent in ({"a": 3}, {"a": 3}, {"a": 9, "b": 1}, {}):
            ledger.settle(account, "h", spent)
        assert ledger.totals(account) == {"a": Amounts(spent=3)}

    def test_settling_with_nothing_is_a_refund(self, ledger: Ledger, account: str) -> None:
        """All that was held can be taken by somebody else."""
        ledger.reserve(account, "h", {"a": 5}, {"a": 5}, 60)
        ledger.settle(account, "h", {})

        assert ledger.totals(account) == {}
        assert ledger.reserve(account, "i", {"a": 5}, {"a": 5}, 60) is None

    def test_spending_is_a_fact(self, ledger: Ledger, account: str) -> None:
        """More than was held counts, also of other counters, also past the limit, also without a reservation."""
        ledger.reserve(account, "h", {"a": 1}, {"a": 1}, 60)
        ledger.settle(account, "h", {"a": 7, "b": 2})
        ledger.settle(account, "never reserved", {"a": 1})

        assert ledger.totals(account) == {"a": Amounts(spent=8), "b": Amounts(spent=2)}
        assert ledger.reserve(account, "i", {"a": 1}, {"a": 8}, 60) == Refusal(
            counter="a", limit=8, spent=8, held=0, asked=1
        )

    def test_a_hold_comes_back_when_its_time_has_passed(
        self, ledger: Ledger, account: str, elapse: Callable[[float], None]
    ) -> None:
        """The crash of a holder costs nobody anything; a hold that lives longer stays."""
        ledger.reserve(account, "dead", {"a": 5, "b": 1}, {}, self.TTL_S)
        ledger.reserve(account, "alive", {"a": 2}, {}, 60)
        assert ledger.reserve(account, "next", {"a": 1}, {"a": 7}, 60) is not None

        elapse(self.TTL_S * 1.5)
        assert ledger.totals(account) == {"a": Amounts(held=2)}
        assert ledger.reserve(account, "next", {"a": 5}, {"a": 7}, 60) is None

    def test_a_hold_that_expired_is_settled_all_the_same(
        self, ledger: Ledger, account: str, elapse: Callable[[float], None]
    ) -> None:
        """Once: it had come back, and it was spent."""
        ledger.reserve(account, "h", {"a": 5}, {}, self.TTL_S)
        elapse(self.TTL_S * 1.5)
        for _ in range(2):
            ledger.settle(account, "h", {"a": 4})
        assert ledger.totals(account) == {"a": Amounts(spent=4)}

    def test_a_renewed_hold_lives_on(self, ledger: Ledger, account: str, elapse: Callable[[float], None]) -> None:
        """From now, not from its beginning."""
        ledger.reserve(account, "h", {"a": 5}, {}, self.TTL_S)
        assert list(ledger.renew(account, ["h"], 60)) == []
        elapse(self.TTL_S * 1.5)
        assert ledger.totals(account) == {"a": Amounts(held=5)}

    def test_reserving_again_renews(self, ledger: Ledger, account: str, elapse: Callable[[float], None]) -> None:
        """The retry is as good as the first."""
        ledger.reserve(account, "h", {"a": 5}, {}, self.TTL_S)
        ledger.reserve(account, "h", {"a": 5}, {}, 60)
        elapse(self.TTL_S * 1.5)
        assert ledger.totals(account) == {"a": Amounts(held=5)}

    def test_renewing_never_shortens(self, ledger: Ledger, account: str, elapse: Callable[[float], None]) -> None:
        """A late renewal with a short time takes nothing away."""
        ledger.reserve(account, "h", {"a": 5}, {}, 60)
        ledger.renew(account, ["h"], self.TTL_S)
        elapse(self.TTL_S * 1.5)
        assert ledger.totals(account) == {"a": Amounts(held=5)}

    def test_what_is_held_no_more_cannot_be_renewed(
        self, ledger: Ledger, account: str, elapse: Callable[[float], None]
    ) -> None:
        """Expired, settled and unknown ids are named; the others are renewed."""
        ledger.reserve(account, "expired", {"a": 1}, {}, self.TTL_S)
        ledger.reserve(account, "alive", {"a": 2}, {}, 60)
        ledger.reserve(account, "settled", {"a": 4}, {}, 60)
        ledger.settle(account, "settled", {})
        elapse(self.TTL_S * 1.5)

        lost = ledger.renew(account, ["expired", "alive", "settled", "unknown"], 60)
        assert list(lost) == ["expired", "settled", "unknown"]
        assert ledger.totals(account) == {"a": Amounts(held=2)}
        assert list(ledger.renew(account, [], 60)) == []

    def test_accounts_are_apart(self, ledger: Ledger, account: str) -> None:
        """Same counters, same ids, other money."""
        ledger.reserve(account, "h", {"a": 1}, {"a": 1}, 60)
        assert ledger.reserve(f"{account}-2", "h", {"a": 1}, {"a": 1}, 60) is None
        ledger.settle(account, "h", {})
        assert ledger.totals(account) == {}
        assert ledger.totals(f"{account}-2") == {"a": Amounts(held=1)}

    @pytest.mark.parametrize("name", _ODD, ids=lambda name: f"{name!a:.20}")
    def test_a_name_may_hold_any_character(self, ledger: Ledger, account: str, name: str) -> None:
        """As an account, a hold and a counter; a model may name a tool as it likes."""
        whole = f"{account}{name}"[:1024]
        assert ledger.reserve(whole, name, {name: 2, "b": 1}, {name: 10}, 60) is None
        assert ledger.totals(whole) == {name: Amounts(held=2), "b": Amounts(held=1)}
        assert list(ledger.renew(whole, [name], 60)) == []
        ledger.settle(whole, name, {name: 1})
        assert ledger.totals(whole) == {name: Amounts(spent=1)}

    def test_numbers_are_exact_and_bounded(self, ledger: Ledger, account: str) -> None:
        """Up to 2**53 - 1, which no counter passes, limit or not."""
        assert ledger.reserve(account, "a", {"n": _MOST - 1}, {"n": _MOST}, 60) is None
        assert ledger.reserve(account, "b", {"n": 2}, {}, 60) == Refusal(
            counter="n", limit=_MOST, spent=0, held=_MOST - 1, asked=2
        )
        assert ledger.reserve(account, "b", {"n": 1}, {}, 60) is None
        ledger.settle(account, "a", {"n": _MOST - 2})
        assert ledger.totals(account) == {"n": Amounts(spent=_MOST - 2, held=1)}
        ledger.settle(account, "c", {"n": _MOST})
        assert ledger.totals(account) == {"n": Amounts(spent=_MOST, held=1)}
        ledger.settle(account, "b", {})
        assert ledger.reserve(account, "d", {"n": 1}, {}, 60) is not None
        assert ledger.totals(account) == {"n": Amounts(spent=_MOST)}

    @pytest.mark.parametrize("amount", _BAD_AMOUNTS, ids=repr)
    def test_a_bad_amount_is_refused(self, ledger: Ledger, account: str, amount: Any) -> None:
        """And the good one beside it is not taken."""
        bad: Mapping[str, int] = {"good": 1, "bad": amount}
        with pytest.raises(ConfigError, match="bad"):
            ledger.reserve(account, "h", bad, {}, 60)
        with pytest.raises(ConfigError, match="bad"):
            ledger.reserve(account, "h", {"good": 1}, bad, 60)
        with pytest.raises(ConfigError, match="bad"):
            ledger.settle(account, "h", bad)
        assert ledger.totals(account) == {}

    @pytest.mark.parametrize("ttl_s", _BAD_TTLS, ids=repr)
    def test_a_bad_time_to_live_is_refused(self, ledger: Ledger, account: str, ttl_s: Any) -> None:
        """Neither no time nor an endless one."""
        with pytest.raises(ConfigError, match="ttl_s"):
            ledger.reserve(account, "h", {"a": 1}, {}, ttl_s)
        with pytest.raises(ConfigError, match="ttl_s"):
            ledger.renew(account, ["h"], ttl_s)
        assert ledger.totals(account) == {}

    @pytest.mark.parametrize("name", _BAD_NAMES, ids=lambda name: f"{name!r:.20}")
    def test_a_bad_name_is_refused(self, ledger: Ledger, account: str, name: Any) -> None:
        """Empty, too long, or no string; wherever it stands."""
        calls: list[Callable[[], object]] = [
            lambda: ledger.reserve(name, "h", {"a": 1}, {}, 60),
            lambda: ledger.reserve(account, name, {"a": 1}, {}, 60),
            lambda: ledger.reserve(account, "h", {name: 1}, {}, 60),
            lambda: ledger.settle(name, "h", {}),
            lambda: ledger.settle(account, name, {}),
            lambda: ledger.settle(account, "h", {name: 1}),
            lambda: ledger.renew(name, [], 60),
            lambda: ledger.renew(account, [name], 60),
            lambda: ledger.totals(name),
        ]
        for call in calls:
            with pytest.raises(ConfigError, match="name"):
                call()
        assert ledger.totals(account) == {}

    def test_many_threads_spend_exactly_the_limit(self, ledger: Ledger, account: str) -> None:
        """Not one more, and not one less."""

        def spend(thread: int) -> int:
            taken = 0
            for n in range(40):
                hold = f"{thread}-{n}"
                if ledger.reserve(account, hold, {"a": 1}, {"a": 100}, 60) is None:
                    ledger.settle(account, hold, {"a": 1})
                    taken += 1
            return taken

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(spend, range(8))) == 100
        assert ledger.totals(account) == {"a": Amounts(spent=100)}

    def test_closing_twice_is_allowed(self, ledger: Ledger) -> None:
        """The second time nothing is left to do."""
        ledger.close()
        ledger.close()
