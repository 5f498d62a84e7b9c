"""Governs the models of Google's Agent Development Kit where they are asked: Gemini, LiteLLM, and every other one."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn, cast

from google.adk.models.base_llm import BaseLlm

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.framework_models import AnswerShape, Said, arguments_of, model_request, plain
from oao_harness.adapters.patching import Arguments, Leaf, Request
from oao_harness.adapters.requiring import require, require_version
from oao_harness.errors import ConfigError
from oao_harness.journal.codec import holds_opaque
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Call, Json, ModelCall, ProposedCall

__all__ = ["ANSWER_TOOL", "install"]

ANSWER_TOOL: Final = "set_model_response"
"""The name of the tool by which a model gives an answer with a schema: that is no call of a tool."""
_SENT: Final = frozenset({"http_options", "labels", "system_instruction", "tools"})
# Ids that the framework makes for calls to which the model gave none.
_MADE_ID: Final = "adk-"


def install() -> None:
    """Patch the leaves of all models, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 2.13, or has no such leaves.
    """
    require_version("google-adk", "2.13")
    require(BaseLlm, ("generate_content_async", "connect", "model"), "google-adk")
    patch_family(
        BaseLlm,
        (
            Leaf(name="generate_content_async", kind="astream", prepare=_prepare),
            Leaf(name="connect", kind="sync", prepare=_refuse),
        ),
        # It asks one of its models after the other, and they are governed.
        governs=lambda cls: not any(base.__module__ == "google.adk.models._fallback_model" for base in cls.__mro__),
    )


def _refuse(model: Any, _function: Callable[..., Any], _arguments: Arguments, _call_id: str | None) -> NoReturn:
    raise ConfigError(
        f"model {model.model!r} is asked on a live connection, in both directions at once, and oao cannot govern what "
        "is said there; run the agent by run_async, or outside of oao"
    )


def _prepare(model: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    asked = cast("Any", positional[0] if positional else named["llm_request"])
    call = ModelCall(
        name=str(asked.model or model.model),
        messages=_messages(asked),
        tools=[_tool(one) for tool in asked.config.tools or () for one in _declared(tool)],
        params=_params(asked),
    )

    def swap(judged: Call) -> tuple[Any, Arguments]:
        other = asked.model_copy(update={"model": judged.name})
        rest = {name: value for name, value in named.items() if name != "llm_request"}
        return model.model_copy(update={"model": judged.name}), ((other, *positional[1:]), rest)

    shape = AnswerShape(call, _read, dump=_dump, load=_loader(), is_last=_is_last)
    return replace(model_request(call, shape, model, arguments), swap=swap)


def _messages(asked: Any) -> list[Mapping[str, Json]]:
    system = asked.config.system_instruction
    found: list[Mapping[str, Json]] = [{"role": "system", "content": plain(system)}] if system else []
    for content in asked.contents:
        node = cast("dict[str, Any]", plain(content))
        for part in node.get("parts") or ():
            for kind in ("function_call", "function_response"):
                if str(part.get(kind, {}).get("id")).startswith(_MADE_ID):
                    del part[kind]["id"]
        found.append(node)
    return found


def _declared(tool: Any) -> Sequence[Any]:
    return getattr(tool, "function_declarations", None) or [tool]


def _tool(tool: Any) -> Mapping[str, Json]:
    found = plain(tool) if hasattr(tool, "model_dump") else {"name": getattr(tool, "__name__", type(tool).__name__)}
    return cast("Mapping[str, Json]", found)


def _params(asked: Any) -> dict[str, Json]:
    config = asked.config.model_copy(update=dict.fromkeys(_SENT), deep=False)
    schema = config.response_schema
    if isinstance(schema, type):
        config.response_schema = None
    params = cast("dict[str, Json]", plain(config))
    if isinstance(schema, type):
        params["response_schema"] = plain(getattr(schema, "model_json_schema", lambda: schema.__name__)())
    if asked.previous_interaction_id is not None:
        params["previous_interaction_id"] = asked.previous_interaction_id
    return {key: value for key, value in sorted(params.items()) if holds_opaque(value) is None}


# Answers


def _dump(response: Any) -> Json:
    return cast("Json", response.model_dump(mode="json", exclude_none=True))


def _loader() -> Callable[[Json], Any]:
    from google.adk.models.llm_response import LlmResponse  # noqa: PLC0415 - it is whole only when a model is asked

    # As JSON: so bytes come back as bytes.
    return lambda value: LlmResponse.model_validate_json(json.dumps(value))


def _is_last(response: Any) -> bool:
    return not response.partial and response.finish_reason is not None


def _read(responses: Sequence[Any]) -> Said:
    whole = [response for response in responses if not response.partial] or responses
    contents = [response.content for response in whole if response.content is not None]
    parts = [part for content in contents for part in content.parts or ()]
    calls = [part.function_call for part in parts if part.function_call is not None]
    usages = [usage for response in responses if (usage := read_usage(response)) is not None]
    return Said(
        usage=usages[-1] if usages else None,
        texts=[plain(part) for part in parts],
        proposed=[
            ProposedCall(name=str(one.name), arguments=arguments_of(one.args or {}), call_id=one.id)
            for one in calls
            if one.name != ANSWER_TOOL
        ],
    )
