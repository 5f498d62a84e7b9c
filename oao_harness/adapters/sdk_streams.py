"""Bodies that are read through the gate: each chunk goes to its reader as it comes, and the call ends with the last."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import ModuleType
from typing import Any, Final

from oao_harness.adapters.wire import is_last_event

__all__ = ["Last", "Watch", "pulling", "pulling_async"]

_BLANK_LINES: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


class Last(bytes):
    """The chunk after which a client need not come back, although the body goes on."""

    __slots__ = ()


class Watch:
    """Looks for the last event of a stream as its chunks come.

    Args:
        is_readable: False for a compressed body, whose end only the connection tells.
    """

    def __init__(self, *, is_readable: bool) -> None:
        self._is_readable = is_readable
        self._open = b""

    def marked(self, chunk: bytes) -> bytes:
        """Return the chunk, as a `Last` where it completes the last event."""
        if not self._is_readable:
            return chunk
        self._open += chunk
        if is_last_event(self._open):
            return Last(chunk)
        end = max(self._open.rfind(line) + len(line) for line in _BLANK_LINES)
        if end >= 2 and any(line in self._open for line in _BLANK_LINES):
            self._open = self._open[end:]
        return chunk


class _Pull:
    """A body in place of a response's own: read from the gate, then, after the last event, from the connection."""

    def __init__(self, original: Any, source: Iterator[bytes], pieces: Generator[Any, None, None]) -> None:
        self._original, self._source, self._pieces = original, source, pieces

    def __getattr__(self, name: str) -> Any:
        # What the library or the client hung on the stream: elapsed time, an observer.
        return getattr(self._original, name)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Last):
                # First: it is what ends the call, and who has seen the last event may not come back.
                for _ in self._pieces:
                    pass
            yield piece
        yield from self._source

    def close(self) -> None:
        """End the call where it has not, and release the connection."""
        try:
            self._pieces.close()
        finally:
            self._original.close()


class _AsyncPull:
    """See `_Pull`."""

    def __init__(self, original: Any, source: AsyncIterator[bytes], pieces: AsyncGenerator[Any, None]) -> None:
        self._original, self._source, self._pieces = original, source, pieces

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            if isinstance(piece, Last):
                async for _ in self._pieces:
                    pass
            yield piece
        async for rest in self._source:
            yield rest

    async def aclose(self) -> None:
        """End the call where it has not, and release the connection."""
        try:
            await self._pieces.aclose()
        finally:
            await self._original.aclose()


@functools.cache
def _pull_class(library: ModuleType) -> type[Any]:
    return type("GovernedBody", (_Pull, library.SyncByteStream), {})


@functools.cache
def _async_pull_class(library: ModuleType) -> type[Any]:
    return type("GovernedAsyncBody", (_AsyncPull, library.AsyncByteStream), {})


def pulling(library: ModuleType, original: Any, source: Iterator[bytes], pieces: Generator[Any, None, None]) -> Any:
    """Return a body that is read through the gate.

    Args:
        library: `httpx` or `httpx2`.
        original: The response's own.
        source: The iterator over it that the gate reads from.
        pieces: The chunks as the gate hands them out.
    """
    return _pull_class(library)(original, source, pieces)


def pulling_async(
    library: ModuleType, original: Any, source: AsyncIterator[bytes], pieces: AsyncGenerator[Any, None]
) -> Any:
    """Return a body that is read through the gate; see `pulling`."""
    return _async_pull_class(library)(original, source, pieces)
