"""What the proxy over HTTP knows of its clients: their sessions, and their requests that have no answer yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final

from oao_harness.mcp.events import Events, data_of, with_data
from oao_harness.mcp.guard import Guard
from oao_harness.mcp.lists import Lists
from oao_harness.mcp.messages import Message, UnreadableError, key_of_id, read
from oao_harness.mcp.sessions import RemoteError, Session

__all__ = ["Client", "Clients", "PendingCall"]

_MOST_SESSIONS: Final = 10_000
_SAMPLING: Final = "sampling/createMessage"

Reply = Callable[[bytes], Awaitable[None]]
"""Answers the server in the client's place."""


class PendingCall:
    """A call of a tool on its way.

    Args:
        client: Whose.
        message: The request.
    """

    def __init__(self, client: Client, message: Message) -> None:
        self._client, self._message = client, message
        loop = asyncio.get_running_loop()
        self._allowed: asyncio.Future[bytes] = loop.create_future()
        self._response: asyncio.Future[Message] = loop.create_future()
        self.key = key_of_id(message.id)
        self.was_sent = False
        self.was_told = False
        """True where the client got its answer."""
        self.task = asyncio.create_task(client.guard.pass_on(message, self._ask))

    @property
    def has_response(self) -> bool:
        """True where the server has answered, or nobody waits for it any more."""
        return self._response.done()

    async def _ask(self, raw: bytes) -> Message:
        self.was_sent = True
        self._allowed.set_result(raw)
        return await self._response

    async def allowed(self) -> bytes | None:
        """Return what is sent to the server; None where nothing is."""
        waited: set[asyncio.Future[Any]] = {self.task, self._allowed}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return self._allowed.result() if self._allowed.done() else None

    async def respond(self, response: Message) -> bytes | None:
        """Take the server's response; return what the client gets."""
        if not self._response.done():
            self._response.set_result(response)
        return await self.answer()

    async def give_up(self, why: str) -> bytes | None:
        """End a call that nobody will answer; return what the client is told."""
        if not self._response.done():
            self._response.set_exception(RemoteError(why))
        return await self.answer()

    async def answer(self) -> bytes | None:
        """Return what the client gets; None where it gets nothing, because it gave up itself."""
        self.was_told = True
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self.task.cancelled():
                return None
            raise


class _Stream:
    """One stream of events on its way to a client."""

    def __init__(self, reply: Reply, own: PendingCall | None) -> None:
        self.reply, self.own = reply, own
        self.out: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=64)
        self.sampling: set[asyncio.Task[None]] = set()


