"""Models that answer at once, each as cheap as its framework allows."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["fake_openai_model", "scripted_model"]


def fake_openai_model(delay_s: float = 0.0) -> Any:
    """Return a model of the OpenAI Agents SDK that says one word."""
    import asyncio

    from agents import Model, ModelResponse, Usage, set_tracing_disabled
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText

    # Else it collects spans to send them away.
    set_tracing_disabled(disabled=True)
    text = ResponseOutputText(annotations=[], text="x", type="output_text")
    message = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")

    class Fake(Model):
        async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
            if delay_s:
                await asyncio.sleep(delay_s)
            return ModelResponse(output=[message], usage=Usage(), response_id=None)

        def stream_response(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    return Fake()


def scripted_model(delay_s: float = 0.0, *, tool_calls: int = 2, tool: str = "add") -> Any:
    """Return a chat model of LangChain that asks for tool calls once, and then is done.

    Args:
        delay_s: Seconds that it takes to answer.
        tool_calls: Calls that it asks for, all at once.
        tool: The tool to call, with two numbers.
    """
    import asyncio

    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, ChatResult

    class Scripted(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "scripted"

        def _answer(self, messages: list[Any]) -> ChatResult:
            done = not tool_calls or any(message.type == "tool" for message in messages)
            calls = [{"name": tool, "args": {"a": n, "b": 1}, "id": f"c{n}"} for n in range(0 if done else tool_calls)]
            usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
            message = AIMessage("done" if done else "", tool_calls=calls, usage_metadata=usage)
            return ChatResult(generations=[ChatGeneration(message=message)])

        def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
            if delay_s:
                time.sleep(delay_s)
            return self._answer(messages)

        async def _agenerate(
            self, messages: list[Any], stop: Any = None, run_manager: Any = None, **_: Any
        ) -> ChatResult:
            if delay_s:
                await asyncio.sleep(delay_s)
            return self._answer(messages)

        def bind_tools(self, tools: Any, **_: Any) -> Any:
            return self

    return Scripted()
