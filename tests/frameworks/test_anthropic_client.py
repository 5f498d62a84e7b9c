"""The plain Anthropic client below hand-written agents: sync, async and streamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

pytest.importorskip("anthropic._base_client", reason="anthropic is not installed")

import anthropic

from pytest_oao.testing.adapter import AdapterCase, AdapterConformance, ModelServer
from pytest_oao.testing.replies import Reply
from tests.adapters.anthropic_server import AnthropicServer
from tests.frameworks.hand_written import Tools

_SENT = {"type", "text", "id", "name", "input"}


def _arguments(http: type[Any]) -> dict[str, Any]:
    """Without certificates, which take longer to read than the tests take."""
    return {"api_key": "k", "max_retries": 0, "http_client": http(verify=False)}


def _asked(messages: list[Any], tools: Tools) -> dict[str, Any]:
    offered = [{"name": name, "description": text, "input_schema": schema} for name, text, schema in tools.schemas()]
    return {"model": "scripted", "max_tokens": 100, "messages": messages, "tools": offered}


def _told(messages: list[Any], message: Any, tools: Tools) -> str | None:
    """Do what the model asked for; return its answer where it asked for nothing."""
    uses = [block for block in message.content if block.type == "tool_use"]
    if not uses:
        return "".join(block.text for block in message.content)
    messages.append({"role": "assistant", "content": [block.model_dump(include=_SENT) for block in message.content]})
    told = [{"type": "tool_result", "tool_use_id": use.id, "content": tools.call(use.name, use.input)} for use in uses]
    messages.append({"role": "user", "content": told})
    return None


class Messages(AdapterCase):
    """Sync."""

    name = "function"
    ways = ("sync", "stream")

    def server(self, replies: Sequence[Reply | str]) -> AbstractContextManager[ModelServer]:
        return AnthropicServer(replies)

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> Any:
        own = Tools(tools)

        def agent(task: str) -> str:
            messages: list[Any] = [{"role": "user", "content": task}]
            with anthropic.Anthropic(base_url=url, **_arguments(anthropic.DefaultHttpxClient)) as client:
                while True:
                    if agent.streams:  # type: ignore[attr-defined]
                        with client.messages.stream(**_asked(messages, own)) as stream:
                            message: Any = stream.get_final_message()
                    else:
                        message = client.messages.create(**_asked(messages, own))
                    said = _told(messages, message, own)
                    if said is not None:
                        return said

        agent.streams = False  # type: ignore[attr-defined]
        return agent

    def streamed(self, agent: Any) -> Any:
        agent.streams = True
        return agent


class AsyncMessages(Messages):
    """The same, async."""

    ways = ("async", "stream")

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> Any:
        own = Tools(tools)

        async def agent(task: str) -> str:
            messages: list[Any] = [{"role": "user", "content": task}]
            async with anthropic.AsyncAnthropic(
                base_url=url, **_arguments(anthropic.DefaultAsyncHttpxClient)
            ) as client:
                while True:
                    if agent.streams:  # type: ignore[attr-defined]
                        async with client.messages.stream(**_asked(messages, own)) as stream:
                            message: Any = await stream.get_final_message()
                    else:
                        message = await client.messages.create(**_asked(messages, own))
                    said = _told(messages, message, own)
                    if said is not None:
                        return said

        agent.streams = False  # type: ignore[attr-defined]
        return agent


class TestMessages(AdapterConformance):
    """What every adapter promises."""

    case = Messages()


class TestAsyncMessages(AdapterConformance):
    """As above."""

    case = AsyncMessages()