class Client:
    """One client, as far as the proxy knows: those without a session are all one.

    Args:
        open_session: Opens its run.
        is_named: True for a session of its own; else several clients may use the same ids.
        hide_denied: See `Lists`.
        most_bytes: How long one message may be.
    """

    def __init__(
        self, open_session: Callable[[], Session], *, is_named: bool, hide_denied: bool, most_bytes: int
    ) -> None:
        self._open = open_session
        self._session: Session | None = None
        self._is_named = is_named
        self._most_bytes = most_bytes
        self.guard = Guard(self._opened)
        self.lists = Lists((lambda name: self._opened().hides(name)) if hide_denied else None)
        self._calls: dict[str, PendingCall] = {}
        self._at_client: dict[str, asyncio.Future[Message]] = {}
        self._given_up: set[str] = set()
        self._work: set[asyncio.Task[Any]] = set()

    def _opened(self) -> Session:
        if self._session is None:
            self._session = self._open()
        return self._session

    async def close(self) -> None:
        """End what is at work, and the session's run."""
        tasks = [*(call.task for call in self._calls.values()), *self._work]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            self._session.close()

    # What the client says

    def call(self, message: Message) -> PendingCall:
        """Begin to judge a call."""
        call = PendingCall(self, message)
        if self._is_named:
            self._calls[call.key] = call
            self._given_up.discard(call.key)
            call.task.add_done_callback(lambda _: self._ended(call))
        return call

    def _ended(self, call: PendingCall) -> None:
        if self._calls.get(call.key) is call:
            del self._calls[call.key]
            if call.was_sent and not call.has_response:
                self._given_up.add(call.key)

    async def left(self, call: PendingCall) -> None:
        """Hear that the stream of a call has ended: without a session, its answer cannot come in another one."""
        if not self._is_named and not call.task.done():
            await call.give_up("the stream ended without an answer")

    def asked(self, message: Message) -> bool:
        """Return True for the answer to a request that the client was sent."""
        return message.is_response and key_of_id(message.id) in self._at_client

    def answered(self, message: Message) -> bool:
        """Take the client's answer to a judged request of the server; False where it is none."""
        waiting = self._at_client.pop(key_of_id(message.id), None)
        if waiting is None:
            return False
        if not waiting.done():
            waiting.set_result(message)
        return True

    def cancelled(self, key: str) -> bool:
        """Cancel a call; return True where the server never heard of it."""
        call = self._calls.get(key)
        if call is None:
            return False
        call.task.cancel()
        return not call.was_sent

    # What the server says

    async def document(self, content: bytes, own: PendingCall | None = None) -> bytes:
        """Return what the client gets of one JSON document.

        Args:
            content: The document.
            own: The call that it should answer.

        Raises:
            UnreadableError: It is no message that passes.
        """
        found = read(content)
        if isinstance(found, Message):
            seen = await self._seen(found, own)
            return b"" if seen is None else content if seen is found.raw else seen
        kept = [await self._seen(one, own) for one in found]
        return b"[" + b",".join(one for one in kept if one is not None) + b"]"

    async def events(
        self, chunks: AsyncIterator[bytes], reply: Reply, own: PendingCall | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield what the client gets of a stream of events; see `document`."""
        stream = _Stream(reply, own)

        async def pull() -> None:
            split = Events(self._most_bytes)
            try:
                async for chunk in chunks:
                    for event in split.feed(chunk):
                        await self._event(event, stream)
            finally:
                if stream.sampling:
                    await asyncio.gather(*stream.sampling, return_exceptions=True)
                await stream.out.put(None)

        async def watch(call: PendingCall) -> None:
            # It took too long, or a policy ended it: the server's answer is not waited for.
            await asyncio.wait({call.task})
            if not call.was_told and (answer := await call.answer()) is not None:
                await stream.out.put(with_data(b"event: message", answer))
                await stream.out.put(None)

        work = [self._spawn(pull()), *([self._spawn(watch(own))] if own is not None else [])]
        try:
            while (event := await stream.out.get()) is not None:
                yield event
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            if own is not None:
                await self.left(own)

    async def _event(self, event: bytes, stream: _Stream) -> None:
        data = data_of(event)
        if not data.strip():
            await stream.out.put(event)
            return
        try:
            found = read(data)
        except UnreadableError:
            # Two readers might read two messages out of it.
            return
        if isinstance(found, list):
            for one in found:
                await self._event(with_data(b"event: message", one.raw), stream)
            return
        if found.method == _SAMPLING:
            task = self._spawn(self._sample(found, event, stream))
            stream.sampling.add(task)
            task.add_done_callback(stream.sampling.discard)
            return
        seen = await self._seen(found, stream.own)
        if seen is not None:
            await stream.out.put(event if seen is found.raw else with_data(event, seen))

    async def _seen(self, message: Message, own: PendingCall | None) -> bytes | None:
        """Return what the client gets of a message; None for nothing."""
        key = key_of_id(message.id)
        if message.is_response:
            call = own if own is not None and own.key == key else self._calls.get(key)
            if call is not None and not call.was_told:
                answer = await call.respond(message)
                # The very bytes of the server, where nothing of them was changed.
                return message.raw if answer == message.raw else answer
            if call is not None or key in self._given_up:
                self._given_up.discard(key)
                return None
        return self.lists.seen(message)

    async def _sample(self, message: Message, event: bytes, stream: _Stream) -> None:
        key = key_of_id(message.id)

        async def ask(raw: bytes) -> Message:
            future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            self._at_client[key] = future
            try:
                await stream.out.put(event if raw is message.raw else with_data(event, raw))
                return await future
            finally:
                self._at_client.pop(key, None)

        answer = await self.guard.pass_on(message, ask)
        if answer is not None:
            with contextlib.suppress(RemoteError):
                await stream.reply(answer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task


class Clients:
    """All clients of one server, by the session ids that it gave out.

    Args:
        open_session: Opens the run of one; is given a label for a person.
        hide_denied: See `Client`.
        most_bytes: See `Client`.
    """

    def __init__(self, open_session: Callable[[str], Session], *, hide_denied: bool, most_bytes: int) -> None:
        self._open, self._hide_denied, self._most_bytes = open_session, hide_denied, most_bytes
        self._clients: dict[str, Client] = {}
        self._unnamed = self._made("")

    def _made(self, label: str) -> Client:
        return Client(
            lambda: self._open(label),
            is_named=bool(label),
            hide_denied=self._hide_denied,
            most_bytes=self._most_bytes,
        )

    def of(self, session_id: str) -> Client:
        """Return the client of a session; an id that the server did not give out is nobody's, and opens no budget."""
        return self._clients.get(session_id, self._unnamed)

    def opened(self, session_id: str, client: Client) -> Client:
        """Return the client of a session that the server has just named."""
        found = self._clients.get(session_id)
        if found is None and len(self._clients) < _MOST_SESSIONS:
            # The id itself lets in whoever knows it: it is not journaled.
            found = self._clients[session_id] = self._made(str(len(self._clients) + 1))
        return found or client

    async def closed(self, session_id: str) -> None:
        """End a session."""
        client = self._clients.pop(session_id, None)
        if client is not None:
            await client.close()

    async def close(self) -> None:
        """End all of them."""
        for client in (*self._clients.values(), self._unnamed):
            await client.close()
        self._clients.clear()
