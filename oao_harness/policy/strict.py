"""The policy of the seed: bounds on steps, tokens, tool calls and time."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from typing import Final, cast

from oao_harness.errors import ConfigError
from oao_hookspecs import Limits, Retry, RunView, hookimpl

__all__ = ["StrictPolicy"]

# Source: the defaults of open-agent-orchestrator 1.1.3.
_RETRY_DEFAULTS: Final[Mapping[str, object]] = {
    "max_retries": 2,
    "initial_delay": 1.0,
    "backoff_factor": 2.0,
    "strategy": "exponential",
}
_STRATEGIES: Final = ("exponential", "fixed")


class StrictPolicy:
    """Stops a run before it passes a limit. Holds no state of a run: one object serves any number of them.

    Args:
        max_tokens: Input and output tokens together, >= 0; None for no limit.
        max_steps: Governed calls, or the framework's own steps, whichever are more, >= 0; None for no limit.
        max_tool_calls: Tool calls, >= 0; None for no limit.
        timeout_seconds: Wall time of the agent in seconds, > 0; None for no limit.
        retry_config: How a single model or tool call that failed for a transient cause is tried again:
            `max_retries` (>= 0), `initial_delay` (seconds), `backoff_factor` (>= 1), `strategy`
            (`exponential` or `fixed`). What is not named keeps its default; None means the defaults
            (2 retries after 1 s and 2 s). A violation is never retried, nor anything past the deadline.
        max_model_calls: Model calls, >= 0; None for no limit.
        require_governed: True refuses an agent whose calls oao cannot see, and halts a run whose agent calls a model
            provider or starts a process beside the gate.
        process_tools: Names (globs) of the tools that may start processes where `require_governed` is set; None for
            none, as far as this policy is concerned.

    Raises:
        ConfigError: A value is not of the right kind, or is negative.
    """

    name = "StrictPolicy"
    verifies_plugins = True
    """Under it only verified plugins are admitted; see `oao plugins`."""

    def __init__(
        self,
        max_tokens: int | None = 4000,
        max_steps: int | None = 10,
        max_tool_calls: int | None = 5,
        timeout_seconds: float | None = 30,
        retry_config: Mapping[str, object] | None = None,
        *,
        max_model_calls: int | None = None,
        require_governed: bool = False,
        process_tools: Collection[str] | None = None,
    ) -> None:
        self.max_tokens = _count("max_tokens", max_tokens)
        self.max_steps = _count("max_steps", max_steps)
        self.max_tool_calls = _count("max_tool_calls", max_tool_calls)
        self.timeout_seconds = _seconds("timeout_seconds", timeout_seconds)
        self.max_model_calls = _count("max_model_calls", max_model_calls)
        self.retry_config = _retry_config(retry_config)
        self.require_governed = require_governed
        if isinstance(process_tools, str):
            raise ConfigError(
                f"StrictPolicy(process_tools={process_tools!r}): give a collection of names, "
                f"for example [{process_tools!r}]"
            )
        self.process_tools = None if process_tools is None else tuple(process_tools)

    def __repr__(self) -> str:
        return (
            f"StrictPolicy(max_tokens={self.max_tokens}, max_steps={self.max_steps}, "
            f"max_tool_calls={self.max_tool_calls}, timeout_seconds={self.timeout_seconds})"
        )

    @hookimpl
    def oao_limits(self, run: RunView) -> Limits:
        """Name the limits; the gate keeps them."""
        # By value: whoever changes a field between two runs has changed the policy.
        return _limits(
            max_steps=self.max_steps,
            max_model_calls=self.max_model_calls,
            max_tool_calls=self.max_tool_calls,
            max_tokens=self.max_tokens,
            timeout_s=self.timeout_seconds,
            retry=tuple(self.retry_config.items()),
            process_tools=self.process_tools,
            require_governed=self.require_governed,
        )


@functools.lru_cache(maxsize=64, typed=True)
def _limits(
    *,
    max_steps: int | None,
    max_model_calls: int | None,
    max_tool_calls: int | None,
    max_tokens: int | None,
    timeout_s: float | None,
    retry: tuple[tuple[str, object], ...],
    process_tools: tuple[str, ...] | None,
    require_governed: bool,
) -> Limits:
    """Return the limits of a policy; made once for each set of values, because every run asks."""
    config = dict(retry)
    return Limits(
        max_steps=max_steps,
        max_model_calls=max_model_calls,
        max_tool_calls=max_tool_calls,
        max_tokens=max_tokens,
        timeout_s=timeout_s,
        retry=Retry(
            max_retries=cast("int", config["max_retries"]),
            initial_delay_s=cast("float", config["initial_delay"]),
            backoff_factor=1.0 if config["strategy"] == "fixed" else cast("float", config["backoff_factor"]),
        ),
        require_governed=require_governed,
        process_tools=process_tools,
    )


def _count(name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"StrictPolicy({name}={value!r}): give a whole number >= 0, or None for no limit")
    return value


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"StrictPolicy({name}={value!r}): give a number of seconds > 0, or None for no limit")
    return float(value)


def _retry_config(given: Mapping[str, object] | None) -> Mapping[str, object]:
    if given is not None and not isinstance(cast("object", given), Mapping):
        raise ConfigError(f"StrictPolicy(retry_config={given!r}): give a mapping or None")
    if given is not None and (unknown := set(given) - set(_RETRY_DEFAULTS)):
        raise ConfigError(
            f"StrictPolicy(retry_config=...): unknown key {sorted(unknown)[0]!r}; known: {', '.join(_RETRY_DEFAULTS)}"
        )
    config = {**_RETRY_DEFAULTS, **(given or {})}
    retries = config["max_retries"]
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ConfigError(f"StrictPolicy(retry_config=...): max_retries={retries!r}; give a whole number >= 0")
    for key, least in (("initial_delay", 0.0), ("backoff_factor", 1.0)):
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
            raise ConfigError(f"StrictPolicy(retry_config=...): {key}={value!r}; give a number >= {least:g}")
    if config["strategy"] not in _STRATEGIES:
        raise ConfigError(
            f"StrictPolicy(retry_config=...): strategy={config['strategy']!r}; known: {', '.join(_STRATEGIES)}"
        )
    return config
