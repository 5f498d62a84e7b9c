"""Who waits for a run to end is told, by the server's messages. Owns the one connection they come by."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from redis.exceptions import RedisError

from oao_harness.schedulers.cancelling import cancelled
from oao_harness.schedulers.redis_entries import key_of

__all__ = ["LIVES_S", "Endings"]

_log: Final = logging.getLogger(__name__)
LIVES_S: Final = 3600
"""How long it is remembered that a run ended: for who had lost the connection at that moment."""
_PING_S: Final = 10.0


class Endings:
    """Tells that runs have ended, and waits for it.

    Each ending raises a counter, too: a message that was sent while the connection was broken is not sent again, but
    the counter shows it.

    Args:
        client: Of the server.
        listening: Another one, for which a broken connection is an error at once.
        prefix: What the fleet's keys begin with.
    """

    def __init__(self, client: Any, listening: Any, prefix: str) -> None:
        self._client = client
        self._listening = listening
        self._prefix = f"{prefix}:ended:"
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._pubsub: Any = None
        self._listener: asyncio.Task[None] | None = None
        self._changed = asyncio.Lock()
        self._closed = False

    def channel(self, key: str) -> str:
        """Return where the end of a job is told."""
        return self._prefix + key

    async def tell(self, execution_id: str) -> None:
        """Tell everybody that a run has ended."""
        name = self.channel(key_of(execution_id))
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.incr(name)
            pipe.expire(name, LIVES_S)
            pipe.publish(name, "1")
            await pipe.execute()

    async def wait(self, execution_id: str, timeout_s: float) -> bool:
        """Return True as soon as it is told, False after the time."""
        name = self.channel(key_of(execution_id))
        try:
            async with asyncio.timeout(timeout_s):
                return await self._told(name)
        except TimeoutError:
            return False

    async def _told(self, name: str) -> bool:
        before = await self._client.get(name)
        event = asyncio.Event()
        self._waiting.setdefault(name, []).append(event)
        try:
            await self._listen(name)
            while await self._client.get(name) == before:
                event.clear()
                # Set by the message, and whenever the channel is listened to anew.
                await event.wait()
            return True
        finally:
            waiting = self._waiting[name]
            waiting.remove(event)
            if not waiting:
                del self._waiting[name]
                await self._leave(name)

    async def _listen(self, name: str) -> None:
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._hear())
        try:
            async with self._changed:
                if self._pubsub is not None:
                    await self._pubsub.subscribe(name)
        except (RedisError, OSError):
            # The listener finds out, and asks for all that is waited for.
            return

    async def _leave(self, name: str) -> None:
        try:
            async with self._changed:
                if name not in self._waiting and self._pubsub is not None:
                    await self._pubsub.unsubscribe(name)
        except (RedisError, OSError):
            # As above.
            return

    async def _hear(self) -> None:
        # The client may take a cancellation for a lost connection.
        while not self._closed:
            try:
                async with self._listening.pubsub() as pubsub:
                    await pubsub.subscribe(self._prefix, *self._waiting)
                    self._pubsub = pubsub
                    await self._hear_on(pubsub)
            except (RedisError, OSError):
                _log.warning("who waits for runs has lost the server; trying again", exc_info=True)
                await asyncio.sleep(0.2)
            finally:
                self._pubsub = None

    async def _hear_on(self, pubsub: Any) -> None:
        asked = False
        while True:
            message = await pubsub.get_message(timeout=_PING_S)
            if message is None:
                if asked:
                    raise ConnectionError("no answer to a ping")
                await pubsub.ping()
                asked = True
                continue
            asked = False
            if message["type"] in {"message", "subscribe"}:
                for event in self._waiting.get(message["channel"].decode(), ()):
                    event.set()

    async def close(self) -> None:
        """Stop listening."""
        self._closed = True
        if self._listener is not None:
            await cancelled([self._listener])
            self._listener = None
