"""smolagents, in every way that it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

pytest.importorskip("smolagents.agents", reason="smolagents is not installed: it has an environment of its own in CI")

from smolagents import FinalAnswerStep, OpenAIModel, ToolCallingAgent
from smolagents import tool as as_tool

from pytest_oao.testing import OpenAIServer, TextReply, ToolCall, ToolCallReply
from pytest_oao.testing.adapter import AdapterCase, AdapterConformance, ModelServer
from pytest_oao.testing.replies import Reply


def answering(reply: Reply | str) -> Reply | str:
    """A model answers a `ToolCallingAgent` by asking for its last tool."""
    if not isinstance(reply, TextReply):
        return reply
    return ToolCallReply(calls=(ToolCall(name="final_answer", arguments={"answer": reply.text}),))


class Smolagents(AdapterCase):
    """Agents that ask for tools by name."""

    name = "smolagents"

    def server(self, replies: Sequence[Reply | str]) -> AbstractContextManager[ModelServer]:
        return OpenAIServer(replies=[answering(reply) for reply in replies])

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        model = OpenAIModel("scripted", api_base=url, api_key="k", client_kwargs={"max_retries": 0}, retry=False)
        return ToolCallingAgent(
            tools=[as_tool(function) for function in tools], model=model, max_steps=4, verbosity_level=0
        )

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        agent.stream_outputs = True

        def ask(task: str) -> str:
            steps = list(agent.run(task, stream=True))
            return str(next(step.output for step in steps if isinstance(step, FinalAnswerStep)))

        return ask


class TestToolCalling(AdapterConformance):
    """What every adapter promises."""

    case = Smolagents()
