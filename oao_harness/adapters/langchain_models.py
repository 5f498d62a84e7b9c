"""Governs LangChain's chat models: the methods of every subclass that send a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import BaseMessage

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.langchain_answers import ChatShape, EventShape
from oao_harness.adapters.langchain_messages import canonical_message, register_values, tool_schema
from oao_harness.adapters.langchain_params import model_name, params_of, refuse_modified
from oao_harness.adapters.langchain_scope import guard_cache, scope
from oao_harness.adapters.langchain_swapping import swapping
from oao_harness.adapters.patching import (
    Arguments,
    Leaf,
    Request,
    cleared,
    closing_streams,
    require,
    set_method,
    unmasked,
)
from oao_hookspecs import ModelCall

__all__ = ["install"]


def install() -> None:
    """Patch the leaves of all chat models, present and to come; once.

    Raises:
        FrameworkError: The installed LangChain has no such leaves.
    """
    require(
        BaseChatModel,
        (
            "_generate",
            "_agenerate",
            "_stream",
            "_astream",
            "_generate_with_cache",
            "_agenerate_with_cache",
            "agenerate",
            "cache",
        ),
        "langchain-core",
    )
    register_values()
    patch_family(
        BaseChatModel,
        (
            Leaf(name="_generate", kind="sync", prepare=_prepare),
            Leaf(name="_agenerate", kind="async", prepare=_prepare),
            Leaf(name="_stream", kind="stream", prepare=_prepare),
            Leaf(name="_astream", kind="astream", prepare=_prepare),
            Leaf(name="_stream_chat_model_events", kind="stream", prepare=_prepare_events),
            Leaf(name="_astream_chat_model_events", kind="astream", prepare=_prepare_events),
        ),
    )
    set_method(BaseChatModel, "_generate_with_cache", lambda function: cleared(function, "sync"))
    set_method(BaseChatModel, "_agenerate_with_cache", lambda function: cleared(function, "async"))
    set_method(BaseChatModel, "agenerate", unmasked)
    set_method(BaseChatModel, "stream", lambda function: cleared(function, "stream"))
    set_method(BaseChatModel, "astream", lambda function: closing_streams(cleared(function, "astream")))
    guard_cache(BaseChatModel)


def _prepare(
    model: BaseChatModel, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None
) -> Request:
    call = _describe(model, arguments)
    return swapping(Request(call=call, shape=ChatShape(call), arguments=refuse_modified), model, arguments)


def _prepare_events(
    model: BaseChatModel, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None
) -> Request:
    call = _describe(model, arguments)
    return swapping(Request(call=call, shape=EventShape(call), arguments=refuse_modified), model, arguments)


def _describe(model: BaseChatModel, arguments: Arguments) -> ModelCall:
    positional, named = arguments
    given: dict[str, Any] = {**dict(zip(("messages", "stop", "run_manager"), positional, strict=False)), **named}
    messages = cast("Iterable[BaseMessage]", given.get("messages") or ())
    return ModelCall(
        name=model_name(model, given),
        messages=[canonical_message(message) for message in messages],
        tools=[tool_schema(offered) for offered in given.get("tools") or ()],
        params=params_of(model, given),
        scope=scope(),
    )
