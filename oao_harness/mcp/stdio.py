"""The proxy over stdio: starts the server, and stands between its pipes and the client's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import IO, Any, Final

from oao_harness.errors import UsageError
from oao_harness.mcp.guard import Guard, is_governed
from oao_harness.mcp.lists import Lists
from oao_harness.mcp.messages import (
    INVALID_REQUEST,
    Message,
    UnreadableError,
    dumps,
    error_message,
    key_of_id,
    read,
)
from oao_harness.mcp.sessions import RemoteError

__all__ = ["MOST_BYTES", "StdioProxy", "private_pipes"]

MOST_BYTES: Final = 64 * 1024 * 1024
"""How long one message may be."""
_CHUNK: Final = 65_536
# Source: the shutdown of MCP's stdio transport: close its input, wait, SIGTERM, wait, SIGKILL.
_GRACE_S: Final = 3.0


class _Lines:
    """Splits a stream of bytes into lines of a bounded length."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._skips = False

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """Return the lines that are whole now; None stands for one that is too long."""
        found: list[bytes | None] = []
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._take(chunk[start:end])
            found.append(None if self._skips else bytes(self._buffer))
            self._buffer.clear()
            self._skips, start = False, end + 1
        self._take(chunk[start:])
        return found

    def _take(self, piece: bytes) -> None:
        if self._skips or len(self._buffer) + len(piece) > self._most_bytes:
            self._skips = True
            self._buffer.clear()
        else:
            self._buffer += piece

    @property
    def rest(self) -> bytes:
        """What came after the last line's end."""
        return bytes(self._buffer)


