"""The counters of one run, atomic: reserved before a call, settled after it, refused at the limit."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from oao_harness.runtime.usage import worst_case_tokens
from oao_hookspecs import Call, Deny, Limits, ModelCall, Price, ProposedCall, Usage

__all__ = ["Budget", "Hold", "PriceOf", "Totals", "not_a_number"]

_PLUGIN: Final = "budget"
_NANO: Final = 1_000_000_000

PriceOf = Callable[[ModelCall], Price | None]
"""What a model costs, or None where nobody knows."""


class Hold(NamedTuple):
    """What one call has reserved, and at which price it is settled; a named tuple, one is made for every call."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    """Nano US dollars."""
    price: Price | None = None
    """None where money is not limited."""


_NOTHING: Final = Hold()


@dataclass(slots=True, kw_only=True)
class Totals:
    """What was spent."""

    calls: int = 0
    framework_steps: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    tool_usage: dict[str, int] = field(default_factory=dict[str, int])
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = None
    """Nano US dollars, whole so that sums are exact; None where no model call was priced."""
    estimated: bool = False
    """True where a part of the tokens was estimated."""

    @property
    def steps(self) -> int:
        """Governed calls or the framework's own steps, whichever are more."""
        return max(self.calls, self.framework_steps)

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    @property
    def cost_usd(self) -> float:
        """US dollars, as far as prices are known."""
        return (self.cost or 0) / _NANO


