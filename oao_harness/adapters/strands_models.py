"""Governs the models of Strands Agents where they are asked: `stream` and `structured_output` of every one of them."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn, cast

from strands.bidi.models.model import BidiModel
from strands.models.model import Model

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.framework_models import AnswerShape, Said, arguments_of, model_request, plain
from oao_harness.adapters.patching import Arguments, Leaf, Request
from oao_harness.adapters.requiring import require, require_version
from oao_harness.errors import ConfigError
from oao_harness.journal.codec import decode, encode, holds_opaque
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Call, Json, ModelCall, ProposedCall, Usage

__all__ = ["install"]

_STREAM: Final = ("messages", "tool_specs", "system_prompt")
_STRUCTURED: Final = ("output_model", "prompt", "system_prompt")
# How the tool describes itself that takes the model's last answer apart. It is an answer, no call of a tool.
_ANSWER: Final = "IMPORTANT: This StructuredOutputTool "
# Ids that are made at random for tools that the program itself calls: `agent.tool.add(a=1)`.
_MADE_ID: Final = re.compile(r"(tooluse_.+)_\d{9}")


def install() -> None:
    """Patch the leaves of all models, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 1.62, or has no such leaves.
    """
    require_version("strands-agents", "1.62")
    require(Model, ("stream", "structured_output", "get_config"), "strands-agents")
    require(BidiModel, ("start",), "strands-agents")
    patch_family(
        Model,
        (
            Leaf(name="stream", kind="astream", prepare=_prepare_stream),
            Leaf(name="structured_output", kind="astream", prepare=_prepare_structured),
        ),
        governs=lambda cls: not issubclass(cls, BidiModel),
    )
    patch_family(BidiModel, (Leaf(name="start", kind="async", prepare=_refuse),))


def _prepare_stream(model: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    given = _given(_STREAM, arguments)
    specs = cast("Sequence[Mapping[str, Any]]", given.get("tool_specs") or ())
    answers = frozenset(str(spec["name"]) for spec in specs if str(spec.get("description")).startswith(_ANSWER))
    params = _params(model)
    if given.get("tool_choice") is not None:
        params["tool_choice"] = plain(given["tool_choice"])
    call = ModelCall(
        name=_name(model),
        messages=_messages(given.get("system_prompt_content") or given.get("system_prompt"), given.get("messages")),
        tools=[cast("Mapping[str, Json]", plain(spec)) for spec in specs],
        params=params,
    )
    shape = AnswerShape(call, lambda chunks: _read(chunks, answers))
    return _swappable(model, call, model_request(call, shape, model, arguments), arguments)


def _prepare_structured(
    model: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None
) -> Request:
    given = _given(_STRUCTURED, arguments)
    output = given["output_model"]
    params = {**_params(model), "output_schema": cast("Json", output.model_json_schema())}
    messages = _messages(given.get("system_prompt"), given.get("prompt"))
    call = ModelCall(name=_name(model), messages=messages, params=params)

    def dump(event: Any) -> Json:
        found: Any = event.get("output") if isinstance(event, Mapping) else None
        return {"output": found.model_dump(mode="json")} if isinstance(found, output) else encode(event)

    def load(value: Json) -> Any:
        if isinstance(value, Mapping) and "output" in value:
            return {"output": output.model_validate(value["output"])}
        return decode(value)

    def read(events: Sequence[Any]) -> Said:
        said = _read(events, frozenset())
        texts = [dump(event) for event in events if isinstance(event, Mapping) and "output" in event]
        return replace(said, texts=texts or said.texts, proposed=())

    shape = AnswerShape(call, read, dump=dump, load=load)
    return _swappable(model, call, model_request(call, shape, model, arguments), arguments)


def _refuse(model: Any, _function: Callable[..., Any], _arguments: Arguments, _call_id: str | None) -> NoReturn:
    raise ConfigError(
        f"model {_name(model)!r} is asked on a live connection, in both directions at once, and oao cannot govern what "
        "is said there; ask a model by requests, or run this agent outside of oao"
    )


def _given(names: Sequence[str], arguments: Arguments) -> Mapping[str, Any]:
    positional, named = arguments
    return {**dict(zip(names, positional, strict=False)), **named}


def _config(model: Any) -> Mapping[str, Any]:
    config = model.get_config()
    return cast("Mapping[str, Any]", config) if isinstance(config, Mapping) else vars(config)


def _name(model: Any) -> str:
    config = _config(model)
    return str(config.get("model_id") or config.get("endpoint_name") or type(model).__name__)


def _params(model: Any) -> dict[str, Json]:
    found = cast("dict[str, Json]", plain(dict(_config(model))))
    return {
        key: value
        for key, value in sorted(found.items())
        if key not in {"model_id", "context_window_limit"} and holds_opaque(value) is None
    }


def _messages(system: object, messages: object) -> list[Mapping[str, Json]]:
    found: list[Mapping[str, Json]] = [{"role": "system", "content": plain(system)}] if system else []
    for message in cast("Sequence[Mapping[str, Any]]", messages or ()):
        content = [_block(block) for block in message["content"]]
        found.append({"role": message["role"], "content": content})
    return found


def _block(block: Mapping[str, Any]) -> Json:
    node = cast("dict[str, Any]", plain(block))
    for kind in ("toolUse", "toolResult"):
        part = cast("dict[str, Any]", node.get(kind) or {})
        made = _MADE_ID.fullmatch(str(part.get("toolUseId")))
        if made is not None:
            part["toolUseId"] = made.group(1)
    return node


def _swappable(model: Any, call: ModelCall, request: Request, arguments: Arguments) -> Request:
    """Return the request so that another model can be asked: a name in the model's configuration is whom it asks."""
    config = vars(model).get("config")
    if not isinstance(config, dict) or config.get("model_id") != call.name:
        return request

    def swap(judged: Call) -> tuple[Any, Arguments]:
        other = copy.copy(model)
        other.config = {**cast("dict[str, Any]", config), "model_id": judged.name}
        return other, arguments

    return replace(request, swap=swap)


