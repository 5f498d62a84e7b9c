"""The policies that have a name: off, observe, standard, strict."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from oao_harness.policy.strict import StrictPolicy
from oao_hookspecs import Allow, Limits, RunView, hookimpl

__all__ = ["ObservePolicy", "OffPolicy", "oao_policies"]


class OffPolicy:
    """No limit, no rule; calls are still journaled."""

    name = "off"

    @hookimpl
    def oao_limits(self, run: RunView) -> Limits:
        """Name no limit."""
        return Limits()


class ObservePolicy:
    """Judges each call by the limits of `strict` and says in the report what it would have stopped; stops nothing."""

    name = "observe"

    def __init__(self) -> None:
        self._strict = StrictPolicy()

    @hookimpl
    def oao_decide_model_call(self, run: RunView) -> Allow | None:
        """Say which limit the call would pass."""
        return self._would(("max_steps", run.steps + 1), ("max_tokens", run.total_tokens + 1))

    @hookimpl
    def oao_decide_tool_call(self, run: RunView) -> Allow | None:
        """Say which limit the call would pass."""
        return self._would(("max_steps", run.steps + 1), ("max_tool_calls", run.tool_calls + 1))

    def _would(self, *spent: tuple[str, int]) -> Allow | None:
        for rule, after in spent:
            limit = getattr(self._strict, rule)
            if limit is not None and after > limit:
                return Allow(rule=rule, reason=f"{after}, and the limit of strict is {limit}", would="deny")
        return None


def _standard() -> StrictPolicy:
    policy = StrictPolicy(max_tokens=200_000, max_steps=100, max_tool_calls=50, timeout_seconds=600)
    policy.verifies_plugins = False
    return policy


def _strict() -> StrictPolicy:
    return StrictPolicy(require_governed=True)


@hookimpl
def oao_policies() -> Mapping[str, Callable[[], object]]:
    """Offer the named policies."""
    return {"off": OffPolicy, "observe": ObservePolicy, "standard": _standard, "strict": _strict}
