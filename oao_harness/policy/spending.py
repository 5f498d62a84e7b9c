"""The `[limits]` of a policy file: for the gate to keep, or, where a file only observes, judged by the counters."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Final

from oao_harness.policy.reading import Source
from oao_harness.policy.schema import PolicyDocument
from oao_hookspecs import Call, Limits, Price, Retry, RunView

__all__ = ["limits_of", "passed_by"]

# Where a key of the file and the field of `Limits` have different names.
_FIELDS: Final = {"timeout_seconds": "timeout_s", "call_timeout_seconds": "call_timeout_s", "max_retries": "retry"}


def limits_of(source: Source, document: PolicyDocument) -> Limits:
    """Return the limits that a document names, and where."""
    table = document.limits
    price = table.unknown_price
    retries = table.max_retries
    return Limits(
        max_steps=table.max_steps,
        max_model_calls=table.max_model_calls,
        max_tool_calls=table.max_tool_calls,
        max_tokens=table.max_tokens,
        max_input_tokens=table.max_input_tokens,
        max_output_tokens=table.max_output_tokens,
        max_cost_usd=table.max_cost_usd,
        unknown_price=None
        if price is None
        else Price(input_per_million=price.input_per_million, output_per_million=price.output_per_million),
        assumed_output_tokens=table.assumed_output_tokens,
        tool_limits={tool.name: tool.max_calls for tool in document.tool if tool.max_calls is not None},
        timeout_s=table.timeout_seconds,
        call_timeout_s=table.call_timeout_seconds,
        retry=None if retries is None else Retry(max_retries=retries, initial_delay_s=1.0, backoff_factor=2.0),
        require_governed=table.require_governed,
        sources={
            **{_FIELDS.get(name, name): source.at(("limits", name)) for name in table.model_fields_set},
            **{
                f"tool_limits.{tool.name}": source.at(("tool", index, "max_calls"))
                for index, tool in enumerate(document.tool)
                if tool.max_calls is not None
            },
        },
    )


def passed_by(call: Call, run: RunView, limits: Limits) -> Iterator[tuple[str, str]]:
    """Yield the limits that a call would pass, as rule and reason; by the run's counters, so after the fact for tokens.

    Args:
        call: About to be made.
        run: Its run; the call is not counted yet.
        limits: Not kept by the gate.
    """
    is_tool = call.kind == "tool"
    counted: list[tuple[str, float | None, float]] = [
        ("max_steps", limits.max_steps, run.steps + 1),
        ("max_tool_calls", limits.max_tool_calls if is_tool else None, run.tool_calls + 1),
        ("max_model_calls", None if is_tool else limits.max_model_calls, run.model_calls + 1),
        ("max_tokens", limits.max_tokens, run.total_tokens),
        ("max_input_tokens", limits.max_input_tokens, run.input_tokens),
        ("max_output_tokens", limits.max_output_tokens, run.output_tokens),
        ("max_cost_usd", limits.max_cost_usd, run.cost_usd),
    ]
    for rule, limit, spent in counted:
        if limit is not None and spent > limit:
            yield rule, f"{rule}: {spent:g} > {limit:g}"
    if is_tool:
        usage = run.tool_usage
        for pattern, most in limits.tool_limits.items():
            if fnmatch.fnmatchcase(call.name, pattern):
                calls = 1 + sum(count for name, count in usage.items() if fnmatch.fnmatchcase(name, pattern))
                if calls > most:
                    yield "max_calls", f"{pattern}: {calls} calls > {most}"
