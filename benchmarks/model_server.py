"""A model server on this machine that answers at once: two tool calls first, then a word.

Prints its URL, and serves until its standard input ends.
"""

from __future__ import annotations

import sys
from typing import Any

from pytest_oao.testing import OpenAIServer, TextReply, ToolCall, ToolCallReply

CALLS = ToolCallReply(calls=tuple(ToolCall(name="add", arguments={"a": n, "b": 1}) for n in range(2)))


def respond(body: Any) -> TextReply | ToolCallReply:
    return TextReply(text="done") if any(message["role"] == "tool" for message in body["messages"]) else CALLS


if __name__ == "__main__":
    with OpenAIServer(respond=respond) as server:
        print(server.url, flush=True)
        sys.stdin.read()
