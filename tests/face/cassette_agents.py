"""Real clients that make the requests of the real cassettes again; imported by a test session of its own.

`OAO_CHANGE` in the environment changes one word of each prompt.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import yaml

CASSETTES = Path(os.environ["OAO_CASSETTES"])
DRIVERS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], object]]] = {}
"""By name: the cassette, and what makes its requests, given their bodies."""

OTEL_CHAT = [
    "otel/test_chat_completion_with_content",
    "otel/test_chat_completion_tool_calls_with_content",
    "otel/test_chat_completion_streaming",
    "otel/test_chat_completion_multiple_choices_streaming",
]
OTEL_ASYNC = "otel/test_async_chat_completion_multiple_tools_streaming_with_content"
OTEL_404 = "otel/test_chat_completion_404"
OTEL_RESPONSES = [
    "otel/test_responses_create_captures_tool_call_content_content_mode0_",
    "otel/test_responses_create_streaming_content_mode0_",
]
LANGSMITH = "langsmith/test_anthropic_test_completions_sync_api"
LLM = "llm-anthropic/test_prompt"
THINKING = "pydantic-ai/test_anthropic_model_thinking_part_stream"
PARALLEL = "pydantic-ai/test_multiple_parallel_tool_calls"
OPENROUTER = "pydantic-ai/test_openrouter_errors_raised"
ALL = [*OTEL_CHAT, OTEL_ASYNC, OTEL_404, *OTEL_RESPONSES, LANGSMITH, LLM, THINKING, PARALLEL, OPENROUTER]


def word(text: str) -> str:
    """The prompt, with its last word changed where that is asked for."""
    return text.rpartition(" ")[0] + " pelican" if os.environ.get("OAO_CHANGE") else text


def changed(body: dict[str, Any]) -> dict[str, Any]:
    if isinstance(body.get("input"), str):
        return {**body, "input": word(body["input"])}
    if "prompt" in body:
        return {**body, "prompt": word(body["prompt"])}
    messages = [dict(message) for message in body["messages"]]
    user = next(message for message in messages if message["role"] == "user")
    if isinstance(user["content"], str):
        user["content"] = word(user["content"])
    else:
        user["content"] = [{**user["content"][0], "text": word(user["content"][0]["text"])}]
    return {**body, "messages": messages}


def bodies_of(cassette: str) -> list[dict[str, Any]]:
    document = yaml.safe_load((CASSETTES / f"{cassette}.yaml").read_text(encoding="utf-8"))
    requests = [interaction["request"] for interaction in document["interactions"]]
    return [changed(one["parsed_body"] if "parsed_body" in one else json.loads(one["body"])) for one in requests]


def driver(client: str, *cassettes: str) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        for cassette in cassettes:
            name = f"{client}-{cassette.rpartition('/')[2].removeprefix('test_')}".lower()
            DRIVERS[name] = (cassette, function)
        return function

    return add


# openai


@driver("openai", *OTEL_CHAT)
def openai_chat(bodies: list[dict[str, Any]]) -> object:
    client = openai.OpenAI(api_key="any")
    answers = []
    for body in bodies:
        answer = client.chat.completions.create(**body)
        answers.append(list(answer) if body.get("stream") else answer.choices[0].message)
    assert all(answers)
    return answers


@driver("openai", OTEL_ASYNC)
def openai_async(bodies: list[dict[str, Any]]) -> object:
    async def agent() -> list[Any]:
        async with openai.AsyncOpenAI(api_key="any") as client:
            return [chunk async for chunk in await client.chat.completions.create(**bodies[0])]

    chunks = asyncio.run(agent())
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert len({call.index for call in calls}) == 2
    return calls


@driver("openai-raw", "otel/test_chat_completion_with_content")
def openai_raw(bodies: list[dict[str, Any]]) -> object:
    client = openai.OpenAI(api_key="any")
    raw = client.chat.completions.with_raw_response.create(**bodies[0])
    assert raw.status_code == 200
    assert raw.parse().choices[0].message.content == "This is a test."
    return raw


@driver("openai", OTEL_404)
def openai_404(bodies: list[dict[str, Any]]) -> object:
    with pytest.raises(openai.NotFoundError) as caught:
        openai.OpenAI(api_key="any").chat.completions.create(**bodies[0])
    assert caught.value.response.status_code == 404
    return caught.value


@driver("openai", *OTEL_RESPONSES)
def openai_responses(bodies: list[dict[str, Any]]) -> object:
    answer: Any = openai.OpenAI(api_key="any").responses.create(**bodies[0])
    if not bodies[0].get("stream"):
        assert answer.output[0].name == "get_current_weather"
        return answer
    events = list(answer)
    assert events[-1].type == "response.completed"
    return events


@driver("langchain-openai", *OTEL_CHAT[:3], OTEL_ASYNC, OTEL_404)
def langchain_openai(bodies: list[dict[str, Any]]) -> object:
    from langchain_openai import ChatOpenAI

    answers = []
    for body in bodies:
        model = ChatOpenAI(model=body["model"], api_key="any", stream_usage=True)
        bound = model.bind(**{key: body[key] for key in ("tools", "tool_choice") if key in body})
        messages = [{"content": "", **message} for message in body["messages"]]
        if "does-not-exist" in body["model"]:
            with pytest.raises(openai.NotFoundError):
                bound.invoke(messages)
            return None
        answers.append(list(bound.stream(messages)) if body.get("stream") else bound.invoke(messages))
    assert all(answers)
    return answers


@driver("langchain-openai", *OTEL_RESPONSES)
def langchain_responses(bodies: list[dict[str, Any]]) -> object:
    from langchain_openai import ChatOpenAI

    body = bodies[0]
    more = {key: body[key] for key in ("tools", "tool_choice", "instructions") if key in body}
    model = ChatOpenAI(
        model=body["model"], api_key="any", use_responses_api=True, service_tier=body.get("service_tier")
    )
    bound = model.bind(**more)
    return list(bound.stream(body["input"])) if body.get("stream") else bound.invoke(body["input"])


# anthropic


class Completion(anthropic.BaseModel):
    completion: str


@driver("anthropic", LANGSMITH)
def anthropic_complete(bodies: list[dict[str, Any]]) -> object:
    client = anthropic.Anthropic(api_key="any", max_retries=0)
    answers: list[object] = []
    for body in bodies:
        try:
            # The client has no method of its own for it any more.
            answer: Any = client.post(
                "/v1/complete",
                cast_to=Completion,
                body=body,
                stream=body["stream"],
                stream_cls=anthropic.Stream[Completion],
            )
            answers.append("".join(part.completion for part in answer) if body["stream"] else answer.completion)
        except anthropic.APIStatusError as error:
            answers.append(error.status_code)
    assert answers == [" Hi i'm"] * 4 + [400, 400, 404, 404, 404, 404, 400, 400]
    return answers


@driver("anthropic", LLM, THINKING, PARALLEL)
def anthropic_messages(bodies: list[dict[str, Any]]) -> object:
    client = anthropic.Anthropic(api_key="any")
    answers = []
    for body in bodies:
        extra = {"temperature": body.pop("temperature")} if "temperature" in body else None
        if not body["stream"]:
            answers.append(client.messages.create(**body, extra_body=extra))
            continue
        del body["stream"]
        with client.messages.stream(**body, extra_body=extra) as stream:
            answers.append(stream.get_final_message())
    assert all(answer.content for answer in answers)
    return answers


@driver("langchain-anthropic", LLM, THINKING, PARALLEL)
def langchain_anthropic(bodies: list[dict[str, Any]]) -> object:
    from langchain_anthropic import ChatAnthropic
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

    answers = []
    for body in bodies:
        model = ChatAnthropic(
            model=body["model"], api_key="any", max_tokens=body["max_tokens"], thinking=body.get("thinking"),
            temperature=body.get("temperature"),
        )  # fmt: skip
        bound = model.bind(**{key: body[key] for key in ("tools", "tool_choice") if key in body})
        kinds = {"user": HumanMessage, "assistant": AIMessage}
        messages = [SystemMessage(body["system"])] if "system" in body else []
        messages += [kinds[message["role"]](message["content"]) for message in body["messages"]]
        answers.append(list(bound.stream(messages)) if body["stream"] else bound.invoke(messages))
    assert all(answers)
    return answers


# pydantic-ai


@driver("pydantic-ai", THINKING)
def pydantic_thinking(_bodies: list[dict[str, Any]]) -> object:
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
    from pydantic_ai.providers.anthropic import AnthropicProvider

    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    settings = AnthropicModelSettings(anthropic_thinking=thinking, max_tokens=4096)
    model = AnthropicModel("claude-sonnet-4-0", provider=AnthropicProvider(api_key="any"), settings=settings)

    async def agent() -> str:
        async with Agent(model).run_stream(word("How do I cross the street?")) as result:
            return await result.get_output()

    answer = asyncio.run(agent())
    assert "street" in answer
    return answer


@driver("pydantic-ai", PARALLEL)
def pydantic_parallel(bodies: list[dict[str, Any]]) -> object:
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    model = AnthropicModel("claude-haiku-4-5", provider=AnthropicProvider(api_key="any"))
    agent = Agent(model, system_prompt=bodies[0]["system"], model_settings={"max_tokens": 4096})
    known = {
        "Alice": "alice is bob's wife",
        "Bob": "bob is alice's husband",
        "Charlie": "charlie is alice's son",
        "Daisy": "daisy is bob's daughter and charlie's younger sister",
    }

    @agent.tool_plain
    async def retrieve_entity_info(name: str) -> str:
        """Get the knowledge about the given entity."""
        return known[name]

    result = agent.run_sync(word("Alice, Bob, Charlie and Daisy are a family. Who is the youngest?"))
    assert "Daisy is the youngest" in result.output
    return result.output


@driver("pydantic-ai", OPENROUTER)
def pydantic_openrouter(_bodies: list[dict[str, Any]]) -> object:
    from pydantic_ai import Agent, ModelHTTPError
    from pydantic_ai.models.openrouter import OpenRouterModel
    from pydantic_ai.providers.openrouter import OpenRouterProvider

    model = OpenRouterModel("google/gemini-2.0-flash-exp:free", provider=OpenRouterProvider(api_key="any"))
    with pytest.raises(ModelHTTPError) as caught:
        Agent(model, instructions="Be helpful.").run_sync(word("Tell me a joke."))
    assert caught.value.status_code == 429
    return caught.value


@driver("openai", OPENROUTER)
def openai_openrouter(bodies: list[dict[str, Any]]) -> object:
    client = openai.OpenAI(base_url="https://openrouter.ai/api/v1", api_key="any")
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**bodies[0])
    return caught.value
