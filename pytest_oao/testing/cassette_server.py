"""Serves a vcrpy cassette over real HTTP, so that a real client talks to recorded traffic.

It owns the order of the recorded responses. It must not compare request bodies: what a client sends is judged
by the test, through `requests`.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_oao.testing.cassette import Interaction, load_cassette
from pytest_oao.testing.http_server import Answer, LoopbackServer, Request, error_answer
from pytest_oao.testing.usage import TokenUsage, usage_of_body

if TYPE_CHECKING:
    import os

__all__ = ["CassetteServer"]

# Those of one connection, and those that describe bytes we frame and decode anew.
# Source: RFC 9110, section 7.6.1.
_DROPPED_HEADERS = frozenset({
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
})  # fmt: skip


class CassetteServer(LoopbackServer):
    """Answer each request with the next recorded response for its method and path; hosts and queries aside.

    Needs PyYAML; importing this module without it fails.

    Event streams are sent event by event. A request with no response left gets an HTTP 500 that names what
    was asked and what is left, and asks not to be retried. `stop()` and `start()` do not rewind.

    Example:
        ```python
        with CassetteServer("cassettes/test_tools.yaml") as server:
            model = ChatAnthropic(model="claude-sonnet-4-5", base_url=server.url, api_key="any")
        ```

    Args:
        path: The cassette, `.yaml` or `.yaml.gz`; see `load_cassette` for the variants.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not a cassette.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._path = Path(path)
        self._interactions = load_cassette(path)
        self._left: defaultdict[tuple[str, str], deque[Interaction]] = defaultdict(deque)
        for interaction in self._interactions:
            self._left[interaction.method, interaction.path].append(interaction)

    @property
    def url(self) -> str:
        """Scheme, host and port; the same while stopped. Append the path that the client's base URL has.

        Raises:
            RuntimeError: The server was never started.
        """
        return self._root_url()

    @property
    def usage(self) -> TokenUsage:
        """The tokens that all recorded responses report, served already or not."""
        bodies = (interaction.content.decode(errors="replace") for interaction in self._interactions)
        return sum(map(usage_of_body, bodies), TokenUsage())

    def _answer(self, request: Request) -> Answer:
        asked = (request.method, request.path)
        with self._lock:
            # A request without a JSON object counts too, so that the number of requests is the true one.
            self._record(request.json_object() or {})
            left = self._left.get(asked)
            if left:
                return _answer_of(left.popleft())
            rest = [f"{len(some)} x {' '.join(key)}" for key, some in self._left.items() if some]
        left_over = ", ".join(rest) or "nothing"
        return error_answer(f"{self._path.name} has no response left for {' '.join(asked)}; left: {left_over}")


def _answer_of(interaction: Interaction) -> Answer:
    headers = tuple(header for header in interaction.headers if header[0] not in _DROPPED_HEADERS)
    chunks: tuple[bytes, ...] = (interaction.content,)
    if any(name == "content-type" and "text/event-stream" in value for name, value in headers):
        # An empty chunk would end a chunked transfer.
        chunks = tuple(filter(None, re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", interaction.content)))
    return Answer(status=interaction.status, headers=headers, chunks=chunks)
