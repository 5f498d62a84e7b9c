"""What goes over a provider's wire, as values: requests become model calls, responses become JSON and bytes again.

Pure: knows paths, bodies and server-sent events, and no client library. A response is journaled as

```text
{"status": 200, "headers": {...}, "body": {...}}       a JSON answer
{"status": 200, "headers": {...}, "events": [...]}     server-sent events, with their boundaries
{"status": 200, "headers": {...}, "base64": "..."}     anything else
```

and a `fault` beside it (`{"type": "ReadTimeout", "message": "..."}`) is how a connection failed. An event is its data;
one that has a name is `{"event": name, "data": ...}`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, cast
from urllib.parse import urlsplit

from oao_harness.journal.wire_replay import ENDPOINT
from oao_hookspecs import Json, ModelCall

__all__ = [
    "content_of",
    "describe",
    "endpoint_of",
    "events_of",
    "is_last_event",
    "response_to_json",
]

_Node = Mapping[str, Json]

# Source: the API references of OpenAI and Anthropic, read 2026-11. What asks a model, and answers at once.
_ENDPOINT: Final = re.compile(
    r"(?:\A|/)(?P<anywhere>chat/completions|embeddings)/?\Z"
    r"|(?:\A/?|/v\d+\w*/|/openai/|/deployments/[^/]+/)(?P<rooted>responses|completions|messages|complete)/?\Z"
)
_DEPLOYMENT: Final = re.compile(r"/deployments/(?P<name>[^/]+)/")
# Where the conversation is.
_MESSAGES: Final = {"chat/completions": "messages", "messages": "messages", "responses": "input", "embeddings": "input"}
_SYSTEM: Final = {"responses": "instructions", "messages": "system"}
# Request ids, rate limits and cookies stay out: they say nothing about the answer, and some are secrets.
_KEPT_HEADERS: Final = ("content-type", "retry-after", "retry-after-ms", "x-should-retry")
_LAST_EVENT: Final = re.compile(
    rb"^(?:data: ?\[DONE\]"
    rb'|data: ?\{"type": ?"(?:message_stop|response\.(?:completed|failed|incomplete))".*)(?:\r?\n|\r)(?:\r?\n|\r)',
    re.MULTILINE,
)


def endpoint_of(method: str, url: str) -> str | None:
    """Return which endpoint of a model a request is for, such as `chat/completions`; None where it asks no model.

    Args:
        method: In any case.
        url: Absolute or relative to a client's base URL, with or without a query.
    """
    if method.upper() != "POST":
        return None
    found = _ENDPOINT.search(urlsplit(url).path)
    return None if found is None else found["anywhere"] or found["rooted"]


def describe(endpoint: str, url: str, body: _Node) -> ModelCall:
    """Return a request as a model call.

    Args:
        endpoint: From `endpoint_of`.
        url: Names the model where the body does not, as Azure's deployments do.
        body: The JSON that is sent; null means absent.
    """
    rest = {key: value for key, value in body.items() if value is not None}
    deployment = _DEPLOYMENT.search(urlsplit(url).path)
    name = rest.pop("model", None) or (deployment["name"] if deployment is not None else endpoint)
    asked = rest.pop(_MESSAGES.get(endpoint, "prompt"), None)
    system = rest.pop(_SYSTEM[endpoint], None) if endpoint in _SYSTEM else None
    messages: list[_Node] = [] if system is None else [{"role": "system", "content": system}]
    messages += _messages(asked)
    if endpoint in _SHORTHAND:
        messages = [_SHORTHAND[endpoint](item) for item in messages]
    tools = rest.get("tools")
    offered: Sequence[_Node] = ()
    if isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools):
        offered = cast("Sequence[_Node]", rest.pop("tools"))
    if rest.get("stream") is False:
        del rest["stream"]
    rest[ENDPOINT] = endpoint
    return ModelCall(name=str(name), messages=messages, tools=offered, params=dict(sorted(rest.items())))


def _messages(asked: Json) -> list[_Node]:
    items = asked if isinstance(asked, list) else [] if asked is None else [asked]
    if items and all(isinstance(item, int) for item in items):
        items = [items]  # a text as tokens
    return [
        {key: value for key, value in item.items() if value is not None}
        if isinstance(item, Mapping)
        else {"role": "user", "content": item}
        for item in items
    ]


def _without_type(item: _Node) -> _Node:
    """Return an item of a conversation without the type that an item with a role has anyhow."""
    is_said = item.get("type") == "message" and "role" in item
    return {key: value for key, value in item.items() if key != "type"} if is_said else item


def _without_blocks(item: _Node) -> _Node:
    """Return a message of Anthropic's whose content is a text where it is one block of nothing but text."""
    content = item.get("content")
    if not isinstance(content, list):
        return item
    if len(content) == 1 and isinstance(block := content[0], Mapping) and set(block) == {"type", "text"}:
        return {**item, "content": block["text"]}
    # The results of tools are written in the same two ways.
    return {**item, "content": [_without_blocks(one) if isinstance(one, Mapping) else one for one in content]}


