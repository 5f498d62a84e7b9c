"""The two methods through which Parrot's calls really leave, governed. Outside of a run they do what they did."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import parrot

from oao_harness import FrameworkError, model, tool

__all__ = ["install"]

_MARK = "_oao_parrot"


def install() -> None:
    """Patch Parrot, once.

    Raises:
        FrameworkError: This Parrot has no such methods: what cannot be governed is refused, not ignored.
    """
    missing = [name for cls, name in ((parrot.Model, "ask"), (parrot.Agent, "use")) if not hasattr(cls, name)]
    if missing or not parrot.__version__.startswith("2."):
        raise FrameworkError(f"parrot {parrot.__version__} is installed, and oao-parrot governs 2.x; install parrot 2")
    if hasattr(parrot.Model, _MARK):
        return
    ask, use = parrot.Model.ask, parrot.Agent.use

    @functools.wraps(ask)
    def governed_ask(self: parrot.Model, messages: list[Any], tools: list[Any]) -> dict[str, Any]:
        def think(messages: list[Any], tools: list[Any]) -> dict[str, Any]:
            answer = ask(self, messages, tools)
            calls = answer["choices"][0]["message"].get("tool_calls") or []
            # What the model asks for is judged as a whole, before any of it starts.
            proposed = [_proposed(call) for call in calls]
            return {"answer": answer, "usage": answer.get("usage"), "tool_calls": proposed}

        found: dict[str, Any] = model(name=self.name)(think)(messages, tools)["answer"]
        return found

    @functools.wraps(use)
    def governed_use(self: parrot.Agent, name: str, arguments: dict[str, Any], call_id: str) -> str:
        # A copy: the user's agent is not changed. The tools, not the method around them, which makes texts of errors.
        copy = dataclasses.replace(self, tools=[tool(function) for function in self.tools])
        return use(copy, name, arguments, call_id)

    parrot.Model.ask, parrot.Agent.use = governed_ask, governed_use  # type: ignore[method-assign]
    setattr(parrot.Model, _MARK, True)


def _proposed(call: dict[str, Any]) -> dict[str, Any]:
    asked = call["function"]
    return {"id": call["id"], "name": asked["name"], "args": json.loads(asked["arguments"])}
