"""What the adapters of frameworks share for tools: their calls on the way to the gate, and functions that pass it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from oao_harness.adapters.patching import Arguments, Kind, Prepare, Request, cleared_function, govern, made_here
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime import gate
from oao_hookspecs import Call, Effect, Json, ToolCall

__all__ = ["governed_function", "tool_request"]

_VALUES: Final = gate.ValueShape()


def tool_request(
    name: str,
    arguments: Mapping[str, object],
    again: Callable[[dict[str, Any]], Arguments],
    *,
    call_id: str | None = None,
    scope: str = "",
    effect: Effect | None = None,
    shape: gate.Shape = _VALUES,
) -> Request:
    """Return a tool call on its way to the gate.

    Args:
        name: Name of the tool.
        arguments: By parameter name, without what the framework injects.
        again: Makes the method's arguments of those that a policy modified.
        call_id: The id that a model gave to the call.
        scope: Where in the agent the call was made.
        effect: What repeating the call does, where the framework knows.
        shape: How the result is journaled and served.
    """
    call = ToolCall(
        name=name,
        arguments=cast("Mapping[str, Json]", encode(dict(arguments))),
        call_id=call_id,
        scope=scope,
        effect=effect,
    )

    def modified(judged: Call) -> Arguments:
        return again(cast("dict[str, Any]", decode(cast("ToolCall", judged).arguments)))

    return Request(call=call, shape=shape, arguments=modified)


def governed_function(function: Callable[..., Any], kind: Kind, prepare: Prepare, owner: object) -> Callable[..., Any]:
    """Return a function like `function` whose calls pass the gate inside of a run.

    Args:
        function: The body, without an instance as its first argument.
        kind: How it returns.
        prepare: Turns a call into a request; is handed `owner` as the instance.
        owner: The tool that the function is the body of.
    """
    governed = govern(cleared_function(function, kind), kind, prepare)

    if kind == "async":

        @functools.wraps(function)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            return await governed(owner, *args, **kwargs)

        made_here(acall)
        return acall

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return governed(owner, *args, **kwargs)

    made_here(call)
    return call
