"""The plain OpenAI client below hand-written agents: sync, async and streamed, over both of its protocols."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("openai._base_client", reason="openai is not installed")

import openai

from pytest_oao.testing.adapter import AdapterCase, AdapterConformance
from tests.frameworks.hand_written import Tools


def _arguments(http: type[Any]) -> dict[str, Any]:
    """Without certificates, which take longer to read than the tests take."""
    return {"api_key": "k", "max_retries": 0, "http_client": http(verify=False)}


def _offered(tools: Tools) -> list[Any]:
    return [
        {"type": "function", "function": {"name": name, "description": text, "parameters": schema, "strict": True}}
        for name, text, schema in tools.schemas()
    ]


def _told(messages: list[Any], message: Any, tools: Tools) -> str | None:
    """Do what the model asked for; return its answer where it asked for nothing."""
    if not message.tool_calls:
        return str(message.content)
    messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
    for call in message.tool_calls:
        said = tools.call(call.function.name, json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": said})
    return None


class Chat(AdapterCase):
    """Sync, over Chat Completions."""

    name = "function"
    ways = ("sync", "stream")

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> Any:
        own = Tools(tools)

        def agent(task: str) -> str:
            messages: list[Any] = [{"role": "user", "content": task}]
            with openai.OpenAI(base_url=url, **_arguments(openai.DefaultHttpxClient)) as client:
                while True:
                    asked: dict[str, Any] = {"model": "scripted", "messages": messages, "tools": _offered(own)}
                    if agent.streams:  # type: ignore[attr-defined]
                        options: Any = {"include_usage": True}
                        with client.chat.completions.stream(**asked, stream_options=options) as stream:
                            answer: Any = stream.get_final_completion()
                    else:
                        answer = client.chat.completions.create(**asked)
                    said = _told(messages, answer.choices[0].message, own)
                    if said is not None:
                        return said

        agent.streams = False  # type: ignore[attr-defined]
        return agent

    def streamed(self, agent: Any) -> Any:
        agent.streams = True
        return agent


class AsyncChat(AdapterCase):
    """The same, async."""

    name = "function"
    ways = ("async", "stream")

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> Any:
        own = Tools(tools)

        async def agent(task: str) -> str:
            messages: list[Any] = [{"role": "user", "content": task}]
            async with openai.AsyncOpenAI(base_url=url, **_arguments(openai.DefaultAsyncHttpxClient)) as client:
                while True:
                    asked: dict[str, Any] = {"model": "scripted", "messages": messages, "tools": _offered(own)}
                    if agent.streams:  # type: ignore[attr-defined]
                        options: Any = {"include_usage": True}
                        async with client.chat.completions.stream(**asked, stream_options=options) as stream:
                            answer: Any = await stream.get_final_completion()
                    else:
                        answer = await client.chat.completions.create(**asked)
                    said = _told(messages, answer.choices[0].message, own)
                    if said is not None:
                        return said

        agent.streams = False  # type: ignore[attr-defined]
        return agent

    def streamed(self, agent: Any) -> Any:
        agent.streams = True
        return agent


class Responses(AdapterCase):
    """Sync, over Responses."""

    name = "function"
    ways = ("sync", "stream")

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> Any:
        own = Tools(tools)
        offered: list[Any] = [
            {"type": "function", "name": name, "description": text, "parameters": schema, "strict": False}
            for name, text, schema in own.schemas()
        ]

        def agent(task: str) -> str:
            items: list[Any] = [{"role": "user", "content": task}]
            with openai.OpenAI(base_url=url, **_arguments(openai.DefaultHttpxClient)) as client:
                while True:
                    if agent.streams:  # type: ignore[attr-defined]
                        with client.responses.stream(model="scripted", input=items, tools=offered) as stream:
                            answer: Any = stream.get_final_response()
                    else:
                        answer = client.responses.create(model="scripted", input=items, tools=offered)
                    calls = [item for item in answer.output if item.type == "function_call"]
                    if not calls:
                        return str(answer.output_text)
                    for call in calls:
                        items.append({
                            "type": "function_call", "call_id": call.call_id, "name": call.name,
                            "arguments": call.arguments,
                        })  # fmt: skip
                        said = own.call(call.name, json.loads(call.arguments))
                        items.append({"type": "function_call_output", "call_id": call.call_id, "output": said})

        agent.streams = False  # type: ignore[attr-defined]
        return agent

    def streamed(self, agent: Any) -> Any:
        agent.streams = True
        return agent


class TestChat(AdapterConformance):
    """What every adapter promises."""

    case = Chat()


class TestAsyncChat(AdapterConformance):
    """As above."""

    case = AsyncChat()


class TestResponses(AdapterConformance):
    """As above."""

    case = Responses()
