"""The sums over the tests of a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["SUMS", "totals_of"]

SUMS: Final = ("steps", "model_calls", "tool_calls", "tokens")


def totals_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums over all tests; a cost that nobody knows makes the sum unknown."""
    replayed = [row for row in rows if row["replay"]["status"] == "ok"]
    live = [row for row in rows if row["replay"]["status"] in {"live", "same", "recorded", "pending"}]
    return {
        "tests": len(rows),
        "runs": sum(len(row["runs"]) for row in rows),
        **{name: sum(row[name] for row in rows) for name in SUMS},
        "tokens_estimated": any(row["tokens_estimated"] for row in rows),
        "cost_usd": _cost(rows),
        "saved_tokens": sum(row["tokens"] for row in replayed),
        "saved_usd": _cost(replayed),
        "live_usd": _cost(live),
        "violations": sum(not one["expected"] for row in rows for one in row["violations"]),
        "divergences": sum(row["replay"]["status"] in {"diverged", "unplayed"} for row in rows),
        "recorded": sum(row["replay"]["status"] == "recorded" for row in rows),
        "pending": sum(row["replay"]["status"] == "pending" for row in rows),
    }


def _cost(rows: Sequence[Mapping[str, Any]]) -> float | None:
    costs = [row["cost_usd"] for row in rows]
    return None if any(cost is None for cost in costs) else round(sum(costs), 6)
