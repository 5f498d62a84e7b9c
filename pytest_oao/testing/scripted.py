"""A chat model that follows a script: no network, no framework, and governed like every other model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from oao_harness.adapters.governed import mark_governed, model
from oao_hookspecs import Json
from pytest_oao.testing.replies import TextReply, ToolCallReply
from pytest_oao.testing.script import NumberedReply, Script, ScriptedReply, Step, words

if TYPE_CHECKING:
    from pytest_oao.testing.scripted_langchain import ScriptedChatModel

__all__ = ["ScriptedModel"]

Messages: TypeAlias = "str | Sequence[Mapping[str, Any]]"
Tools: TypeAlias = "Sequence[Mapping[str, Any]] | None"


class ScriptedModel:
    """Answer each call with the next reply of a script, as a function marked `@oao_harness.model` would.

    Calls pass the gate: they are counted, judged, recorded, and answered by a recording where there is one. A reply is
    used up when the model is really asked; a call that a recording answers uses up none. Where a recording answers
    only the beginning (`--oao-record=new`) give a function of the messages, which needs no order.

    Called, it returns `{"role": "assistant", "content": str, "tool_calls": [{"id", "name", "arguments"}], "usage":
    {"input_tokens", "output_tokens"}}`: a message to append to the conversation. The n-th request gets the ids
    `call_n_1`, `call_n_2` ...

    Example:
        ```python
        model = ScriptedModel([
            ToolCallReply(calls=(ToolCall(name="lookup", arguments={"id": "123"}),)),
            "refunded 49.99",
        ])
        [call] = model([{"role": "user", "content": "order 123"}])["tool_calls"]
        paid = lookup(**call["arguments"])
        assert model([...])["content"] == "refunded 49.99"
        assert model.left == 0
        ```

    Args:
        replies: Given in order: a str, `TextReply`, `ToolCallReply`, `ErrorReply` (raised as `ScriptedError`), an
            exception, or a function of the messages that returns one of these. Or one such function for all calls.
        name: The model's id: in policies, recordings and prices.

    Raises:
        TypeError: A reply is none of these.
    """

    def __init__(
        self, replies: Iterable[Step] | Callable[[Any], ScriptedReply], *, name: str = "scripted-model"
    ) -> None:
        self.name = name
        self._script = Script(replies, name)
        govern = model(name=name)
        self._call = govern(self._ask)
        self._acall = govern(self._aask)
        self._chunks = govern(self._stream)
        self._achunks = govern(self._astream)
        # oao looks for what is governed among the things that an agent refers to.
        mark_governed(self)

    def __repr__(self) -> str:
        return f"ScriptedModel(name={self.name!r}, left={self.left})"

    @property
    def requests(self) -> list[Any]:
        """The conversations the model was asked with, copied; without those that a recording answered."""
        return self._script.requests

    @property
    def left(self) -> int:
        """How many replies were not used yet; 0 where a function makes them."""
        return self._script.left

    def __call__(self, messages: Messages, tools: Tools = None) -> dict[str, Any]:
        """Answer a conversation.

        Args:
            messages: A text, or messages as mappings.
            tools: Schemas of the tools the model may ask for; the script does not look at them.

        Raises:
            ScriptEndedError: There are no more replies.
            ScriptedError: The reply is an `ErrorReply`.
        """
        return self._call(messages, **_given(tools))

    async def acall(self, messages: Messages, tools: Tools = None) -> dict[str, Any]:
        """Answer a conversation; see `__call__`."""
        return await self._acall(messages, **_given(tools))

    def stream(self, messages: Messages, tools: Tools = None) -> Iterator[dict[str, Any]]:
        """Answer word by word: `{"content": str}` each, and last what `__call__` returns, with `"content": ""`."""
        return self._chunks(messages, **_given(tools))

    def astream(self, messages: Messages, tools: Tools = None) -> AsyncIterator[dict[str, Any]]:
        """Answer word by word; see `stream`."""
        return self._achunks(messages, **_given(tools))

    def as_langchain(self) -> ScriptedChatModel:
        """Return a LangChain chat model that follows the same script.

        Raises:
            ModuleNotFoundError: `langchain-core` is not installed; the extra `langchain` has it.
        """
        from pytest_oao.testing.scripted_langchain import ScriptedChatModel  # noqa: PLC0415 - an extra

        return ScriptedChatModel(replies=self._script, model=self.name)

    # What the gate lets happen

    def _ask(self, messages: Messages, tools: Tools = None) -> dict[str, Any]:
        found = self._script.next(messages)
        time.sleep(found.reply.delay_s)
        return _message(found, found.reply.text)

    async def _aask(self, messages: Messages, tools: Tools = None) -> dict[str, Any]:
        found = self._script.next(messages)
        await asyncio.sleep(found.reply.delay_s)
        return _message(found, found.reply.text)

    def _stream(self, messages: Messages, tools: Tools = None) -> Iterator[dict[str, Any]]:
        found = self._script.next(messages)
        time.sleep(found.reply.delay_s)
        for chunk in _parts(found):
            time.sleep(found.reply.chunk_delay_s)
            yield chunk

    async def _astream(self, messages: Messages, tools: Tools = None) -> AsyncIterator[dict[str, Any]]:
        found = self._script.next(messages)
        await asyncio.sleep(found.reply.delay_s)
        for chunk in _parts(found):
            await asyncio.sleep(found.reply.chunk_delay_s)
            yield chunk


def _given(tools: Tools) -> dict[str, Any]:
    return {} if tools is None else {"tools": tools}


def _parts(found: NumberedReply) -> Iterator[dict[str, Any]]:
    yield from ({"content": word} for word in words(found.reply.text))
    yield _message(found, "")


def _message(found: NumberedReply, content: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": found.tool_calls(),
        "usage": _usage(found.reply),
    }


def _usage(reply: TextReply | ToolCallReply) -> dict[str, Json]:
    return {"input_tokens": cast("Json", reply.input_tokens), "output_tokens": reply.output_tokens}