# Two ways to write the same, of which a newer version of a client may choose the other.
# Source: the API references; `type` of an input message of OpenAI, `content` of a message and tool result of Anthropic.
_SHORTHAND: Final[Mapping[str, Callable[[_Node], _Node]]] = {"responses": _without_type, "messages": _without_blocks}


def response_to_json(status: int, headers: Iterable[tuple[str, str]], content: bytes) -> dict[str, Json]:
    """Return a response as JSON.

    Args:
        status: HTTP status.
        headers: Names in any case; only those that matter to a client are kept.
        content: The decoded body.
    """
    given = {name.lower(): value for name, value in headers}
    kept: dict[str, Json] = {name: given[name] for name in _KEPT_HEADERS if name in given}
    node: dict[str, Json] = {"status": status, "headers": kept}
    if given.get("content-type", "").startswith("text/event-stream"):
        try:
            return {**node, "events": _parse_events(content.decode())}
        except UnicodeDecodeError:
            pass
    try:
        return {**node, "body": _parsed(content.decode())}
    except ValueError:
        return {**node, "base64": base64.b64encode(content).decode()}


def content_of(node: _Node) -> list[bytes]:
    """Return the body of a response that `response_to_json` described; one chunk for each event."""
    if "events" in node:
        return [_event_bytes(event) for event in cast("Sequence[Json]", node["events"])]
    if "base64" in node:
        return [base64.b64decode(str(node["base64"]))]
    if "body" in node:
        return [json.dumps(node["body"], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")]
    return []


def events_of(node: _Node) -> list[_Node]:
    """Return the data of the events of a response that are JSON objects."""
    found: list[_Node] = []
    for event in cast("Sequence[Json]", node.get("events") or ()):
        data = event.get("data") if isinstance(event, Mapping) and _is_wrapped(event) else event
        if isinstance(data, Mapping):
            found.append(data)
    return found


def is_last_event(content: bytes) -> bool:
    """Return True where the event is complete after which a client need not read on."""
    return _LAST_EVENT.search(content) is not None


def _parse_events(text: str) -> list[Json]:
    events: list[Json] = []
    name, data = "", list[str]()
    # Not `splitlines`: it also splits at separators that JSON texts may hold.
    for line in re.split(r"\r\n|\n|\r", text):
        if not line:
            if data or name:
                events.append(_event("\n".join(data), name))
            name, data = "", []
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data.append(value)
    if data or name:
        events.append(_event("\n".join(data), name))
    return events


def _event(text: str, name: str) -> Json:
    try:
        data: Json = _parsed(text)
    except ValueError:
        data = text
    if not isinstance(data, Mapping | list) and data is not text:
        data = text  # a bare number or string is text, so that it is written as it was
    if name or (isinstance(data, Mapping) and _is_wrapped(data)):
        return {"event": name, "data": data}
    return data


def _is_wrapped(event: _Node) -> bool:
    return set(event) == {"event", "data"}


def _event_bytes(event: Json) -> bytes:
    name, data = "", event
    if isinstance(event, Mapping) and _is_wrapped(event):
        name, data = str(event["event"]), event["data"]
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    lines = [f"event: {name}"] if name else []
    lines += [f"data: {line}" for line in text.split("\n")]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "surrogatepass")


def _parsed(text: str) -> Json:
    def refuse(constant: str) -> Json:
        raise ValueError(constant)

    return cast("Json", json.loads(text, parse_constant=refuse))
