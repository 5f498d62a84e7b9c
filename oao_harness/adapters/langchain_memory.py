"""What was said in a conversation, kept in Redis for LangChain, by commands that every Redis and Valkey has.

Needs the extras `langchain` and `redis`. It is the agent's memory and no journal: reading it is no call of the gate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import redis
import redis.asyncio
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import (
    BaseMessage,
    BaseMessageChunk,
    ToolMessage,
    message_chunk_to_message,
    messages_from_dict,
    messages_to_dict,
)
from redis import connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from oao_harness.errors import CodecError, ConfigError, DamagedError, StoreError

__all__ = ["RedisChatMessageHistory"]

_TIMEOUT_S: Final = 5.0
_SHOWN: Final = 80


class RedisChatMessageHistory(BaseChatMessageHistory):
    """The messages of one conversation, as a Redis list.

    Each write is one transaction, so that two writers never come between each other's messages, and a conversation
    never stays without its expiry. Nothing is open between two calls: an object may be made for each turn, and used in
    any thread, event loop and process.

    Example:
        ```python
        def history(session_id: str) -> RedisChatMessageHistory:
            return RedisChatMessageHistory(session_id, "redis://localhost:6379/0", ttl_s=7 * 86400)

        agent = RunnableWithMessageHistory(prompt | model, history, input_messages_key="question",
                                           history_messages_key="history")
        config = {"configurable": {"session_id": "customer-17"}}
        report = Orchestrator("standard").run(agent.with_config(config), {"question": "Where is my order?"})
        ```

    Args:
        session_id: Which conversation; not empty.
        url: `redis://[[user]:password@]host[:port][/db]`, `rediss://` for TLS, with the options of redis-py.
        ttl_s: Seconds after the last write in which it is forgotten, > 0; None never.
        prefix: What its key begins with, before the session's id.
        keep: How many of the newest messages are kept, >= 1; None all of them. Answers of tools whose question was
            dropped are not handed out.

    Raises:
        ConfigError: The URL or a number is wrong, or the session has no id.
    """

    def __init__(
        self,
        session_id: str,
        url: str = "redis://localhost:6379/0",
        *,
        ttl_s: float | None = None,
        prefix: str = "oao:chat:",
        keep: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(cast("object", session_id), str) or not session_id:
            raise ConfigError(f"session_id={session_id!r}: give the conversation a name")
        if ttl_s is not None and not 0.001 <= ttl_s < math.inf:
            raise ConfigError(f"ttl_s={ttl_s!r}: give seconds, more than 0, or None to keep it for ever")
        if keep is not None and (isinstance(keep, bool) or not isinstance(cast("object", keep), int) or keep < 1):
            raise ConfigError(f"keep={keep!r}: give a whole number >= 1, or None to keep all messages")
        try:
            place: Mapping[str, Any] = cast("Any", connection).parse_url(url)
        except ValueError as error:
            raise ConfigError(f"the chat history's URL is wrong: {error}; give redis://host:port/db") from error
        self.session_id = session_id
        self.ttl_s = ttl_s
        self.keep = keep
        self.key = f"{prefix}{session_id}"
        self._url = url
        where = place.get("path") or f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"
        self._name = f"redis://{where}/{place.get('db') or 0}"

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """All messages, the oldest first; see `aget_messages` for the errors."""
        try:
            with self._client(redis.Redis) as client:
                found = client.lrange(self.key, 0, -1)
        except (redis.RedisError, OSError) as error:
            raise self._failure(error) from error
        return self._decoded(found)

    async def aget_messages(self) -> list[BaseMessage]:
        """Return all messages, the oldest first.

        Raises:
            StoreError: The server failed.
            DamagedError: What is kept is no message.
        """
        try:
            async with self._client(redis.asyncio.Redis) as client:
                found = await client.lrange(self.key, 0, -1)
        except (redis.RedisError, OSError) as error:
            raise self._failure(error) from error
        return self._decoded(found)

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append messages, all or none; see `aadd_messages` for the errors."""
        if not (entries := self._encoded(messages)):
            return
        try:
            with self._client(redis.Redis) as client:
                self._written(client.pipeline(transaction=True), entries).execute()
        except (redis.RedisError, OSError) as error:
            raise self._failure(error) from error

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append messages, all or none.

        Args:
            messages: In the order they were said.

        Raises:
            StoreError: The server failed. It is not asked again by itself: the messages may be there.
            CodecError: A message holds what is no plain data.
        """
        if not (entries := self._encoded(messages)):
            return
        try:
            async with self._client(redis.asyncio.Redis) as client:
                await self._written(client.pipeline(transaction=True), entries).execute()
        except (redis.RedisError, OSError) as error:
            raise self._failure(error) from error

    def clear(self) -> None:
        """Forget the conversation.

        Raises:
            StoreError: The server failed.
        """
        try:
            with self._client(redis.Redis) as client:
                client.delete(self.key)
        except (redis.RedisError, OSError) as error:
            raise self._failure(error) from error

    async def aclear(self) -> None:
        """Forget the conversation; see `clear`."""
        try:
            async with self._client(redis.asyncio.Redis) as client:
                await client.delete(self.key)
        except (redis.RedisError, OSError) as error:
            raise self._failure(error) from error

    def _client(self, kind: Any) -> Any:
        return kind.from_url(
            self._url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            # Where an answer got lost the messages may be there already, and must not be said twice.
            retry=Retry(NoBackoff(), 0) if kind is redis.Redis else AsyncRetry(NoBackoff(), 0),
        )

    def _written(self, transaction: Any, entries: Sequence[str]) -> Any:
        transaction.rpush(self.key, *entries)
        if self.keep is not None:
            transaction.ltrim(self.key, -self.keep, -1)
        if self.ttl_s is not None:
            transaction.pexpire(self.key, math.ceil(self.ttl_s * 1000))
        return transaction

    def _encoded(self, messages: Sequence[BaseMessage]) -> list[str]:
        # A streamed answer is put together of chunks, and is kept as the message that it is.
        whole = [message_chunk_to_message(m) if isinstance(m, BaseMessageChunk) else m for m in messages]
        try:
            return [json.dumps(one) for one in messages_to_dict(whole)]
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(
                f"a message of session {self.session_id!r} cannot be kept: {error}; a message holds plain data only"
            ) from error

    def _decoded(self, entries: Sequence[bytes | str]) -> list[BaseMessage]:
        found = [self._message(index, entry) for index, entry in enumerate(entries)]
        if self.keep is not None:
            # No model takes the answer of a tool whose question was dropped.
            while found and isinstance(found[0], ToolMessage):
                del found[0]
        return found

    def _message(self, index: int, entry: bytes | str) -> BaseMessage:
        try:
            return messages_from_dict([json.loads(entry)])[0]
        except Exception as error:
            shown = entry[:_SHOWN] if isinstance(entry, str) else entry[:_SHOWN].decode("utf-8", "replace")
            raise DamagedError(
                f"entry {index} of the chat history {self.key!r} in {self._name} is no message: {shown!r}; take it "
                f"out, or forget the conversation with clear()"
            ) from error

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(f"the chat history {self.key!r} in {self._name} failed: {error}")
