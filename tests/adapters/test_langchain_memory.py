"""A LangChain chat history in a real Redis: turns of real agents, sessions apart, expiry, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory

from oao_harness import ConfigError, DamagedError, Orchestrator, RedisChatMessageHistory, StoreError
from oao_harness.errors import CodecError
from pytest_oao.testing import RedisServer, ScriptedChatModel, ToolCall, ToolCallReply

# LangChain's own successor is a checkpointer; who uses this class has a reason to.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    try:
        found = RedisServer()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with found:
        yield found


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, decode_responses=True) as found:
        found.flushall()
        yield found


@pytest.fixture
def url(server: RedisServer, client: redis.Redis) -> str:
    return server.url


def texts(messages: list[BaseMessage]) -> list[str]:
    return [f"{message.type}: {message.text}" for message in messages]


def chat(model: Any, url: str) -> RunnableWithMessageHistory:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "be brief"), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    return RunnableWithMessageHistory(
        prompt | model,
        lambda session_id: RedisChatMessageHistory(session_id, url, ttl_s=60),
        input_messages_key="question",
        history_messages_key="history",
    )


def recalling(messages: list[BaseMessage]) -> str:
    """The scripted model's answer: what it was told so far."""
    return " / ".join(message.text for message in messages if message.type == "human")


def test_a_governed_conversation_over_several_turns(url: str) -> None:
    """The model is told what was said in this session before, and nothing of another one."""
    model = ScriptedChatModel(replies=[recalling] * 5)
    agent = chat(model, url)

    def ask(session: str, question: str) -> Any:
        config: Any = {"configurable": {"session_id": session}}
        return Orchestrator("standard").run(agent.with_config(config), {"question": question})

    assert ask("a", "one").result.text == "one"
    assert ask("b", "uno").result.text == "uno"
    report = ask("a", "two")
    assert (report.status, report.model_calls, report.result.text) == ("SUCCESS", 1, "one / two")
    assert ask("a", "three").result.text == "one / two / three"
    assert ask("b", "dos").result.text == "uno / dos"
    assert texts(RedisChatMessageHistory("a", url).messages) == [
        "human: one",
        "ai: one",
        "human: two",
        "ai: one / two",
        "human: three",
        "ai: one / two / three",
    ]


async def test_a_governed_conversation_in_a_loop(url: str) -> None:
    """The same by the async methods, two sessions at once, streamed too."""
    agent = chat(ScriptedChatModel(replies=[recalling] * 6), url)

    async def talk(session: str) -> list[str]:
        said = list[str]()
        for question in ("one", "two"):
            bound = agent.with_config({"configurable": {"session_id": session}})
            report = await Orchestrator("standard").run_async(bound, {"question": f"{session} {question}"})
            said.append(report.result.text)
        return said

    assert await asyncio.gather(talk("a"), talk("b")) == [["a one", "a one / a two"], ["b one", "b one / b two"]]
    config: Any = {"configurable": {"session_id": "a"}}
    streamed = [chunk.text async for chunk in agent.astream({"question": "a three"}, config)]
    assert "".join(streamed) == "a one / a two / a three"
    kept = await RedisChatMessageHistory("a", url).aget_messages()
    assert texts(kept)[-1] == "ai: a one / a two / a three"
    assert type(kept[-1]) is AIMessage


def test_an_agent_with_tools_remembers(url: str) -> None:
    """Calls of tools and their answers are kept whole; the next turn's model is given them."""

    def lookup(order: str) -> str:
        """Look up an order."""
        return f"{order} is lost"

    model = ScriptedChatModel(
        replies=[
            ToolCallReply(calls=(ToolCall(name="lookup", arguments={"order": "A-1"}),)),
            "A-1 is lost, sorry",
            lambda messages: f"{len(messages)} messages, the tool said: {messages[2].text}",
        ]
    )
    agent = create_agent(model, [lookup])

    def turn(task: str) -> str:
        history = RedisChatMessageHistory("orders", url)
        before = history.messages
        after = agent.invoke({"messages": [*before, HumanMessage(task)]})["messages"]
        history.add_messages(after[len(before) :])
        return str(after[-1].text)

    first = Orchestrator("standard").run(turn, "where is A-1?")
    assert (first.result, first.model_calls, first.tool_calls) == ("A-1 is lost, sorry", 2, 1)
    second = Orchestrator("standard").run(turn, "say it again")
    assert second.result == "5 messages, the tool said: A-1 is lost"
    kept = RedisChatMessageHistory("orders", url).messages
    assert [message.type for message in kept] == ["human", "ai", "tool", "ai", "human", "ai"]
    assert isinstance(kept[1], AIMessage)
    assert isinstance(kept[2], ToolMessage)
    assert kept[1].tool_calls[0]["args"] == {"order": "A-1"}
    assert kept[2].tool_call_id == kept[1].tool_calls[0]["id"]


def test_a_conversation_is_forgotten(url: str, client: redis.Redis) -> None:
    """So many seconds after the last write: each write begins them anew, reading does not."""
    history = RedisChatMessageHistory("a", url, ttl_s=0.4)
    history.add_messages([HumanMessage("one")])
    client.pexpire(history.key, 50)
    history.add_messages([AIMessage("two")])
    left_ms = client.pttl(history.key)
    assert isinstance(left_ms, int)
    assert 200 < left_ms <= 400
    assert len(history.messages) == 2
    give_up = time.monotonic() + 10
    while history.messages:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    RedisChatMessageHistory("b", url).add_messages([HumanMessage("for ever")])
    assert client.pttl("oao:chat:b") == -1


