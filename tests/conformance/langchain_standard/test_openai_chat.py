"""ChatOpenAI in LangChain's standard suite for chat models, over real HTTP to a server on loopback.

`OAO_STANDARD_OFFLINE=1` starts no server: what is not replayed cannot be answered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip(
    "langchain_tests",
    reason="langchain-tests is not installed: its pins (vcrpy<9, a dozen plugins) need an environment of their own",
)

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from tests.adapters.holding import HoldingServer
from tests.conformance.langchain_standard.answers import answer

pytestmark = pytest.mark.filterwarnings("default")

OFFLINE = bool(os.environ.get("OAO_STANDARD_OFFLINE"))
# The port of the discard service: nobody listens.
NOBODY = "http://127.0.0.1:9/v1"
SERVER = HoldingServer(answer)


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    if OFFLINE:
        yield
        return
    with SERVER:
        yield


class TestOpenAIUnit(ChatModelUnitTests):
    """What the suite asks of the class alone."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "gpt-x", "api_key": "k"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"OPENAI_API_KEY": "k"}, {"model": "gpt-x"}, {"openai_api_key": "k"}


class TestOpenAIIntegration(ChatModelIntegrationTests):
    """What the suite asks of a model that answers, and the first chunk of a stream, which it does not look at."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "gpt-x", "api_key": "k", "base_url": NOBODY if OFFLINE else SERVER.url, "stream_usage": True,
            "max_retries": 0, "default_headers": {"connection": "close"},
        }  # fmt: skip

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "gpt-y"

    def test_first_chunk(self, model: BaseChatModel) -> None:
        """The first word comes while the server holds back the rest; on replay there is nobody who holds back."""
        SERVER.got_first.clear()
        words: list[str] = []
        for chunk in model.stream("Say good day."):
            if chunk.text:
                words.append(chunk.text.strip())
                SERVER.got_first.set()
        assert words == ["good", "day", "to", "you"]
