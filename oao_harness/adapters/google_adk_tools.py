"""Governs the tools of Google's Agent Development Kit: `run_async` of functions, agents, MCP servers, and all."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from google.adk.tools.base_tool import BaseTool

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.framework_tools import tool_request
from oao_harness.adapters.patching import Arguments, Leaf, Request
from oao_harness.adapters.requiring import require, require_version
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime.gate import Answer
from oao_hookspecs import Json

__all__ = ["install"]

_ANSWERS = "google.adk.tools.set_model_response_tool"


def install() -> None:
    """Patch the leaf of all tools, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 2.13, or has no such leaf.
    """
    require_version("google-adk", "2.13")
    require(BaseTool, ("run_async", "name"), "google-adk")
    patch_family(
        BaseTool,
        (Leaf(name="run_async", kind="async", prepare=_prepare),),
        # It only reads the model's last answer.
        governs=lambda cls: not any(base.__module__ == _ANSWERS for base in cls.__mro__),
    )


class _Outcome:
    """What a tool returned, and what it asked the framework to do: change the state, hand over, leave a loop.

    ```text
    {"result": ...}                             as the tool returned it
    {"result": ..., "actions": {...}}           what is not as it was before
    ```
    """

    __slots__ = ("_before", "_context")

    def __init__(self, context: Any) -> None:
        self._context = context
        self._before = self._actions()

    def _actions(self) -> dict[str, Json]:
        actions = getattr(self._context, "actions", None)
        if actions is None:
            return {}
        found = {name: encode(getattr(actions, name)) for name in type(actions).model_fields if name != "state_delta"}
        return {**found, "state_delta": encode(dict(actions.state_delta))}

    def dump(self, value: Any) -> Answer:
        """Return what the tool returned and did as JSON."""
        changed = {name: now for name, now in self._actions().items() if now != self._before.get(name)}
        return Answer(value={"result": encode(value), **({"actions": changed} if changed else {})})

    def load(self, value: Json) -> Any:
        """Return what the tool returned, after doing what it did."""
        node = cast("Mapping[str, Json]", value)
        changed = cast("dict[str, Any]", decode(node.get("actions", {})))
        for name, item in changed.items():
            if name == "state_delta":
                for key, one in item.items():
                    self._context.state[key] = one
            else:
                setattr(self._context.actions, name, item)
        return decode(node["result"])

    def load_chunks(self, value: Json) -> Iterable[Any]:
        """Return what the tool returned; it does not stream."""
        return [self.load(value)]


def _prepare(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    given = {**dict(zip(("args", "tool_context"), positional, strict=False)), **named}
    context = given.get("tool_context")

    def again(changed: dict[str, Any]) -> Arguments:
        return (), {**given, "args": changed}

    call_id = getattr(context, "function_call_id", None)
    # An id that the framework made is another one each time.
    own = None if str(call_id).startswith("adk-") else call_id
    return tool_request(tool.name, given["args"], again, call_id=own, shape=_Outcome(context))