class StdioProxy:
    """Stands between a client and the server that it would have started.

    Args:
        guard: Judges.
        command: Starts the server.
        lists: What of the server's lists the client does not see.
        client_in: What the client writes, as a file descriptor of this process.
        client_out: Where it reads.
        say: Tells a person something, one line.
    """

    def __init__(
        self,
        guard: Guard,
        command: Sequence[str],
        lists: Lists,
        *,
        client_in: IO[bytes],
        client_out: IO[bytes],
        say: Callable[[str], None],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._guard, self._command, self._lists, self._say = guard, command, lists, say
        self._in, self._out = client_in, client_out
        self._most_bytes = most_bytes
        self._writing, self._sending = asyncio.Lock(), asyncio.Lock()
        self._at_client: dict[str, asyncio.Future[Message]] = {}
        """Requests of the server that the client was sent, by id."""
        self._at_server: dict[str, asyncio.Future[Message]] = {}
        """Requests of the client that the server was sent, by id."""
        self._calls: dict[str, asyncio.Task[None]] = {}
        """Judged requests of the client that have no answer yet, by id."""
        self._others: set[asyncio.Task[None]] = set()
        self._sent: set[str] = set()
        self._moved = asyncio.Event()
        """Set when a call was sent, or has ended."""
        self._given_up: set[str] = set()
        """Requests that were answered without the server, or cancelled: what it still says to them is dropped."""
        self._server: asyncio.subprocess.Process

    async def run(self) -> int:
        """Stand between them until one of them ends; return the exit code.

        Raises:
            UsageError: The server cannot be started.
        """
        try:
            self._server = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
        except OSError as error:
            why = error.strerror or str(error)
            raise UsageError(
                f"cannot start the server {self._command[0]!r}: {why}; check the command after --"
            ) from error
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, stop.set)
        client = asyncio.create_task(self._read_client())
        server = asyncio.create_task(self._read_server())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({client, server, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done() and not server.done():
                # The client has said all. What was sent may still be answered.
                await self._until_sent()
                self._close_input()
                await asyncio.wait({server, stopped}, timeout=_GRACE_S, return_when=asyncio.FIRST_COMPLETED)
            died = server.done() and not client.done()
            return await self._end(died=died)
        finally:
            for task in (client, server, stopped, *self._calls.values(), *self._others):
                task.cancel()
            await asyncio.gather(*self._calls.values(), *self._others, server, return_exceptions=True)

    async def _end(self, *, died: bool) -> int:
        """Let the server end, and answer for it where it died."""
        self._close_input()
        code = await self._reap()
        for waiting in (*self._at_server.values(), *self._at_client.values()):
            if not waiting.done():
                waiting.set_exception(RemoteError(f"the MCP server ended with exit code {code}"))
        if self._calls:
            await asyncio.wait(set(self._calls.values()), timeout=_GRACE_S)
        if not died:
            return 0
        self._say(f"the MCP server ended with exit code {code}")
        return code if code >= 0 else 128 - code

    async def _reap(self) -> int:
        for stop in (None, self._server.terminate, self._server.kill):
            if stop is not None:
                with contextlib.suppress(ProcessLookupError):
                    stop()
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._server.wait(), _GRACE_S)
        return 1

    def _close_input(self) -> None:
        if self._server.stdin is not None:
            self._server.stdin.close()

    async def _until_sent(self) -> None:
        """Wait until each call was sent, refused, or is held."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                while any(key not in self._sent for key in self._calls):
                    self._moved.clear()
                    await self._moved.wait()

    # From the client

    async def _read_client(self) -> None:
        async for line in _pump(self._in, self._most_bytes):
            if line is None:
                await self._tell(
                    error_message(None, INVALID_REQUEST, f"a message has more than {self._most_bytes} bytes")
                )
            elif line.strip():
                await self._from_client(line)

    async def _from_client(self, line: bytes) -> None:
        try:
            found = read(line)
        except UnreadableError as error:
            await self._tell(error_message(error.id, error.code, f"oao: {error.reason}; it was not passed on"))
            return
        if isinstance(found, list):
            await self._batch_from_client(line, found)
            return
        key = key_of_id(found.id)
        if found.is_response and (waiting := self._at_client.pop(key, None)) is not None:
            if not waiting.done():
                waiting.set_result(found)
            return
        if found.method == "tools/call":
            if key in self._calls:
                text = "oao: a request with this id is being answered"
                await self._tell(error_message(found.id, INVALID_REQUEST, text))
                return
            self._given_up.discard(key)
            task = asyncio.create_task(self._call(found, key))
            self._calls[key] = task
            task.add_done_callback(lambda _: self._ended(key))
            return
        if found.method == "notifications/cancelled":
            key = key_of_id(found.params.get("requestId"))
            if (call := self._calls.get(key)) is not None:
                was_sent = key in self._sent
                if was_sent:
                    self._given_up.add(key)
                call.cancel()
                if not was_sent:
                    # The server never heard of it.
                    return
        self._lists.asked(found)
        await self._try_send(found.raw)

    async def _batch_from_client(self, line: bytes, batch: Sequence[Message]) -> None:
        judged = [one for one in batch if is_governed(one) or key_of_id(one.id) in self._at_client]
        if not judged:
            await self._try_send(line)
            return
        text = "oao: a batch that calls tools is not passed on; send each call by itself"
        for one in batch:
            if one.is_request:
                await self._tell(error_message(one.id, INVALID_REQUEST, text))

    async def _call(self, message: Message, key: str) -> None:
        async def ask(raw: bytes) -> Message:
            try:
                return await self._ask(raw, key, self._at_server, self._send_call)
            except asyncio.CancelledError:
                if key not in self._given_up:
                    # It took too long. Nobody waits for its answer any more.
                    self._given_up.add(key)
                    told = {"requestId": message.id, "reason": "the call took too long"}
                    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": told}
                    self._spawn(self._try_send(dumps(cancelled)))
                raise

        answer = await self._guard.pass_on(message, ask)
        if answer is not None:
            await self._tell(answer)

    def _ended(self, key: str) -> None:
        self._calls.pop(key, None)
        self._sent.discard(key)
        self._moved.set()

    async def _send_call(self, raw: bytes, key: str) -> None:
        self._sent.add(key)
        self._moved.set()
        await self._send(raw)

    async def _ask(
        self, raw: bytes, key: str, waiting: dict[str, asyncio.Future[Message]], send: Callable[[bytes, str], Any]
    ) -> Message:
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        waiting[key] = future
        try:
            await send(raw, key)
            return await future
        finally:
            waiting.pop(key, None)

    # From the server

    async def _read_server(self) -> None:
        stdout = self._server.stdout
        lines = _Lines(self._most_bytes)
        while stdout is not None and (chunk := await stdout.read(_CHUNK)):
            for line in lines.feed(chunk):
                if line is None:
                    self._say(f"a message of the server had more than {self._most_bytes} bytes, and was dropped")
                elif line.strip():
                    await self._from_server(line)
        if lines.rest.strip():
            await self._from_server(lines.rest)

    async def _from_server(self, line: bytes) -> None:
        try:
            found = read(line)
        except UnreadableError as error:
            # A server that logs on its standard output; or one that would have two readers read two things.
            self._say(f"a line of the server was dropped, because {error.reason}")
            return
        if isinstance(found, Message):
            await self._message_from_server(found)
        elif any(is_governed(one) or key_of_id(one.id) in self._at_server for one in found):
            for one in found:
                await self._message_from_server(one)
        else:
            await self._tell(line)

    async def _message_from_server(self, message: Message) -> None:
        key = key_of_id(message.id)
        if message.is_response and (waiting := self._at_server.pop(key, None)) is not None:
            if not waiting.done():
                waiting.set_result(message)
        elif message.is_response and key in self._given_up:
            self._given_up.discard(key)
        elif message.method == "sampling/createMessage":
            self._spawn(self._sample(message, key))
        else:
            await self._tell(self._lists.seen(message))

    async def _sample(self, message: Message, key: str) -> None:
        async def ask(raw: bytes) -> Message:
            return await self._ask(raw, key, self._at_client, lambda raw, _: self._tell(raw))

        answer = await self._guard.pass_on(message, ask)
        if answer is not None:
            await self._try_send(answer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    # To both

    async def _try_send(self, raw: bytes) -> None:
        """Write a line to the server, where it still reads; that it died is said elsewhere."""
        with contextlib.suppress(RemoteError):
            await self._send(raw)

    async def _send(self, raw: bytes) -> None:
        """Write a line to the server."""
        stdin = self._server.stdin
        if stdin is None or stdin.is_closing():
            raise RemoteError("the MCP server takes no more messages")
        async with self._sending:
            try:
                stdin.write(raw.rstrip(b"\r\n") + b"\n")
                await stdin.drain()
            except (BrokenPipeError, ConnectionError) as error:
                raise RemoteError("the MCP server takes no more messages") from error

    async def _tell(self, raw: bytes) -> None:
        """Write a line to the client."""
        async with self._writing:
            # In a thread: a client that does not read must not stop the rest.
            with contextlib.suppress(BrokenPipeError, ValueError):
                await asyncio.to_thread(_write, self._out, raw.rstrip(b"\r\n") + b"\n")


def _write(out: IO[bytes], data: bytes) -> None:
    out.write(data)
    out.flush()


async def _pump(source: IO[bytes], most_bytes: int) -> AsyncIterator[bytes | None]:
    """Yield the lines of a file that blocks; read in a thread, because it may be a pipe, a file or a terminal."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=16)

    def pull() -> None:
        with contextlib.suppress(RuntimeError, OSError, ValueError):
            while True:
                chunk = os.read(source.fileno(), _CHUNK)
                asyncio.run_coroutine_threadsafe(queue.put(chunk), loop).result()
                if not chunk:
                    return

    threading.Thread(target=pull, name="oao-mcp-client", daemon=True).start()
    lines = _Lines(most_bytes)
    while chunk := await queue.get():
        for line in lines.feed(chunk):
            yield line
    if lines.rest:
        yield lines.rest


def private_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Return standard input and output for the protocol alone: what else is printed goes to standard error."""
    sys.stdout.flush()
    client_in, client_out = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return client_in, client_out
