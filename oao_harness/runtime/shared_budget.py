"""A budget that many processes draw from: it translates calls into amounts, and a ledger keeps the counters."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final, NamedTuple, cast

from oao_harness.errors import ConfigError
from oao_harness.plugins.manager import make_manager
from oao_harness.runtime.renewal import keep, let_go, owe
from oao_harness.runtime.usage import worst_case_tokens
from oao_hookspecs import Amounts, Call, Deny, Ledger, Limits, ModelCall, Price, ProposedCall, Refusal, Usage

__all__ = ["SharedBudget", "SharedHold", "open_ledger"]

_PLUGIN: Final = "budget"
_NANO: Final = 1_000_000_000
# Source: `Ledger`.
_MOST: Final = 2**53 - 1

# A field of `Limits`, its counter, and how much of the counter is 1 of the field.
_COUNTERS: Final = (
    ("max_steps", "steps", 1),
    ("max_model_calls", "model_calls", 1),
    ("max_tool_calls", "tool_calls", 1),
    ("max_tokens", "tokens", 1),
    ("max_input_tokens", "input_tokens", 1),
    ("max_output_tokens", "output_tokens", 1),
    ("max_cost_usd", "cost", _NANO),
)
_RULES: Final = {counter: field for field, counter, _ in _COUNTERS}
# Known only after the call; what is reserved of them is an estimate.
_MEASURED: Final = ("input_tokens", "output_tokens", "tokens", "cost")


class SharedHold(NamedTuple):
    """What one call has reserved."""

    id: str
    amounts: Mapping[str, int]
    price: Price | None
    pid: int
    """The process whose call it is: a forked child must not settle it."""


def open_ledger(url: str) -> Ledger:
    """Open the ledger that a URL names, by the bundled and the installed plugins.

    Args:
        url: `memory:NAME`, `sqlite:PATH`, `redis://host:port/db`, or what a plugin knows.

    Raises:
        ConfigError: No plugin opens it, or a package is missing.
        StoreError: It cannot be reached.
    """
    opened = make_manager(())[0].hook.oao_open_ledger(url=url)
    if opened is None:
        raise ConfigError(f"no plugin opens the ledger {url!r}; known: memory:NAME, sqlite:PATH, redis://host:port/db")
    return cast("Ledger", opened)


class SharedBudget:
    """What all who name the same account of the same ledger have spent and may still spend together.

    Args:
        name: The account, for example the name of a team.
        ledger: The ledger, or its URL.
        limits: What is limited; fields about time are not this budget's.
        ttl_s: Seconds after which the reservations of a process that died come back, 1 to 600. A process that is
            suspended for longer loses its reservations: what it spends then is counted when it settles.

    Raises:
        ConfigError: The name, a limit, `ttl_s` or the URL is wrong.
        StoreError: The ledger cannot be reached.
    """

    def __init__(self, name: str, ledger: Ledger | str, *, limits: Limits, ttl_s: float = 60.0) -> None:
        if not isinstance(cast("object", limits), Limits):
            raise ConfigError(f"budget {name!r}: limits={limits!r:.100}: give Limits(...) of oao_hookspecs")
        if isinstance(ttl_s, bool) or not 1 <= ttl_s <= 600:
            raise ConfigError(f"budget {name!r}: ttl_s={ttl_s!r}: give seconds from 1 to 600")
        self.name = name
        self.ttl_s = ttl_s
        self.limits = limits
        self._caps = _caps(name, limits)
        self._patterns: dict[str, tuple[str, ...]] = {}
        self.ledger: Ledger = open_ledger(ledger) if isinstance(ledger, str) else ledger
        # Asked at once, so that a wrong name or an absent server is found when things are set up.
        self.totals()

    def totals(self) -> Mapping[str, Amounts]:
        """Return what is spent and held by all, by counter."""
        return self.ledger.totals(self.name)

    def reserve(self, call: Call, price: Price | None = None) -> SharedHold | Deny:
        """Take what the call will cost at worst, as far as its request says so. Never raises: an error is a denial.

        Args:
            call: What is about to happen.
            price: Of the model, where somebody knows it.

        Returns:
            What was reserved, for `settle` or `release`; or the denial, and nothing was taken.
        """
        price = price or self.limits.unknown_price
        if price is None and isinstance(call, ModelCall) and self.limits.max_cost_usd is not None:
            return _denial("unknown_price", f"budget {self.name!r}: cost: nobody knows the price of {call.name}")
        try:
            hold = SharedHold(secrets.token_hex(16), self._amounts(call, price), price, os.getpid())
            refusal = self.ledger.reserve(self.name, hold.id, hold.amounts, self._caps, self.ttl_s)
            if refusal is None:
                keep(self, hold.id)
        except Exception as error:  # noqa: BLE001 - a ledger is a plugin; what cannot be counted must not happen
            return self._failed(error)
        return hold if refusal is None else self._refused(refusal)

    def settle(self, hold: SharedHold, usage: Usage | None) -> Deny | None:
        """Exchange a reservation for what the call really cost.

        Where the ledger cannot be reached, it is tried again in the background as long as the process lives.

        Args:
            hold: What `reserve` returned.
            usage: Tokens of a model call; None for a tool, and for a model call that cost nothing.

        Returns:
            A denial where more was spent than allowed or the ledger failed: the next call must not happen.
        """
        if hold.pid != os.getpid():
            return None
        spent = {counter: amount for counter, amount in hold.amounts.items() if counter not in _MEASURED}
        if usage is not None:
            spent |= _measured(usage.input_tokens, usage.output_tokens, hold.price)
        try:
            self.ledger.settle(self.name, hold.id, spent)
            let_go(self, hold.id)
            # Only who spends more than was reserved can pass a limit.
            if any(amount > hold.amounts.get(counter, 0) for counter, amount in spent.items() if counter in self._caps):
                return self._overspent()
        except Exception as error:  # noqa: BLE001 - see reserve
            owe(self, hold.id, spent)
            return self._failed(error)
        return None

    def release(self, hold: SharedHold) -> None:
        """Give back a reservation whose call will not happen."""
        if hold.pid != os.getpid():
            return
        try:
            self.ledger.settle(self.name, hold.id, {})
            let_go(self, hold.id)
        except Exception:  # noqa: BLE001 - tried again in the background
            owe(self, hold.id, {})

    def refuse_batch(self, batch: Iterable[ProposedCall]) -> Deny | None:
        """Return a denial where the calls that a model proposes together would pass a limit together, as of now."""
        asked: dict[str, int] = {}
        for proposed in batch:
            for counter in self._tool_counters(proposed.name):
                asked[counter] = asked.get(counter, 0) + 1
        try:
            totals = self.totals()
        except Exception as error:  # noqa: BLE001 - see reserve
            return self._failed(error)
        for counter, amount in asked.items():
            found, limit = totals.get(counter, Amounts()), self._caps.get(counter)
            if limit is not None and found.spent + found.held + amount > limit:
                return self._refused(
                    Refusal(counter=counter, limit=limit, spent=found.spent, held=found.held, asked=amount)
                )
        return None

    def _amounts(self, call: Call, price: Price | None) -> dict[str, int]:
        if not isinstance(call, ModelCall):
            return dict.fromkeys(self._tool_counters(call.name), 1)
        worst = _measured(*worst_case_tokens(call, self.limits.assumed_output_tokens), price)
        # At least 1 of each: nothing left means nothing more.
        return {"steps": 1, "model_calls": 1, **{counter: max(1, amount) for counter, amount in worst.items()}}

    def _tool_counters(self, tool: str) -> tuple[str, ...]:
        """Return the counters of a call of a tool: its own, and that of each pattern it counts for."""
        found = self._patterns.get(tool)
        if found is None:
            patterns = [pattern for pattern in self.limits.tool_limits if fnmatchcase(tool, pattern)]
            counters = dict.fromkeys(("steps", "tool_calls", f"tool:{tool}", *(f"tool:{name}" for name in patterns)))
            found = self._patterns[tool] = tuple(counters)
        return found

    def _overspent(self) -> Deny | None:
        totals = self.totals()
        for counter in _MEASURED:
            limit = self._caps.get(counter)
            if limit is not None and counter in totals and totals[counter].spent > limit:
                spent = f"{_shown(counter, totals[counter].spent)} spent, the limit is {_shown(counter, limit)}"
                return _denial(_RULES[counter], f"budget {self.name!r}: {counter}: {spent}")
        return None

    def _refused(self, refusal: Refusal) -> Deny:
        counter = refusal.counter
        left = max(refusal.limit - refusal.spent - refusal.held, 0)
        asked, left_, limit, held = (_shown(counter, n) for n in (refusal.asked, left, refusal.limit, refusal.held))
        in_flight = f" ({held} held by calls in flight)" if refusal.held else ""
        rule = _RULES.get(counter) or f"tool_limits.{counter.removeprefix('tool:')}"
        return _denial(rule, f"budget {self.name!r}: {counter}: {asked} asked, {left_} of {limit} left{in_flight}")

    def _failed(self, error: Exception) -> Deny:
        return _denial("ledger", f"budget {self.name!r}: {error}")


def _measured(sent: int, received: int, price: Price | None) -> dict[str, int]:
    # What a provider reports may be nonsense, and must be counted all the same.
    sent, received = max(0, min(sent, _MOST)), max(0, min(received, _MOST))
    found = {"input_tokens": sent, "output_tokens": received, "tokens": sent + received}
    if price is not None:
        # Dollars for a million tokens are 1,000 nano dollars for one.
        found["cost"] = math.ceil((sent * price.input_per_million + received * price.output_per_million) * 1000)
    return {counter: min(amount, _MOST) for counter, amount in found.items()}


def _caps(name: str, limits: Limits) -> dict[str, int]:
    """Return the limits by counter."""
    given: dict[str, object] = {counter: getattr(limits, field) for field, counter, _ in _COUNTERS}
    given |= {f"tool:{pattern}": limit for pattern, limit in limits.tool_limits.items()}
    caps: dict[str, int] = {}
    for counter, limit in given.items():
        if limit is None:
            continue
        kinds = int | float if counter == "cost" else int
        if not isinstance(limit, kinds) or isinstance(limit, bool) or not 0 <= limit < math.inf:
            raise ConfigError(
                f"budget {name!r}: the limit {limit!r} of {counter}: give a number >= 0, None for no limit"
            )
        caps[counter] = min(round(limit * _NANO) if counter == "cost" else int(limit), _MOST)
    return caps


def _shown(counter: str, amount: int) -> str:
    return f"{amount / _NANO:.6f} USD" if counter == "cost" else str(amount)


def _denial(rule: str, reason: str) -> Deny:
    return Deny(rule=rule, plugin=_PLUGIN, reason=reason)
