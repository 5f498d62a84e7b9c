"""The counters of one run, atomic: reserved before a call, settled after it, refused at the limit."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from oao_harness.runtime.usage import estimate_input_tokens
from oao_hookspecs import Call, Deny, Limits, ModelCall, ProposedCall, Usage

__all__ = ["Budget", "Totals"]

_PLUGIN = "budget"


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
    cost_usd: float = 0.0
    """As far as prices are known."""
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


class Budget:
    """What one run has spent and may still spend.

    Args:
        limits: The run's limits.
    """

    __slots__ = ("_lock", "_reserved_tokens", "limits", "totals")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.totals = Totals()
        self._reserved_tokens = 0
        self._lock = threading.Lock()

    def reserve(self, call: Call) -> int | Deny:
        """Take what the call will surely cost.

        Returns:
            The tokens that were reserved, for `settle` or `release`; or the denial, and nothing was taken.
        """
        limits, totals = self.limits, self.totals
        estimate = 0
        if isinstance(call, ModelCall) and limits.max_tokens is not None:
            estimate = estimate_input_tokens(call)
        with self._lock:
            denial = self._refuse(call, estimate)
            if denial is not None:
                return denial
            totals.calls += 1
            if isinstance(call, ModelCall):
                totals.model_calls += 1
                self._reserved_tokens += estimate
            else:
                totals.tool_calls += 1
                totals.tool_usage[call.name] = totals.tool_usage.get(call.name, 0) + 1
        return estimate

    def _refuse(self, call: Call, estimate: int) -> Deny | None:
        limits, totals = self.limits, self.totals
        if limits.max_steps is not None and totals.calls >= limits.max_steps:
            return _denial(
                "max_steps", f"{call.kind} {call.name}: step {totals.calls + 1}, the limit is {limits.max_steps}"
            )
        if isinstance(call, ModelCall):
            if limits.max_model_calls is not None and totals.model_calls >= limits.max_model_calls:
                return _denial(
                    "max_model_calls",
                    f"model {call.name}: call {totals.model_calls + 1}, the limit is {limits.max_model_calls}",
                )
            spent = totals.tokens + self._reserved_tokens
            if limits.max_tokens is not None and (spent >= limits.max_tokens or spent + estimate > limits.max_tokens):
                return _denial(
                    "max_tokens",
                    f"model {call.name}: about {estimate} tokens asked, "
                    f"{max(limits.max_tokens - spent, 0)} of {limits.max_tokens} left",
                )
        elif limits.max_tool_calls is not None and totals.tool_calls >= limits.max_tool_calls:
            return _denial(
                "max_tool_calls",
                f"tool {call.name}: call {totals.tool_calls + 1}, the limit is {limits.max_tool_calls}",
            )
        return None

    def release(self, call: Call, reserved: int) -> None:
        """Give back a reservation whose call will not happen."""
        totals = self.totals
        with self._lock:
            totals.calls -= 1
            if isinstance(call, ModelCall):
                totals.model_calls -= 1
                self._reserved_tokens -= reserved
            else:
                totals.tool_calls -= 1
                totals.tool_usage[call.name] -= 1
                if not totals.tool_usage[call.name]:
                    del totals.tool_usage[call.name]

    def settle(self, reserved: int, usage: Usage | None) -> Deny | None:
        """Exchange a reservation for what the call really cost.

        Returns:
            A denial where more was spent than allowed: the next call must not happen.
        """
        totals, limit = self.totals, self.limits.max_tokens
        with self._lock:
            self._reserved_tokens -= reserved
            if usage is not None:
                totals.input_tokens += usage.input_tokens
                totals.output_tokens += usage.output_tokens
                totals.estimated = totals.estimated or usage.estimated
            if usage is not None and limit is not None and totals.tokens > limit:
                return _denial("max_tokens", f"{totals.tokens} tokens spent, the limit is {limit}")
        return None

    def refuse_batch(self, batch: Iterable[ProposedCall]) -> Deny | None:
        """Return a denial where the calls that a model proposes together would pass a limit together."""
        limits, totals = self.limits, self.totals
        names = [proposed.name for proposed in batch]
        with self._lock:
            for rule, limit, used in (
                ("max_tool_calls", limits.max_tool_calls, totals.tool_calls),
                ("max_steps", limits.max_steps, totals.calls),
            ):
                if limit is not None and used + len(names) > limit:
                    return _denial(
                        rule,
                        f"{len(names)} tool calls at once ({', '.join(names[:5])}): "
                        f"{used} of {limit} allowed are used, none of them was started",
                    )
        return None

    def step(self) -> int | Deny:
        """Count one step of the agent's framework and return its number, or the denial."""
        totals, limit = self.totals, self.limits.max_steps
        with self._lock:
            if limit is not None and totals.framework_steps >= limit:
                return _denial("max_steps", f"step {totals.framework_steps + 1}, the limit is {limit}")
            totals.framework_steps += 1
            return totals.framework_steps

    def snapshot(self) -> Mapping[str, int]:
        """Return the totals as they are journaled."""
        totals = self.totals
        return {
            "steps": totals.steps,
            "model_calls": totals.model_calls,
            "tool_calls": totals.tool_calls,
            "tokens": totals.tokens,
        }


def _denial(rule: str, reason: str) -> Deny:
    return Deny(rule=rule, plugin=_PLUGIN, reason=reason)
