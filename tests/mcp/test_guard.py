"""What the proxy makes of verdicts, without a transport."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from oao_harness import Orchestrator
from oao_harness.mcp.events import Events, data_of, with_data
from oao_harness.mcp.guard import Guard
from oao_harness.mcp.messages import Message, read
from oao_harness.mcp.sessions import Options, Session
from oao_hookspecs import Deny, Json, ModelCall, RunView, ToolCall, hookimpl


class Policy:
    """Denies models and refunds after a search, and takes what is secret out of results."""

    name = "policy"

    @hookimpl
    def oao_decide_model_call(self, call: ModelCall) -> Deny | None:
        return Deny(rule="no-models", reason="not for servers")

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Deny | None:
        if call.name == "broken":
            raise ValueError("a bug in a policy")
        if call.name == "refund" and run.tool_usage.get("search"):
            return Deny(rule="order", reason="no refund after a search")
        return None

    @hookimpl
    def oao_redact_result(self, call: ToolCall, value: Json) -> Json:
        return json.loads(json.dumps(value).replace("secret", "[gone]"))


@pytest.fixture
def session() -> Iterator[Session]:
    """A session of one server."""
    found = Session(Orchestrator(Policy()), Options(name="shop"))
    yield found
    found.close()


def message(method: str, **params: Any) -> Message:
    found = read(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())
    assert isinstance(found, Message)
    return found


async def passed(session: Session, request: Message, **response: Any) -> tuple[Any, list[bytes]]:
    """What is answered, and what was sent on."""
    sent: list[bytes] = []

    async def ask(raw: bytes) -> Message:
        sent.append(raw)
        found = read(json.dumps({"jsonrpc": "2.0", "id": 1, **response}).encode())
        assert isinstance(found, Message)
        return found

    answer = await Guard(lambda: session).pass_on(request, ask)
    return json.loads(answer or b"null"), sent


async def test_results_and_errors_are_redacted(session: Session) -> None:
    """Before the client sees them."""
    call = message("tools/call", name="search", arguments={})
    result, _ = await passed(session, call, result={"content": [{"type": "text", "text": "a secret"}]})
    error, _ = await passed(session, call, error={"code": 5, "message": "the secret is out"})

    assert result["result"]["content"][0]["text"] == "a [gone]"
    assert "secret" not in json.dumps(error)
    assert "[gone]" in error["error"]["message"]


async def test_what_would_come_past_the_redaction_is_refused(session: Session) -> None:
    """The result of a task is asked for later, by a request that is not judged."""
    answer, sent = await passed(session, message("tools/call", name="search", arguments={}, task={"ttl": 1}))

    assert "without `task`" in answer["error"]["message"]
    assert sent == []


async def test_a_policy_remembers_the_session(session: Session) -> None:
    """What one call did counts for the next, and a denial does not end it."""
    refund, search = (message("tools/call", name=name, arguments={}) for name in ("refund", "search"))
    first, _ = await passed(session, refund, result={})
    await passed(session, search, result={})
    second, sent = await passed(session, refund, result={})
    third, _ = await passed(session, search, result={"x": 1})

    assert first["result"] == {}
    assert (second["result"]["_meta"]["oao"]["rule"], sent) == ("order", [])
    assert third["result"] == {"x": 1}


async def test_a_policy_that_fails_denies(session: Session) -> None:
    """Fail closed."""
    answer, sent = await passed(session, message("tools/call", name="broken"), result={})

    assert answer["result"]["isError"] is True
    assert sent == []


async def test_a_denied_sampling_is_an_error_for_the_server(session: Session) -> None:
    """The client's model is not asked."""
    answer, sent = await passed(session, message("sampling/createMessage", messages=[], maxTokens=1), result={})

    assert answer["error"]["code"] == -1
    assert "no-models" in answer["error"]["message"]
    assert sent == []


def test_events_split_anywhere() -> None:
    """Byte by byte as well as at once, with every kind of line's end."""
    whole = b"id: 1\r\ndata: a\r\ndata:b\r\n\r\n: ping\n\ndata: c\r\rrest"
    split = Events(1000)
    events = [event for byte in whole for event in split.feed(bytes([byte]))]

    assert events == [b"id: 1\r\ndata: a\r\ndata:b\r\n\r\n", b": ping\n\n", b"data: c\r\r"]
    assert [data_of(event) for event in events] == [b"a\nb", b"", b"c"]
    assert with_data(events[0], b"z") == b"id: 1\ndata: z\n\n"
    assert split.rest == b"rest"
