"""Server-sent events as they come over the wire, byte for byte, and the messages in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["Events", "TooLongError", "data_of", "with_data"]

# Source: WHATWG HTML, 9.2.5: a line ends with LF, CR LF or CR, and an empty line ends an event.
_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_LINE: Final = re.compile(rb"\r\n|\n|\r")


class TooLongError(Exception):
    """An event has more bytes than are kept."""


class Events:
    """Splits a stream of bytes into events.

    Args:
        most_bytes: How long one event may be.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._buffer = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the events that are whole now, each with the empty line that ends it.

        Raises:
            TooLongError: One is too long.
        """
        searched = max(0, len(self._buffer) - 3)
        self._buffer += chunk
        start = 0
        for found in _END.finditer(self._buffer, searched):
            yield self._buffer[start : found.end()]
            start = found.end()
        self._buffer = self._buffer[start:]
        if len(self._buffer) > self._most_bytes:
            raise TooLongError

    @property
    def rest(self) -> bytes:
        """What came after the last event; no client takes it for one."""
        return self._buffer


def data_of(event: bytes) -> bytes:
    """Return the data of an event: its data lines, with a line feed between them."""
    lines = [line for line in _LINE.split(event.removeprefix(b"\xef\xbb\xbf")) if line.partition(b":")[0] == b"data"]
    return b"\n".join(line.partition(b":")[2].removeprefix(b" ") for line in lines)


def with_data(event: bytes, data: bytes) -> bytes:
    """Return an event with other data, of one line; its id and type stay."""
    kept = [line for line in _LINE.split(event) if line and line.partition(b":")[0] != b"data"]
    return b"\n".join([*kept, b"data: " + data, b"", b""])