def test_appends_side_by_side(url: str) -> None:
    """Threads and loops lose nothing, and what was written together stays together."""
    failed: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            for n in range(10):
                pair = [HumanMessage(f"{writer} {n}"), AIMessage(f"{writer} {n}")]
                history = RedisChatMessageHistory("a", url, ttl_s=60)
                if writer % 2:
                    asyncio.run(history.aadd_messages(pair))
                else:
                    history.add_messages(pair)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    kept = RedisChatMessageHistory("a", url).messages
    assert len(kept) == 160
    for asked, answered in zip(kept[::2], kept[1::2], strict=True):
        assert (asked.type, answered.type) == ("human", "ai")
        assert asked.text == answered.text
    for writer in range(8):
        own = [message.text for message in kept[::2] if message.text.startswith(f"{writer} ")]
        assert own == [f"{writer} {n}" for n in range(10)]


async def test_the_newest_are_kept(url: str) -> None:
    """No more than so many; the answer of a tool is not handed out where its question is gone."""
    history = RedisChatMessageHistory("a", url, keep=3)
    calls: Any = [{"name": "f", "args": {}, "id": "1", "type": "tool_call"}]
    await history.aadd_messages(
        [HumanMessage("q"), AIMessage("", tool_calls=calls), ToolMessage("r", tool_call_id="1")]
    )
    assert len(await history.aget_messages()) == 3
    await history.aadd_messages([AIMessage("done"), HumanMessage("next")])
    assert texts(await history.aget_messages()) == texts(history.messages) == ["ai: done", "human: next"]


async def test_messages_come_back_as_they_were(url: str, client: redis.Redis) -> None:
    """Each kind, with its content, its extras and its characters; a chunk is the message that it is part of."""
    said = [
        SystemMessage("sei kurz \u2603 \U0001f600", id="s"),
        HumanMessage([{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:x"}}]),
        AIMessage("ok", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}, name="desk"),
    ]
    history = RedisChatMessageHistory("a", url, prefix="other:")
    history.add_messages([])
    assert client.keys() == []
    history.add_messages(said)
    history.add_message(AIMessageChunk("part"))
    assert client.keys() == ["other:a"]
    assert history.messages == [*said, AIMessage("part")]
    assert await history.aget_messages() == history.messages
    await history.aclear()
    assert history.messages == []
    history.add_user_message("hello")
    history.clear()
    assert client.keys() == []


def test_a_damaged_entry_is_named(url: str, client: redis.Redis) -> None:
    """Which one, what it is, and what to do; nothing is passed over in silence."""
    history = RedisChatMessageHistory("a", url)
    for wrong in ("no json", "[]", json.dumps({"type": "nonsense", "data": {"content": "x"}}), "\x80"):
        history.clear()
        history.add_messages([HumanMessage("fine")])
        client.rpush(history.key, wrong)
        with pytest.raises(DamagedError, match=r"entry 1 of the chat history 'oao:chat:a' in redis://127.*is no mess"):
            _ = history.messages
    client.delete(history.key)
    client.set(history.key, "somebody else's")
    with pytest.raises(StoreError, match=r"the chat history 'oao:chat:a' in redis://127.* failed: .*WRONGTYPE"):
        history.add_messages([HumanMessage("x")])


def test_what_cannot_be_kept(url: str) -> None:
    """Nothing of the messages is written."""
    history = RedisChatMessageHistory("a", url)
    with pytest.raises(CodecError, match=r"a message of session 'a' cannot be kept: .*plain data only"):
        history.add_messages([HumanMessage("fine"), AIMessage("", additional_kwargs={"raw": object()})])
    assert history.messages == []


async def test_the_server_is_away() -> None:
    """Every method says which server, without the password, and how it failed."""
    with RedisServer() as other:
        with redis.Redis.from_url(other.url) as client:
            client.config_set("requirepass", "secret")
        locked = RedisChatMessageHistory("a", other.url)
        with pytest.raises(StoreError, match="uthenticat"):
            _ = locked.messages
        url = other.url.replace("//", "//:secret@")
        history = RedisChatMessageHistory("a", url)
        history.add_messages([HumanMessage("x")])
        assert len(history.messages) == 1
    said = rf"^the chat history 'oao:chat:a' in redis://127\.0\.0\.1:{other.port}/0 failed: "
    methods: list[Callable[[], object]] = [
        lambda: history.messages,
        lambda: history.add_messages([HumanMessage("x")]),
        history.clear,
    ]
    for method in methods:
        with pytest.raises(StoreError, match=said) as caught:
            method()
        assert "secret" not in str(caught.value)
    for asked in (history.aget_messages(), history.aadd_messages([HumanMessage("x")]), history.aclear()):
        with pytest.raises(StoreError, match=said):
            await asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"session_id": ""}, "session_id='': give the conversation a name"),
        ({"url": "localhost:6379"}, r"the chat history's URL is wrong: .*; give redis://host:port/db"),
        ({"ttl_s": 0}, "ttl_s=0: give seconds, more than 0"),
        ({"ttl_s": float("inf")}, "ttl_s=inf: give seconds"),
        ({"keep": 0}, "keep=0: give a whole number >= 1"),
        ({"keep": True}, "keep=True: give a whole number >= 1"),
    ],
)
def test_mistakes_are_found_at_once(arguments: dict[str, Any], said: str) -> None:
    """Before any server is asked."""
    with pytest.raises(ConfigError, match=said):
        RedisChatMessageHistory(**{"session_id": "a", "url": "redis://localhost:1/0", **arguments})
