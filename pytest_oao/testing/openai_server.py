"""A scripted, OpenAI-compatible model server on loopback, for real clients over real HTTP.

It owns the script and the order of the replies. It must not judge what the client sends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from pytest_oao.testing.http_server import Answer, LoopbackServer, Request, error_answer
from pytest_oao.testing.openai_wire import chat_answer, error_reply_answer, models_answer, responses_answer
from pytest_oao.testing.replies import ErrorReply, Reply, TextReply, ToolCall, ToolCallReply

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ErrorReply", "OpenAIServer", "Reply", "Respond", "TextReply", "ToolCall", "ToolCallReply"]

_logger = logging.getLogger(__name__)

Respond: TypeAlias = Callable[[dict[str, object]], Reply | str]
"""Makes the reply from the parsed request body; called on the thread of the connection, so concurrently."""


class OpenAIServer(LoopbackServer):
    """Serve `/v1/chat/completions`, `/v1/responses` and `/v1/models`, plain and streamed, from a script.

    The n-th request gets the ids `chatcmpl-n`, `resp_n` and `call_n_1`, `call_n_2` ... A retry is a request.
    When the script has run out, or `respond` raises, the answer is an HTTP 500 that asks not to be retried.

    Example:
        ```python
        with OpenAIServer(replies=[ErrorReply(status=429, message="slow down"), "hello"]) as server:
            model = ChatOpenAI(model="any", base_url=server.url, api_key="any")
            assert model.invoke("hi").content == "hello"
        ```

    Args:
        replies: Served in order, over both endpoints together; a str is short for a `TextReply`.
        respond: Makes each reply instead, for concurrent requests, whose order is not fixed.

    Raises:
        TypeError: A reply is neither a `Reply` nor a str.
        ValueError: Both `replies` and `respond` are given, or neither.
    """

    def __init__(self, *, replies: Iterable[Reply | str] | None = None, respond: Respond | None = None) -> None:
        super().__init__()
        if (replies is None) == (respond is None):
            raise ValueError("OpenAIServer takes either replies=[...] or respond=callable: give exactly one")
        self._replies = tuple(map(_as_reply, replies or ()))
        self._respond = respond

    @property
    def url(self) -> str:
        """The base URL for a client, ending in `/v1`; the same while stopped.

        Raises:
            RuntimeError: The server was never started.
        """
        return f"{self._root_url()}/v1"

    def _answer(self, request: Request) -> Answer:
        endpoint = (request.method, request.path)
        if endpoint == ("GET", "/v1/models"):
            return models_answer()
        if endpoint == ("POST", "/v1/chat/completions"):
            in_shape = chat_answer
        elif endpoint == ("POST", "/v1/responses"):
            in_shape = responses_answer
        else:
            message = f"{request.method} {request.path} is not served; see OpenAIServer for what is"
            return error_answer(message, status=404)
        body = request.json_object()
        if body is None:
            return error_answer("the request body is not a JSON object", status=400)
        with self._lock:
            self._record(body)
            number = len(self._requests)
        reply = self._reply(body, number)
        if isinstance(reply, Answer):
            return reply
        if isinstance(reply, ErrorReply):
            return error_reply_answer(reply)
        return in_shape(body, reply, number=number)

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