class Budget:
    """What one run has spent and may still spend, calls of the runs nested in it included.

    Args:
        limits: The run's limits.
        price_of: Names prices; asked only where money is limited.
    """

    __slots__ = ("_held", "_lock", "_patterns", "_price_of", "_tracks", "limits", "totals")

    def __init__(self, limits: Limits, price_of: PriceOf = lambda _call: None) -> None:
        self.limits = limits
        self.totals = Totals()
        self._held = [0, 0, 0]
        """Input tokens, output tokens and nano dollars that calls in flight have reserved."""
        self._lock = threading.Lock()
        self._price_of = price_of
        self._patterns: dict[str, tuple[str, ...]] = {}
        self._tracks = not (
            limits.max_tokens is limits.max_input_tokens is limits.max_output_tokens is limits.max_cost_usd is None
        )

    def reserve(self, call: Call, sent: int | None = None) -> Hold | Deny:
        """Take what the call will cost at worst, as far as its request says so.

        Args:
            call: About to be made.
            sent: About how many tokens its request has, where somebody has counted them already.

        Returns:
            What was reserved, for `settle` or `release`; or the denial, and nothing was taken.
        """
        hold = _NOTHING
        if self._tracks and isinstance(call, ModelCall):
            priced = self._worst(call, sent)
            if isinstance(priced, Deny):
                return priced
            hold = priced
        with self._lock:
            denial = self._refuse(call, hold)
            if denial is not None:
                return denial
            self._take(call, hold)
        return hold

    def force(self, call: Call, sent: int | None = None) -> Hold:
        """Take what a call will cost, whatever the limits say: for who counts on after a refusal.

        Args:
            call: Refused by `reserve`.
            sent: See `reserve`.
        """
        hold = self._worst(call, sent) if self._tracks and isinstance(call, ModelCall) else _NOTHING
        if isinstance(hold, Deny):  # its price is not known
            hold = _NOTHING
        with self._lock:
            self._take(call, hold)
        return hold

    @property
    def tracks_tokens(self) -> bool:
        """True where tokens or money are limited, and so the tokens of a request matter."""
        return self._tracks

    def _take(self, call: Call, hold: Hold) -> None:
        totals = self.totals
        totals.calls += 1
        if isinstance(call, ModelCall):
            totals.model_calls += 1
            if hold is not _NOTHING:
                self._hold(hold, 1)
        else:
            totals.tool_calls += 1
            totals.tool_usage[call.name] = totals.tool_usage.get(call.name, 0) + 1

    def _worst(self, call: ModelCall, sent: int | None) -> Hold | Deny:
        limits = self.limits
        sent, received = worst_case_tokens(call, limits.assumed_output_tokens, sent)
        if limits.max_cost_usd is None:
            return Hold(sent, received)
        price = self._price_of(call) or limits.unknown_price
        if price is None:
            return self._denial(
                "unknown_price",
                f"model {call.name}: nobody knows its price, and money is limited to {limits.max_cost_usd:g} USD; name "
                "it through oao_price or `unknown_price`, or install oao-harness[prices]",
            )
        return Hold(sent, received, _cost(price, sent, received), price)

    def _hold(self, hold: Hold, sign: int) -> None:
        held = self._held
        held[0] += sign * hold.input_tokens
        held[1] += sign * hold.output_tokens
        held[2] += sign * hold.cost

    def _refuse(self, call: Call, hold: Hold) -> Deny | None:
        limits, totals = self.limits, self.totals
        if limits.max_steps is not None and totals.calls >= limits.max_steps:
            return self._counted("max_steps", call, totals.calls, limits.max_steps, unit="step")
        if isinstance(call, ModelCall):
            if limits.max_model_calls is not None and totals.model_calls >= limits.max_model_calls:
                return self._counted("max_model_calls", call, totals.model_calls, limits.max_model_calls)
            return self._refuse_tokens(call, hold) if self._tracks else None
        if limits.max_tool_calls is not None and totals.tool_calls >= limits.max_tool_calls:
            return self._counted("max_tool_calls", call, totals.tool_calls, limits.max_tool_calls)
        if limits.tool_limits:
            for pattern in self._limited_by(call.name):
                used = self._used(pattern)
                if used >= limits.tool_limits[pattern]:
                    return self._counted(f"tool_limits.{pattern}", call, used, limits.tool_limits[pattern])
        return None

    def _refuse_tokens(self, call: ModelCall, hold: Hold) -> Deny | None:
        """Refuse where what was spent, what calls in flight hold, and this call would together pass a limit."""
        limits, totals, (sent, received, cost) = self.limits, self.totals, self._held
        limit = limits.max_tokens
        if limit is not None:
            spent, asked = totals.input_tokens + totals.output_tokens + sent + received, sum(hold[:2])
            if spent >= limit or spent + asked > limit:
                return self._too_many("max_tokens", call, asked, limit, spent)
        limit = limits.max_input_tokens
        if limit is not None:
            spent, asked = totals.input_tokens + sent, hold.input_tokens
            if spent >= limit or spent + asked > limit:
                return self._too_many("max_input_tokens", call, asked, limit, spent)
        limit = limits.max_output_tokens
        if limit is not None:
            spent, asked = totals.output_tokens + received, hold.output_tokens
            if spent >= limit or spent + asked > limit:
                return self._too_many("max_output_tokens", call, asked, limit, spent)
        if limits.max_cost_usd is not None:
            most, spent = _nano(limits.max_cost_usd), (totals.cost or 0) + cost
            if spent >= most or spent + hold.cost > most:
                return self._denial(
                    "max_cost_usd",
                    f"model {call.name}: about {hold.cost / _NANO:.6f} USD asked, "
                    f"{max(most - spent, 0) / _NANO:.6f} of {limits.max_cost_usd:g} left",
                )
        return None

    def _too_many(self, rule: str, call: ModelCall, asked: int, limit: int, spent: int) -> Deny:
        left = max(limit - spent, 0)
        return self._denial(rule, f"model {call.name}: about {asked} tokens asked, {left} of {limit} left")

    def _limited_by(self, tool: str) -> tuple[str, ...]:
        """Return the patterns of `tool_limits` that a tool counts for."""
        if not self.limits.tool_limits:
            return ()
        found = self._patterns.get(tool)
        if found is None:
            found = tuple(pattern for pattern in self.limits.tool_limits if fnmatchcase(tool, pattern))
            self._patterns[tool] = found
        return found

    def _used(self, pattern: str) -> int:
        return sum(count for tool, count in self.totals.tool_usage.items() if pattern in self._limited_by(tool))

    def release(self, call: Call, hold: Hold) -> None:
        """Give back a reservation whose call will not happen."""
        totals = self.totals
        with self._lock:
            totals.calls -= 1
            if isinstance(call, ModelCall):
                totals.model_calls -= 1
                self._hold(hold, -1)
            else:
                totals.tool_calls -= 1
                totals.tool_usage[call.name] -= 1
                if not totals.tool_usage[call.name]:
                    del totals.tool_usage[call.name]

    def settle(self, hold: Hold, usage: Usage | None) -> Deny | None:
        """Exchange a reservation for what the call really cost; a call that failed before it cost anything is free.

        Returns:
            A denial where more was spent than allowed: the next call must not happen.
        """
        totals, limits = self.totals, self.limits
        if usage is None and hold is _NOTHING:
            return None
        with self._lock:
            if hold is not _NOTHING:
                self._hold(hold, -1)
            if usage is None:
                return None
            totals.input_tokens += usage.input_tokens
            totals.output_tokens += usage.output_tokens
            totals.estimated = totals.estimated or usage.estimated
            if hold.price is not None:
                totals.cost = (totals.cost or 0) + _cost(hold.price, usage.input_tokens, usage.output_tokens)
            if not self._tracks:
                return None
            if limits.max_tokens is not None and totals.tokens > limits.max_tokens:
                return self._overspent("max_tokens", totals.tokens, limits.max_tokens)
            if limits.max_input_tokens is not None and totals.input_tokens > limits.max_input_tokens:
                return self._overspent("max_input_tokens", totals.input_tokens, limits.max_input_tokens)
            if limits.max_output_tokens is not None and totals.output_tokens > limits.max_output_tokens:
                return self._overspent("max_output_tokens", totals.output_tokens, limits.max_output_tokens)
            if limits.max_cost_usd is not None and (totals.cost or 0) > _nano(limits.max_cost_usd):
                return self._denial(
                    "max_cost_usd", f"{totals.cost_usd:.6f} USD spent, the limit is {limits.max_cost_usd:g}"
                )
        return None

    def _overspent(self, rule: str, spent: int, limit: int) -> Deny:
        return self._denial(rule, f"{spent} tokens spent, the limit is {limit}")

    def refuse_batch(self, batch: Iterable[ProposedCall]) -> Deny | None:
        """Return a denial where the calls that a model proposes together would pass a limit together."""
        limits, totals = self.limits, self.totals
        names = [proposed.name for proposed in batch]
        with self._lock:
            bounds: list[tuple[str, int | None, int, list[str]]] = [
                ("max_tool_calls", limits.max_tool_calls, totals.tool_calls, names),
                ("max_steps", limits.max_steps, totals.calls, names),
            ]
            for pattern, limit in limits.tool_limits.items():
                counted = [name for name in names if pattern in self._limited_by(name)]
                if counted:
                    bounds.append((f"tool_limits.{pattern}", limit, self._used(pattern), counted))
            for rule, most, used, counted in bounds:
                if most is not None and used + len(counted) > most:
                    return self._denial(
                        rule,
                        f"{len(counted)} tool calls at once ({', '.join(counted[:5])}): "
                        f"{used} of {most} allowed are used, none of them was started",
                    )
        return None

    def step(self) -> int | Deny:
        """Count one step of the agent's framework and return its number, or the denial."""
        totals, limit = self.totals, self.limits.max_steps
        with self._lock:
            if limit is not None and totals.framework_steps >= limit:
                return self._denial("max_steps", f"step {totals.framework_steps + 1}, the limit is {limit}")
            totals.framework_steps += 1
            return totals.framework_steps

    def snapshot(self) -> Mapping[str, int | float]:
        """Return the totals as they are journaled."""
        totals = self.totals
        found: dict[str, int | float] = {
            "steps": totals.steps,
            "model_calls": totals.model_calls,
            "tool_calls": totals.tool_calls,
            "tokens": totals.tokens,
        }
        if totals.cost is not None:
            found["cost_usd"] = totals.cost_usd
        return found

    def _counted(self, rule: str, call: Call, used: int, limit: int, *, unit: str = "call") -> Deny:
        return self._denial(rule, f"{call.kind} {call.name}: {unit} {used + 1}, the limit is {limit}")

    def _denial(self, rule: str, reason: str) -> Deny:
        # A price is wanted only because money is limited.
        source = self.limits.sources.get("max_cost_usd" if rule == "unknown_price" else rule, "")
        return Deny(rule=rule, plugin=_PLUGIN, reason=reason, source=source)


def not_a_number(limits: Limits) -> str | None:
    """Return the name of a limit that is NaN, or None: nothing is ever more than NaN, so it would limit nothing."""
    fields: dict[str, object] = {name: getattr(limits, name) for name in Limits.__slots__}
    fields |= {f"tool_limits.{tool}": limit for tool, limit in limits.tool_limits.items()}
    return next((name for name, limit in fields.items() if isinstance(limit, float) and math.isnan(limit)), None)


def _cost(price: Price, sent: int, received: int) -> int:
    """Return nano US dollars, rounded up: a price is never less than it says."""
    return math.ceil(sent * price.input_per_million * 1000) + math.ceil(received * price.output_per_million * 1000)


def _nano(usd: float) -> int:
    return math.floor(usd * _NANO)
