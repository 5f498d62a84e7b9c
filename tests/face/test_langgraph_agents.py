"""The first ten minutes of a developer: agents and tests that nobody edited, over real HTTP, then without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_oao.testing import OpenAIServer, Reply, TextReply, ToolCall, ToolCallReply
from tests import forked

pytest.importorskip("langchain_openai", reason="langchain and langchain-openai are not installed")

ROOT = Path(__file__).parents[2]

AGENTS = """
import os
from typing import Annotated, TypedDict
from langchain.agents import create_agent
from langchain_core.messages import AnyMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition

BODIES = []
VAT = 1

@tool
def price(item: str) -> str:
    "The price of an item."
    BODIES.append(item)
    return f"{item}: 10"

@tool
def pay(amount: int) -> str:
    "Pay."
    BODIES.append(amount)
    return f"paid {amount}"

def model(**more):
    return ChatOpenAI(model="gpt-4o-mini", base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0, **more)

agent = create_agent(model(), [price, pay], system_prompt="You shop with care.")

class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]

def hand_written():
    bound = model().bind_tools([price])

    def think(state):
        return {"messages": [bound.invoke([SystemMessage("You shop with care."), *state["messages"]])]}

    def settle(state):
        return {"messages": [("assistant", pay.invoke({"amount": 20 * VAT}))]}

    graph = StateGraph(State)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode([price]))
    graph.add_node("settle", settle)
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition, {"tools": "tools", "__end__": "settle"})
    graph.add_edge("tools", "think")
    return graph.compile()
"""
TESTS = """
import agents
import pytest

QUESTION = {"messages": [{"role": "user", "content": "Buy a pear and an apple."}]}

def test_create_agent():
    assert "20 in all" in agents.agent.invoke(QUESTION)["messages"][-1].text

def test_hand_written():
    assert agents.hand_written().invoke(QUESTION)["messages"][-1].text == f"paid {20 * agents.VAT}"

def test_stream():
    chunks = [chunk for chunk, _ in agents.agent.stream(QUESTION, stream_mode="messages")]
    assert "20 in all" in "".join(chunk.text for chunk in chunks if chunk.type == "AIMessageChunk")

@pytest.mark.asyncio
async def test_async():
    assert "20 in all" in (await agents.agent.ainvoke(QUESTION))["messages"][-1].text

@pytest.mark.asyncio
async def test_events():
    events = [event async for event in agents.hand_written().astream_events(QUESTION)]
    assert {"on_tool_end", "on_chat_model_stream"} <= {event["event"] for event in events}

def test_last_counts():
    print("BODIES", len(agents.BODIES))
"""


def shop(body: dict[str, Any]) -> Reply:
    if body["messages"][-1]["role"] == "tool":
        return TextReply(text="That is 20 in all.")
    calls = tuple(ToolCall(name="price", arguments={"item": item}) for item in ("pear", "apple"))
    return ToolCallReply(calls=calls)


class Project:
    """A folder with agents and tests, and the model server of its developer."""

    def __init__(self, folder: Path, server: OpenAIServer) -> None:
        self.folder = folder
        self.server = server
        self.url = server.url
        self.write()

    def write(self, before: str = "", after: str = "") -> None:
        assert before in AGENTS
        (self.folder / "agents.py").write_text(AGENTS.replace(before, after) if before else AGENTS)
        (self.folder / "test_agents.py").write_text(TESTS)

    def pytest(self, *options: str) -> str:
        """Run pytest as the developer would and return what it printed."""
        path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
        plugins = ["-p", "pytest_oao.plugin", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
        words = ["pytest", "-s", "-W", "ignore", *plugins, *options]
        env = {**os.environ, "PYTHONPATH": path, "MODEL_URL": self.url, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = forked.run(words, cwd=self.folder, env=env, frameworks=True)
        return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Recorded once; the server is stopped afterwards."""
    server = OpenAIServer(respond=shop)
    with server:
        project = Project(tmp_path_factory.mktemp("project"), server)
        recorded = project.pytest("--oao-record=once", "--oao-policy=strict")
    assert "6 passed" in recorded, recorded
    assert "BODIES 12" in recorded
    assert len(server.requests) == 10
    return project


@pytest.fixture(autouse=True)
def _as_it_was(project: Project) -> Iterator[None]:
    yield
    project.write()


def test_everything_replays_with_the_server_stopped(project: Project) -> None:
    """invoke, stream, ainvoke, astream_events, parallel tools: 0 requests, 0 tool bodies; twice the same."""
    for _ in range(2):
        replayed = project.pytest("--oao-policy=strict")
        assert "6 passed" in replayed, replayed
        assert "BODIES 0" in replayed
    assert len(project.server.requests) == 10


def test_one_file_a_test_is_committed(project: Project) -> None:
    """Readable: the prompt is in it once."""
    files = sorted(path.name for path in (project.folder / "recordings" / "test_agents").iterdir())

    assert files == [f"test_{name}.oao.json" for name in ("async", "create_agent", "events", "hand_written", "stream")]
    text = (project.folder / "recordings" / "test_agents" / "test_hand_written.oao.json").read_text()
    assert text.count("You shop with care.") == 1


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            "You shop with care",
            "You shop with speed",
            "step 1 model gpt-4o-mini: system prompt changed (replay diverged)",
        ),
        ("VAT = 1", "VAT = 2", "step 5 tool pay: amount 20 -> 40 (replay diverged)"),
        ('"The price of an item."', '"What an item costs."', "step 1 model gpt-4o-mini: offered tools changed"),
        ("model().bind", "model(temperature=1).bind", "step 1 model gpt-4o-mini: temperature"),
    ],
    ids=["prompt", "argument", "tool schema", "parameter"],
)
def test_a_change_fails_with_a_one_line_reason(project: Project, before: str, after: str, line: str) -> None:
    """Nothing goes live, no body runs."""
    project.write(before, after)

    failed = project.pytest(
        "--oao-policy=strict", "test_agents.py::test_hand_written", "test_agents.py::test_last_counts"
    )

    assert any(found.startswith(line) for found in failed.splitlines()), failed
    assert "1 failed, 1 passed" in failed
    assert "BODIES 0" in failed
    assert len(project.server.requests) == 10


def test_a_denied_tool_fails_with_a_one_line_reason(project: Project) -> None:
    """Policies judge the replay too, and the whole batch before any of it."""
    (project.folder / "rules.py").write_text("from oao_harness import ToolPolicy\nRULES = ToolPolicy(deny=['price'])\n")

    failed = project.pytest("--oao-policy=rules:RULES", "test_agents.py::test_create_agent")

    assert "policy violation: tools.deny: tool price is denied" in failed.splitlines()
    assert "1 failed" in failed
