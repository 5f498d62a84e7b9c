"""How two runs differ, for the assert of a test: step by step, the first difference first."""

from __future__ import annotations

from typing import Final

from oao_harness.journal.trajectory import MadeCall, Trajectory

__all__ = ["difference_of"]

_MOST: Final = 8


def difference_of(left: object, right: object) -> list[str] | None:
    """Return the lines that explain `left == right`; None where these are no two runs."""
    if not isinstance(left, Trajectory) or not isinstance(right, Trajectory):
        return None
    before, after = left.steps, right.steps
    lines = [f"two runs with {len(before)} and {len(after)} calls"]
    for number, (one, other) in enumerate(zip(before, after, strict=False), start=1):
        if (one.kind, one.name, one.arguments) != (other.kind, other.name, other.arguments):
            lines.append(f"step {number}: {one} != {other}")
        elif one != other:
            lines.append(f"step {number} {one}: {_answer(one)} != {_answer(other)}")
    for number in range(min(len(before), len(after)), max(len(before), len(after))):
        longer, side = (before, "left") if len(before) > len(after) else (after, "right")
        lines.append(f"step {number + 1}: only on the {side}: {longer[number]}")
    more = len(lines) - 1 - _MOST
    return lines[: _MOST + 1] + ([f"and {more} more"] if more > 0 else [])


def _answer(step: MadeCall) -> str:
    text = step.error if step.error is not None else repr(step.result)
    return text if len(text) <= 60 else text[:57] + "..."
