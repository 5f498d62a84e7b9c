"""A model server that holds back the rest of a stream until its client has the beginning."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

from pytest_oao.testing import OpenAIServer
from pytest_oao.testing.http_server import Answer, Request
from pytest_oao.testing.openai_server import Respond

WAIT_S = 10.0


class HeldChunks(tuple[bytes, ...]):  # noqa: SLOT001 - a tuple cannot have non-empty slots
    """The chunks of an answer, of which the later ones wait until the client says that it has the first word."""

    got_first: threading.Event

    def __iter__(self) -> Iterator[bytes]:
        waiting = False
        for chunk in super().__iter__():
            if waiting and not self.got_first.wait(WAIT_S):
                return
            yield chunk
            waiting = waiting or b"good" in chunk


class HoldingServer(OpenAIServer):
    """Sends the rest of a stream whose first word is `good` only after `got_first` is set."""

    def __init__(self, respond: Respond) -> None:
        super().__init__(respond=respond)
        self.got_first = threading.Event()

    def _answer(self, request: Request) -> Answer:
        answer = super()._answer(request)
        chunks = HeldChunks(answer.chunks)
        chunks.got_first = self.got_first
        return dataclasses.replace(answer, chunks=chunks)
