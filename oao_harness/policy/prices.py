"""Prices of models from `genai-prices`, where that is installed; imported when a price is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from oao_hookspecs import ModelCall, Price, hookimpl

__all__ = ["oao_price"]


@hookimpl(trylast=True)
def oao_price(call: ModelCall) -> Price | None:
    """Name the published list price of a model; the dearest tier, and no discount for cached tokens.

    Source: the price data in the package `genai-prices`; None where it is not installed or does not know the model.
    """
    try:
        from genai_prices import Usage, calc_price  # noqa: PLC0415 - half a second, only where money is limited
    except ImportError:
        return None
    ask = cast("Callable[..., Any]", calc_price)
    for name in dict.fromkeys((call.name, call.name.rpartition("/")[2], call.name.rpartition(":")[2])):
        try:
            # A long request and a long answer: where a price has tiers, these are the dearest.
            found = ask(Usage(input_tokens=1_000_000, output_tokens=1_000_000), model_ref=name)
        except LookupError:
            continue
        if found.input_price is None or found.output_price is None:
            return None
        return Price(input_per_million=float(found.input_price), output_per_million=float(found.output_price))
    return None
