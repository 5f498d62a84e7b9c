"""What the scripted model servers have in common: the script and the order of the replies.

It must not know any provider's API, and must not judge what a client sends.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from pytest_oao.testing.http_server import Answer, LoopbackServer, Request, error_answer
from pytest_oao.testing.replies import ErrorReply, Reply, TextReply, ToolCallReply

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Respond", "ScriptedServer"]

_logger = logging.getLogger(__name__)

Respond: TypeAlias = Callable[[dict[str, object]], Reply | str]
"""Makes the reply from the parsed request body; called on the thread of the connection, so concurrently."""


class ScriptedServer(LoopbackServer):
    """A model server that replies from a script, or from a function.

    When the script has run out, or `respond` raises, the answer is an HTTP 500 that asks not to be retried.

    Args:
        replies: Served in order; a str is short for a `TextReply`.
        respond: Makes each reply instead, for concurrent requests, whose order is not fixed.

    Raises:
        TypeError: A reply is neither a `Reply` nor a str.
        ValueError: Both `replies` and `respond` are given, or neither.
    """

    def __init__(self, *, replies: Iterable[Reply | str] | None = None, respond: Respond | None = None) -> None:
        super().__init__()
        if (replies is None) == (respond is None):
            name = type(self).__name__
            raise ValueError(f"{name} takes either replies=[...] or respond=callable: give exactly one")
        self._replies = tuple(map(_as_reply, replies or ()))
        self._respond = respond

    @abstractmethod
    def _wire(self, body: Mapping[str, object], path: str, reply: TextReply | ToolCallReply, number: int) -> Answer:
        """Return a reply as the API of a path sends it."""

    @abstractmethod
    def _error(self, reply: ErrorReply) -> Answer:
        """Return a scripted error as the API sends it."""

    def _scripted(self, request: Request) -> Answer:
        """Return the next reply to a request for a model's answer."""
        body = request.json_object()
        if body is None:
            return error_answer("the request body is not a JSON object", status=400)
        with self._lock:
            self._record(body)
            number = len(self._requests)
        reply = self._reply(body, number)
        if isinstance(reply, Answer):
            return reply
        return self._error(reply) if isinstance(reply, ErrorReply) else self._wire(body, request.path, reply, number)

    def _reply(self, body: dict[str, object], number: int) -> Reply | Answer:
        if self._respond is None:
            if number > len(self._replies):
                return error_answer(f"request {number} came, but only {len(self._replies)} replies were scripted")
            return self._replies[number - 1]
        try:
            return _as_reply(self._respond(body))
        except Exception as error:
            _logger.exception("respond failed on request %d", number)
            return error_answer(f"respond raised {error!r} on request {number}")


def _as_reply(reply: object) -> Reply:
    if isinstance(reply, str):
        return TextReply(text=reply)
    if isinstance(reply, TextReply | ToolCallReply | ErrorReply):
        return reply
    raise TypeError(f"{reply!r} is not a reply: give a str, TextReply, ToolCallReply or ErrorReply")
