"""A scripted, OpenAI-compatible model server on loopback, for real clients over real HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_oao.testing.http_server import Answer, Request, error_answer
from pytest_oao.testing.openai_wire import chat_answer, error_reply_answer, models_answer, responses_answer
from pytest_oao.testing.replies import ErrorReply, Reply, TextReply, ToolCall, ToolCallReply
from pytest_oao.testing.scripted_server import Respond, ScriptedServer

__all__ = ["ErrorReply", "OpenAIServer", "Reply", "Respond", "TextReply", "ToolCall", "ToolCallReply"]

_SHAPES = {"/v1/chat/completions": chat_answer, "/v1/responses": responses_answer}


class OpenAIServer(ScriptedServer):
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

    @property
    def url(self) -> str:
        """The base URL for a client, ending in `/v1`; the same while stopped.

        Raises:
            RuntimeError: The server was never started.
        """
        return f"{self._root_url()}/v1"

    def _answer(self, request: Request) -> Answer:
        if (request.method, request.path) == ("GET", "/v1/models"):
            return models_answer()
        if request.method == "POST" and request.path in _SHAPES:
            return self._scripted(request)
        message = f"{request.method} {request.path} is not served; see OpenAIServer for what is"
        return error_answer(message, status=404)

    def _wire(self, body: Mapping[str, object], path: str, reply: TextReply | ToolCallReply, number: int) -> Answer:
        return _SHAPES[path](body, reply, number=number)

    def _error(self, reply: ErrorReply) -> Answer:
        return error_reply_answer(reply)