# Answers


def _read(chunks: Sequence[Any], answers: frozenset[str]) -> Said:
    events = [chunk for chunk in chunks if isinstance(chunk, Mapping)]
    found = [dict(event["metadata"]) for event in events if isinstance(event.get("metadata"), Mapping)]
    blocks = list(_blocks(events))
    return Said(
        usage=_usage(found[-1].get("usage")) if found else None,
        texts=[block["text"] for block in blocks if "text" in block] + [b["input"] for b in blocks if "input" in b],
        proposed=[
            ProposedCall(
                name=block["name"], arguments=arguments_of(block["input"]), call_id=cast("str | None", block["id"])
            )
            for block in blocks
            if "name" in block and block["name"] not in answers
        ],
    )


def _usage(counts: Any) -> Usage | None:
    usage = read_usage(counts)
    total = counts.get("totalTokens") if isinstance(counts, Mapping) else None
    if usage is None or not total:
        return usage
    # Some providers leave out of the input what came from a cache; the total always has it.
    return replace(usage, input_tokens=max(usage.input_tokens, total - counts.get("outputTokens", 0)),
                   output_tokens=counts.get("outputTokens", 0))  # fmt: skip


def _blocks(events: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what was said, block by block: `{"text": ...}` or `{"id": ..., "name": ..., "input": ...}`."""
    block: dict[str, Any] = {}
    for event in events:
        if "contentBlockStart" in event:
            use = (event["contentBlockStart"].get("start") or {}).get("toolUse")
            block = {} if use is None else {"id": use.get("toolUseId"), "name": use["name"], "input": ""}
        elif "contentBlockDelta" in event:
            delta = event["contentBlockDelta"].get("delta") or {}
            if "toolUse" in delta and "input" in block:
                block["input"] += str(delta["toolUse"].get("input") or "")
            elif "text" in delta:
                block["text"] = block.get("text", "") + delta["text"]
        elif "contentBlockStop" in event:
            if block:
                yield block
            block = {}
    if block:
        yield block
