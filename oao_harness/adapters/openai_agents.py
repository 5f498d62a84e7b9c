"""Governs the OpenAI Agents SDK: its models where they are asked, its tools where their work is done."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from agents.agent import Agent
from agents.items import ModelResponse, TResponseOutputItem, TResponseStreamEvent
from agents.models.interface import Model
from agents.run import Runner
from openai._models import construct_type  # as its client reads a response: nothing is refused
from pydantic import TypeAdapter

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.framework_models import AnswerShape, Said, arguments_of, model_request, plain
from oao_harness.adapters.openai_agents_tools import LOCAL_CALLS, install_tools
from oao_harness.adapters.patching import Arguments, Leaf, Request
from oao_harness.adapters.requiring import require, require_version
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Json, ModelCall, ProposedCall

__all__ = ["ADAPTER", "OpenAIAgentsAdapter", "install"]

_PARAMETERS: Final = ("system_instructions", "input", "model_settings", "tools", "output_schema", "handoffs", "tracing")
# What else of the settings says nothing about the answer.
_NO_SETTINGS: Final = frozenset({"extra_headers", "include_usage", "metadata", "retry", "store"})
# Ids of items are made anew by each client; the id of a call is the model's.
_NO_ITEM: Final = frozenset({"id", "provider_data", "status"})
_LAST: Final = frozenset({"response.completed", "response.failed", "response.incomplete"})


def install() -> None:
    """Patch the leaves of all models and tools, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 0.24, or has no such leaves.
    """
    require_version("openai-agents", "0.24")
    require(Model, ("get_response", "stream_response"), "openai-agents")
    patch_family(
        Model,
        (
            Leaf(name="get_response", kind="async", prepare=_prepare_model),
            Leaf(name="stream_response", kind="astream", prepare=_prepare_model),
        ),
    )
    install_tools()


# Models


def _prepare_model(model: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    given: dict[str, Any] = {**dict(zip(_PARAMETERS, positional, strict=False)), **named}
    call = ModelCall(
        name=str(getattr(model, "model", None) or type(model).__name__),
        messages=_messages(given.get("system_instructions"), given.get("input")),
        tools=[*map(_tool, given.get("tools") or ()), *map(_handoff, given.get("handoffs") or ())],
        params=_params(given),
    )
    shape = AnswerShape(call, _read, dump=_dump, load=_load, is_last=_is_last)
    return model_request(call, shape, model, arguments, name_field="model")


def _messages(system: object, asked: object) -> list[Mapping[str, Json]]:
    messages: list[Mapping[str, Json]] = [{"role": "system", "content": plain(system)}] if system else []
    items = cast("Sequence[object]", asked) if isinstance(asked, list) else [{"role": "user", "content": asked}]
    for item in items:
        node = cast("Mapping[str, Json]", plain(item))
        messages.append({key: value for key, value in node.items() if key not in _NO_ITEM})
    return messages


def _tool(tool: Any) -> Mapping[str, Json]:
    schema = getattr(tool, "params_json_schema", None)
    if schema is None:
        return {"type": type(tool).__name__, "name": str(tool.name)}
    return {"name": tool.name, "description": tool.description, "parameters": plain(schema)}


def _handoff(handoff: Any) -> Mapping[str, Json]:
    return {
        "name": handoff.tool_name,
        "description": handoff.tool_description,
        "parameters": plain(handoff.input_json_schema),
    }


def _params(given: Mapping[str, Any]) -> dict[str, Json]:
    settings = given.get("model_settings")
    found = {} if settings is None else cast("dict[str, Json]", plain(vars(settings)))
    params = {key: value for key, value in found.items() if key not in _NO_SETTINGS}
    schema = given.get("output_schema")
    if schema is not None and not schema.is_plain_text():
        params["output_schema"] = plain(schema.json_schema())
    for name in ("previous_response_id", "conversation_id", "prompt"):
        if given.get(name) is not None:
            params[name] = plain(given[name])
    return dict(sorted(params.items()))


_RESPONSE: Final = TypeAdapter(ModelResponse)
_EVENT: Final[TypeAdapter[Any]] = TypeAdapter(TResponseStreamEvent)


def _dump(value: Any) -> Json:
    adapter: TypeAdapter[Any] = _RESPONSE if isinstance(value, ModelResponse) else _EVENT
    # A warning of its serializer's is about fields that a provider added.
    return cast("Json", adapter.dump_python(value, mode="json", by_alias=True, exclude_unset=True, warnings=False))


def _load(value: Json) -> Any:
    node = cast("dict[str, Any]", value)
    if "type" in node:
        return construct_type(value=node, type_=cast("Any", TResponseStreamEvent))
    items = [construct_type(value=item, type_=cast("Any", TResponseOutputItem)) for item in node["output"]]
    return dataclasses.replace(_RESPONSE.validate_python({**node, "output": []}), output=items)


def _read(values: Sequence[Any]) -> Said:
    """Read a whole answer, or the event that ends a stream: it holds all of the answer."""
    last = values[-1] if values else None
    found = getattr(last, "response", last)
    items = cast("Sequence[Any]", getattr(found, "output", None) or ())
    return Said(
        usage=read_usage(found),
        texts=[plain(item) for item in items] or [str(getattr(value, "delta", "")) for value in values],
        proposed=[call for item in items for call in _proposed(item)],
    )


def _proposed(item: Any) -> Sequence[ProposedCall]:
    """Return what an item asks the program to do; what the provider's own tools did is done, and part of the answer."""
    kind, call_id = getattr(item, "type", ""), getattr(item, "call_id", None)
    if kind == "function_call":
        return [ProposedCall(name=item.name, arguments=arguments_of(item.arguments), call_id=call_id)]
    if kind == "custom_tool_call":
        return [ProposedCall(name=item.name, arguments={"input": item.input}, call_id=call_id)]
    name = LOCAL_CALLS.get(kind)
    if name is None:
        return []
    found = plain(getattr(item, "action", None) or getattr(item, "operation", None) or {})
    actions = getattr(item, "actions", None)
    arguments = {"actions": plain(actions)} if actions else found
    return [ProposedCall(name=name, arguments=cast("Mapping[str, Json]", arguments), call_id=call_id)]


def _is_last(event: Any) -> bool:
    return getattr(event, "type", "") in _LAST


class OpenAIAgentsAdapter:
    """Drives an `agents.Agent` by `Runner.run(agent, task)`; the output is `final_output`."""

    name = "openai-agents"

    def matches(self, agent: object) -> bool:
        """Return True for an agent of the SDK."""
        return isinstance(agent, Agent)

    def sees(self, agent: object) -> bool:
        """Return True: models and tools are governed where they are defined."""
        del agent
        return True

    def is_async(self, agent: object) -> bool:
        """Return True: the SDK is async."""
        del agent
        return True

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return Runner.run_sync(cast("Agent[Any]", agent), cast("Any", task))

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return await Runner.run(cast("Agent[Any]", agent), cast("Any", task))

    def output(self, result: object) -> object:
        """Return the final output."""
        return cast("Any", result).final_output


ADAPTER: Final = OpenAIAgentsAdapter()
