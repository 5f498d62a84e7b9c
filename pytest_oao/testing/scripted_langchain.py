"""LangChain's chat model that follows a script; needs the extra `langchain`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, InvalidToolCall, ToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, PrivateAttr

from pytest_oao.testing.script import NumberedReply, Script, words

__all__ = ["ScriptedChatModel"]


class ScriptedChatModel(BaseChatModel):
    """Answer each call with the next reply of a script, also in streams, with tools and as structured output.

    Replies are those of `ScriptedModel`; a function gets the list of LangChain messages. For structured output script
    the call of the tool that carries it: `with_structured_output(Answer)` takes the arguments of a `ToolCallReply`
    whose call is named `Answer`.

    Example:
        ```python
        model = ScriptedChatModel(replies=[
            ToolCallReply(calls=(ToolCall(name="lookup", arguments={"id": "123"}),)),
            "refunded 49.99",
        ])
        agent = create_agent(model, [lookup])
        assert agent.invoke({"messages": ["order 123"]})["messages"][-1].text == "refunded 49.99"
        ```

    Raises:
        TypeError: A reply is none.
    """

    replies: Any = Field(exclude=True, repr=False)
    """See `ScriptedModel`."""
    model: str = "scripted-model"
    """The model's id: in policies, recordings and prices."""
    _script: Script = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Read the script."""
        super().model_post_init(context)
        self._script = self.replies if isinstance(self.replies, Script) else Script(self.replies, self.model)

    @property
    def requests(self) -> list[list[BaseMessage]]:
        """The conversations the model was asked with, copied; without those that a recording answered."""
        return cast("list[list[BaseMessage]]", self._script.requests)

    @property
    def left(self) -> int:
        """How many replies were not used yet; 0 where a function makes them."""
        return self._script.left

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model": self.model}

    def bind_tools(
        self,
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with tools that it offers; the script does not look at them."""
        given = kwargs if tool_choice is None else {**kwargs, "tool_choice": tool_choice}
        offered = [convert_to_openai_tool(cast("Any", tool)) for tool in tools]
        return cast("Runnable[LanguageModelInput, AIMessage]", self.bind(tools=offered, **given))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        found = self._script.next(messages)
        time.sleep(found.reply.delay_s)
        return self._result(found)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        found = self._script.next(messages)
        await asyncio.sleep(found.reply.delay_s)
        return self._result(found)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        found = self._script.next(messages)
        time.sleep(found.reply.delay_s)
        for chunk in self._chunks(found):
            time.sleep(found.reply.chunk_delay_s)
            if run_manager is not None:
                run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        found = self._script.next(messages)
        await asyncio.sleep(found.reply.delay_s)
        for chunk in self._chunks(found):
            await asyncio.sleep(found.reply.chunk_delay_s)
            if run_manager is not None:
                await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    def _result(self, found: NumberedReply) -> ChatResult:
        calls = found.tool_calls()
        message = AIMessage(
            content=found.reply.text,
            tool_calls=[
                ToolCall(name=str(call["name"]), args=cast("Any", call["arguments"]), id=str(call["id"]))
                for call in calls
                if not isinstance(call["arguments"], str)
            ],
            invalid_tool_calls=[
                InvalidToolCall(
                    type="invalid_tool_call",
                    name=str(call["name"]),
                    args=call["arguments"],
                    id=str(call["id"]),
                    error="no JSON",
                )
                for call in calls
                if isinstance(call["arguments"], str)
            ],
            usage_metadata=_usage(found),
            response_metadata={"model_name": self.model},
        )
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output={"model_name": self.model})

    def _chunks(self, found: NumberedReply) -> Iterator[ChatGenerationChunk]:
        """Yield words, then the calls in two parts each, because a client that does not join these must fail."""
        for word in words(found.reply.text):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        for index, call in enumerate(found.tool_calls()):
            arguments = call["arguments"]
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            middle = len(text) // 2
            first = {"index": index, "id": call["id"], "name": call["name"], "args": text[:middle]}
            rest = {"index": index, "id": None, "name": None, "args": text[middle:]}
            for part in (first, rest):
                piece = cast("Any", {**part, "type": "tool_call_chunk"})
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[piece]))
        end = AIMessageChunk(content="", usage_metadata=_usage(found), response_metadata={"model_name": self.model})
        yield ChatGenerationChunk(message=end)


def _usage(found: NumberedReply) -> UsageMetadata:
    sent, received = found.reply.input_tokens, found.reply.output_tokens
    return UsageMetadata(input_tokens=sent, output_tokens=received, total_tokens=sent + received)
