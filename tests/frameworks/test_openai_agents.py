"""The OpenAI Agents SDK, in every way that it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("agents.run", reason="openai-agents is not installed: it has an environment of its own in CI")

from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

from pytest_oao.testing.adapter import AdapterCase, AdapterConformance

set_tracing_disabled(True)


class OpenAIAgents(AdapterCase):
    """Agents whose model speaks Chat Completions."""

    name = "openai-agents"
    model: type[Any] = OpenAIChatCompletionsModel

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        model = self.model("scripted", AsyncOpenAI(base_url=url, api_key="k"))
        return Agent(name="assistant", model=model, tools=[function_tool(tool) for tool in tools])

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        async def ask(task: str) -> str:
            running = Runner.run_streamed(agent, task)
            async for _ in running.stream_events():
                pass
            return str(running.final_output)

        return ask

    def text(self, output: object) -> str:
        return str(getattr(output, "final_output", output))


class Responses(OpenAIAgents):
    """Agents whose model speaks Responses."""

    model = OpenAIResponsesModel


class TestChatCompletions(AdapterConformance):
    """What every adapter promises."""

    case = OpenAIAgents()


class TestResponses(AdapterConformance):
    """As above, over the other protocol."""

    case = Responses()
