"""LangChain's chat model that follows a script: every way to call it, tools, structured output, usage, the gate."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from oao_harness import Orchestrator
from pytest_oao.testing import (
    ErrorReply,
    ScriptedChatModel,
    ScriptedError,
    ScriptedModel,
    ScriptEndedError,
    TextReply,
    ToolCall,
    ToolCallReply,
)

ASKS = ToolCallReply(
    calls=(ToolCall(name="lookup", arguments={"id": "1"}), ToolCall(name="lookup", arguments={"id": "2"})), text="so:"
)


@tool
def lookup(id: str) -> str:
    """Find an order."""
    return f"order {id}"


class Answer(BaseModel):
    """The answer."""

    amount: float


def _summed(chunks: list[Any]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


async def test_it_answers_alike_in_every_way_of_calling_it() -> None:
    """invoke, ainvoke, stream, astream, batch: same text, same calls, same usage."""
    model = ScriptedChatModel(replies=[ASKS] * 5)
    messages: list[Any] = [model.invoke("hi"), await model.ainvoke("hi"), _summed(list(model.stream("hi")))]
    messages.append(_summed([chunk async for chunk in model.astream("hi")]))
    messages += model.batch(["hi"])

    for number, message in enumerate(messages, start=1):
        assert message.text == "so:"
        assert [(call["name"], call["args"], call["id"]) for call in message.tool_calls] == [
            ("lookup", {"id": "1"}, f"call_{number}_1"),
            ("lookup", {"id": "2"}, f"call_{number}_2"),
        ]
        assert message.usage_metadata["total_tokens"] == 15
        assert message.response_metadata["model_name"] == "scripted-model"
    assert isinstance(messages[0], AIMessage)
    assert not isinstance(messages[0], AIMessageChunk)
    assert model.left == 0
    assert model.requests == [[HumanMessage("hi")]] * 5


def test_a_stream_comes_in_words_and_calls_in_parts() -> None:
    """A consumer that does not join chunks must fail."""
    model = ScriptedChatModel(replies=["two words", ASKS])

    assert [chunk.text for chunk in model.stream("hi") if chunk.text] == ["two ", "words"]
    parts = [chunk.tool_call_chunks for chunk in model.stream("hi") if chunk.tool_call_chunks]
    assert len(parts) == 4


def test_tools_can_be_bound_and_are_called_by_an_agent() -> None:
    """`create_agent` runs its loop on the script, under the gate."""
    from langchain.agents import create_agent

    model = ScriptedModel([ASKS, "both found"], name="gpt-x").as_langchain()
    agent = create_agent(model, [lookup])

    report = Orchestrator(policy="strict").run(agent, {"messages": [("user", "find 1 and 2")]})

    assert report.status == "SUCCESS", report.error
    texts = [message.text for message in model.requests[1]]
    assert texts[-2:] == ["order 1", "order 2"]
    assert model.left == 0


def test_structured_output_is_the_call_of_its_tool() -> None:
    """The arguments are parsed and checked as a real model's would be."""
    model = ScriptedChatModel(replies=[ToolCallReply(calls=(ToolCall(name="Answer", arguments={"amount": 49.99}),))])

    assert model.with_structured_output(Answer).invoke("how much?") == Answer(amount=49.99)


def test_broken_json_is_an_invalid_tool_call() -> None:
    """As with a real model that writes it."""
    model = ScriptedChatModel(replies=[ToolCallReply(calls=(ToolCall(name="lookup", arguments='{"id": '),))])

    message = model.invoke("hi")

    assert message.tool_calls == []
    assert [(call["name"], call["args"]) for call in message.invalid_tool_calls] == [("lookup", '{"id": ')]


def test_errors_functions_and_the_end_of_the_script() -> None:
    """As in the plain model; a function gets LangChain's messages."""
    model = ScriptedChatModel(
        replies=[ErrorReply(status=500, message="down"), lambda messages: f"you said {messages[-1].text}"]
    )

    with pytest.raises(ScriptedError, match="500: down"):
        model.invoke("hi")
    assert model.invoke("hi").text == "you said hi"
    with pytest.raises(ScriptEndedError, match=r"request 3 came, but 2 replies were scripted; it asks human: 'hi'"):
        model.invoke("hi")


def test_retries_and_fallbacks_of_langchain_work_on_it() -> None:
    """Each attempt uses up a reply."""
    model = ScriptedChatModel(replies=[ErrorReply(status=429, message="slow down"), "ok"])
    assert model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).invoke("hi").text == "ok"

    broken = ScriptedChatModel(replies=[RuntimeError("down")])
    spare = ScriptedChatModel(replies=["spare"])
    assert broken.with_fallbacks([spare]).invoke("hi").text == "spare"


async def test_a_delay_does_not_block_the_loop() -> None:
    """Others go on while an answer is slow."""
    model = ScriptedChatModel(replies=[TextReply(text="a", delay_s=0.2)])
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.005)

    task = asyncio.create_task(others())
    await model.ainvoke("1")
    task.cancel()
    assert turns > 2


def test_the_script_is_no_part_of_the_request() -> None:
    """It must not get into recordings, caches or traces."""
    model = ScriptedChatModel(replies=["the secret plan"])

    assert "secret plan" not in repr(model) + str(model.asdict()) + model.model_dump_json()


def test_the_plain_model_shares_its_script() -> None:
    """Half of an agent may use LangChain."""
    plain = ScriptedModel(["one", "two"])
    chat = plain.as_langchain()

    assert plain("hi")["content"] == "one"
    assert chat.invoke("hi").text == "two"
    assert (plain.left, chat.left) == (0, 0)
