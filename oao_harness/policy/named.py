"""The policies that have a name: off, observe, standard, strict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from oao_harness.policy.strict import StrictPolicy
from oao_hookspecs import Limits, RunFinished, RunView, hookimpl

__all__ = ["ObservePolicy", "OffPolicy", "oao_policies"]

_log = logging.getLogger("oao.policy")


class OffPolicy:
    """No limit, no rule; calls are still journaled."""

    name = "off"

    @hookimpl
    def oao_limits(self, run: RunView) -> Limits:
        """Name no limit."""
        return Limits()


class ObservePolicy:
    """Judges by the limits of `strict` and reports in the log what it would have stopped; never stops anything."""

    name = "observe"

    def __init__(self) -> None:
        self._strict = StrictPolicy()

    @hookimpl
    def oao_run_finished(self, event: RunFinished, run: RunView) -> None:
        """Log each limit that the run passed."""
        strict = self._strict
        for rule, limit, spent in (
            ("max_steps", strict.max_steps, run.steps),
            ("max_tool_calls", strict.max_tool_calls, run.tool_calls),
            ("max_tokens", strict.max_tokens, run.total_tokens),
        ):
            if limit is not None and spent > limit:
                _log.warning("observe: run %s passed %s of strict: %d > %d", event.execution_id, rule, spent, limit)


def _standard() -> StrictPolicy:
    return StrictPolicy(max_tokens=200_000, max_steps=100, max_tool_calls=50, timeout_seconds=600)


def _strict() -> StrictPolicy:
    return StrictPolicy(require_governed=True)


@hookimpl
def oao_policies() -> Mapping[str, Callable[[], object]]:
    """Offer the named policies."""
    return {"off": OffPolicy, "observe": ObservePolicy, "standard": _standard, "strict": _strict}
