"""What every adapter promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

import parrot
import pytest
from oao_parrot import leaves, plugin

from oao_harness import FrameworkError, Orchestrator
from pytest_oao.testing import AdapterCase, AdapterConformance, OpenAIServer, TextReply, ToolCall, ToolCallReply

# Where it is installed it is found; a plugin cannot be there twice.
PLUGINS = () if entry_points(group="oao", name="oao-parrot") else (plugin,)


class ParrotCase(AdapterCase):
    """Agents of Parrot. They know no streams; a loop waits beside them."""

    name = "parrot"
    ways = ("sync", "async")
    plugins = PLUGINS

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        return parrot.Agent(parrot.Model("scripted", url), tools)


class TestParrot(AdapterConformance):
    """By inheritance."""

    case = ParrotCase()


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def test_an_agent_is_driven_as_it_is() -> None:
    """The adapter finds it, the model and the tool are counted, and the agent is not changed."""
    asks = ToolCallReply(calls=(ToolCall(name="add", arguments={"a": 1, "b": 2}),))
    with OpenAIServer(replies=[asks, TextReply(text="it is 3")]) as server:
        agent = parrot.Agent(parrot.Model("scripted", server.url), [add])
        report = Orchestrator(plugins=PLUGINS).run(agent, "what is 1 + 2?")

    assert (report.status, report.final_output) == ("SUCCESS", "it is 3")
    assert (report.model_calls, report.tool_usage) == (2, {"add": 1})
    assert agent.tools == [add]


def test_another_parrot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its leaves may be elsewhere."""
    monkeypatch.setattr(parrot, "__version__", "3.0")
    with pytest.raises(FrameworkError, match=r"governs 2\.x"):
        leaves.install()
