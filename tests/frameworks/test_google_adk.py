"""Google's Agent Development Kit, in every way that it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

pytest.importorskip(
    "google.adk.models.base_llm", reason="google-adk is not installed: it has an environment of its own"
)

from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.models import Gemini
from google.adk.runners import InMemoryRunner
from google.genai import types

from pytest_oao.testing import GeminiServer
from pytest_oao.testing.adapter import AdapterCase, AdapterConformance, ModelServer
from pytest_oao.testing.replies import Reply


def gemini(url: str) -> Gemini:
    return Gemini(model="scripted", client_kwargs={"api_key": "k", "http_options": {"base_url": url}})


class ADK(AdapterCase):
    """Agents whose model is Gemini, over google-genai."""

    name = "google-adk"

    def server(self, replies: Sequence[Reply | str]) -> AbstractContextManager[ModelServer]:
        return GeminiServer(replies=replies)

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        return LlmAgent(name="assistant", model=gemini(url), tools=list(tools))

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        async def ask(task: str) -> str:
            runner = InMemoryRunner(agent=agent)
            session = await runner.session_service.create_session(app_name=runner.app_name, user_id="u")
            text = ""
            async for event in runner.run_async(
                user_id="u",
                session_id=session.id,
                new_message=types.UserContent(task),
                run_config=RunConfig(streaming_mode=StreamingMode.SSE),
            ):
                if event.partial and event.content:
                    text += "".join(part.text or "" for part in event.content.parts or ())
            return text

        return ask

    def text(self, output: Any) -> str:
        from oao_harness.adapters.google_adk import ADAPTER

        return str(ADAPTER.output(output))


class TestGemini(AdapterConformance):
    """What every adapter promises."""

    case = ADK()
