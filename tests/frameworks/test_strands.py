"""Strands Agents, in every way that they can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("strands.agent.agent", reason="strands-agents is not installed: it has an environment of its own")

from strands import Agent, tool
from strands.models.openai import OpenAIModel
from strands.models.openai_responses import OpenAIResponsesModel

from pytest_oao.testing.adapter import AdapterCase, AdapterConformance


class Strands(AdapterCase):
    """Agents whose model speaks Chat Completions."""

    name = "strands"
    model: type[Any] = OpenAIModel

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        model = self.model(client_args={"base_url": url, "api_key": "k", "max_retries": 0}, model_id="scripted")
        return Agent(model=model, tools=[tool(function) for function in tools], callback_handler=None)

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        async def ask(task: str) -> str:
            return "".join([event["data"] async for event in agent.stream_async(task) if "data" in event])

        return ask

    def text(self, output: object) -> str:
        return str(output).removesuffix("\n")


class Responses(Strands):
    """Agents whose model speaks Responses."""

    model = OpenAIResponsesModel


class TestChatCompletions(AdapterConformance):
    """What every adapter promises."""

    case = Strands()


class TestResponses(AdapterConformance):
    """As above, over the other protocol."""

    case = Responses()
