"""Another result for a recorded call, put where the old one stands: as a value, or as the text of an answer. Pure.

A model's answer has the form of its provider or framework. A plain text takes the place of what the model said, and of
the calls that it asked for; anything else must have that form itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from oao_harness.errors import UsageError
from oao_hookspecs import Json

__all__ = ["edited"]

_Node = Mapping[str, Json]

# What a message asks for besides what it says, by the names that providers and frameworks have for it.
_CALLS: Final = ("tool_calls", "invalid_tool_calls", "function_call", "calls")


def edited(recorded: Json, result: Json, *, kind: str) -> Json:
    """Return what a call is to return in the form that it is journaled in.

    Args:
        recorded: What it returned; None where it never did.
        result: What it returns now.
        kind: `tool` or `model`.

    Raises:
        UsageError: It is a text for an answer that has no one place for it.
    """
    if not isinstance(recorded, Mapping) or not isinstance(result, str):
        return result
    if kind == "tool" and "$oao" not in recorded:
        return result
    put = _place(recorded)
    if put is None:
        raise UsageError(
            f"the result of this {kind} call has a form of its own, and no one place for a text; give it whole, as "
            "`oao show ID --json` has it"
        )
    return put(result)


def _place(node: Json) -> Callable[[str], Json] | None:
    """Return what puts a text in the one place of an answer that is for it, or None."""
    if isinstance(node, Mapping):
        for name in ("content", "text"):
            if isinstance(node.get(name), str) or (name in node and node[name] is None):
                rest = {key: value for key, value in node.items() if key not in _CALLS}
                return lambda text, key=name: {**rest, key: text}  # type: ignore[misc]
        for name, value in node.items():
            inner = _place(value)
            if inner is not None:
                return lambda text, key=name, put=inner: {**_stopped(node), key: put(text)}  # type: ignore[misc]
    elif isinstance(node, Sequence) and not isinstance(node, str) and len(node) == 1:
        only = _place(node[0])
        return None if only is None else lambda text: [only(text)]
    return None


def _stopped(node: _Node) -> _Node:
    """Return a choice that does not say any more that it ended for its calls."""
    return {**node, "finish_reason": "stop"} if node.get("finish_reason") == "tool_calls" else node
