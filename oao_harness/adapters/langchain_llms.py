"""Governs LangChain's completion models, which take texts and return texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.langchain_params import model_name, params_of, refuse_modified, usage_or_estimate
from oao_harness.adapters.langchain_scope import guard_cache, scope
from oao_harness.adapters.langchain_swapping import swapping
from oao_harness.adapters.langchain_usual import marked_partial, refuse_partial
from oao_harness.adapters.patching import (
    Arguments,
    Leaf,
    Request,
    cleared,
    closing_streams,
    require,
    set_method,
)
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime.gate import Answer
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Json, ModelCall

__all__ = ["install"]

_Node = Mapping[str, Json]


def install() -> None:
    """Patch the leaves of all completion models, present and to come; once.

    Raises:
        FrameworkError: The installed LangChain has no such leaves.
    """
    require(BaseLLM, ("_generate", "_agenerate", "_stream", "_astream", "generate", "agenerate"), "langchain-core")
    patch_family(
        BaseLLM,
        (
            Leaf(name="_generate", kind="sync", prepare=_prepare),
            Leaf(name="_agenerate", kind="async", prepare=_prepare),
            Leaf(name="_stream", kind="stream", prepare=_prepare),
            Leaf(name="_astream", kind="astream", prepare=_prepare),
            Leaf(name="_call", kind="sync", prepare=_prepare_call),
            Leaf(name="_acall", kind="async", prepare=_prepare_call),
        ),
    )
    set_method(BaseLLM, "generate", lambda function: cleared(function, "sync"))
    set_method(BaseLLM, "agenerate", lambda function: cleared(function, "async"))
    set_method(BaseLLM, "stream", lambda function: cleared(function, "stream"))
    set_method(BaseLLM, "astream", lambda function: closing_streams(cleared(function, "astream")))
    guard_cache(BaseLLM)


def _prepare(model: BaseLLM, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    call = _describe(model, arguments)
    return swapping(Request(call=call, shape=_CompletionShape(call), arguments=refuse_modified), model, arguments)


def _prepare_call(model: BaseLLM, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    call = _describe(model, arguments)
    return swapping(Request(call=call, shape=_TextShape(call), arguments=refuse_modified), model, arguments)


def _describe(model: BaseLLM, arguments: Arguments) -> ModelCall:
    positional, named = arguments
    given: dict[str, Any] = {**dict(zip(("prompts", "stop", "run_manager"), positional, strict=False)), **named}
    # `_stream` and `_call` take one prompt, `_generate` a list of them.
    asked: object = given.pop("prompts", None) or given.pop("prompt", "")
    prompts = [asked] if isinstance(asked, str) else cast("Sequence[str]", asked)
    return ModelCall(
        name=model_name(model, given),
        messages=[{"role": "user", "content": prompt} for prompt in prompts],
        params=params_of(model, given),
        scope=scope(),
    )


class _CompletionShape:
    """Answers of `_generate` and `_stream`: `{"texts": [[{"text": ...}, ...], ...]}` or `{"chunks": [...]}`."""

    __slots__ = ("_call",)

    def __init__(self, call: ModelCall) -> None:
        self._call = call

    def dump(self, value: LLMResult) -> Answer:
        texts: list[Json] = [[_dump(generation) for generation in answers] for answers in value.generations]
        node: dict[str, Json] = {"texts": texts}
        if value.llm_output:
            node["llm_output"] = encode(value.llm_output)
        reported = read_usage(value.llm_output) if value.llm_output else None
        return Answer(value=node, usage=usage_or_estimate(self._call, reported, texts))

    def load(self, value: Json) -> LLMResult:
        node = cast("_Node", value)
        refuse_partial(node)
        if "chunks" in node:
            chunks = list(self.load_chunks(value))
            merged = sum(chunks[1:], start=chunks[0]) if chunks else GenerationChunk(text="")
            whole = Generation(text=merged.text, generation_info=merged.generation_info)
            return LLMResult(generations=[[whole]])
        texts = cast("Sequence[Sequence[Json]]", node["texts"])
        return LLMResult(
            generations=[[Generation(**_load(answer)) for answer in answers] for answers in texts],
            llm_output=cast("Any", decode(node.get("llm_output"))),
        )

    def load_chunks(self, value: Json) -> Iterable[GenerationChunk]:
        node = cast("_Node", value)
        if "chunks" in node:
            for chunk in cast("Sequence[Json]", node["chunks"]):
                yield GenerationChunk(**_load(chunk))
            refuse_partial(node)
        else:
            first = _CompletionShape.load(self, value).generations[0][0]
            yield GenerationChunk(text=first.text, generation_info=first.generation_info)

    def snapshot(self, chunk: GenerationChunk) -> Json:
        return _dump(chunk)

    def is_last(self, chunk: object) -> bool:
        del chunk
        return False

    def join(self, snapshots: list[Json], chunks: list[GenerationChunk], *, partial: bool) -> Answer:
        infos = [chunk.generation_info for chunk in reversed(chunks) if chunk.generation_info]
        reported = next((usage for info in infos if (usage := read_usage(info)) is not None), None)
        value = marked_partial({"chunks": snapshots}, partial)
        return Answer(value=value, usage=usage_or_estimate(self._call, reported, snapshots))


class _TextShape(_CompletionShape):
    """Answers of `_call`, called past `_generate`: a text."""

    __slots__ = ()

    def dump(self, value: Any) -> Answer:
        return Answer(value={"texts": [[value]]}, usage=usage_or_estimate(self._call, None, [value]))

    def load(self, value: Json) -> Any:
        return super().load(value).generations[0][0].text


def _dump(generation: Generation) -> Json:
    if not generation.generation_info:
        return generation.text
    return {"text": generation.text, "generation_info": encode(generation.generation_info)}


def _load(node: Json) -> dict[str, Any]:
    return {"text": node} if isinstance(node, str) else cast("dict[str, Any]", decode(node))
