"""What of a task, a message or a result is put into a span: nothing unless it is opted in, and never a secret."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Final, cast

from oao_harness.config import project_redaction
from oao_harness.errors import OaoError
from oao_harness.journal.secrets import Redaction, Scrubber
from oao_harness.listeners import conventions as names
from oao_hookspecs import Call, Json, ModelCall, Outcome

__all__ = [
    "asked_attributes",
    "ended_attributes",
    "request_attributes",
    "response_model",
    "scrubbed",
    "task_attributes",
]

_log = logging.getLogger("oao")
# As in `journal.secrets`: a variable of such a name holds a secret.
_SECRET_NAME: Final = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_PARAMS: Final = {"temperature": names.TEMPERATURE, "top_p": names.TOP_P, "max_tokens": names.MAX_TOKENS}


def scrubbed(text: str) -> str:
    """Return a text without secrets of the environment, and without what the project wants redacted."""
    return cast("str", _scrubber().scrub(text)) if text else text


def _scrubber() -> Scrubber:
    # The environment now: an agent may load its keys after the run began.
    return _of_items(tuple(sorted(item for item in os.environ.items() if _SECRET_NAME.search(item[0]))))


@functools.lru_cache(maxsize=4)
def _of_items(items: tuple[tuple[str, str], ...]) -> Scrubber:
    return Scrubber.of(dict(items), _redaction())


@functools.cache
def _redaction() -> Redaction:
    try:
        return project_redaction()
    except OaoError as error:
        _log.warning("what to redact cannot be read, so spans hold no text at all: %s", error)
        return Redaction(patterns=(re.compile(r"(?s).+"),))


def task_attributes(task: Json) -> dict[str, str]:
    """Return a task as content."""
    text = _text(_scrubber().scrub(task))
    message = {"role": "user", "parts": [{"type": "text", "content": text}]}
    return {names.INPUT_MESSAGES: _json([message]), names.INPUT_VALUE: text}


def asked_attributes(call: Call) -> dict[str, str]:
    """Return what a call asks for as content."""
    request = _scrubber().request(call.kind, call.name, call.request)
    if not isinstance(call, ModelCall):
        text = _json(request)
        return {names.TOOL_ARGUMENTS: text, names.INPUT_VALUE: text}
    messages = cast("Sequence[Mapping[str, Json]]", request.get("messages") or ())
    found = {
        names.INPUT_MESSAGES: _json([_message(one) for one in messages]),
        names.INPUT_VALUE: _json(messages),
    }
    if request.get("tools"):
        found[names.TOOL_DEFINITIONS] = _json(request["tools"])
    return found


def ended_attributes(call: Call, outcome: Outcome) -> dict[str, str]:
    """Return the result of a call as content."""
    if outcome.error is not None:
        return {}
    scrubber = _scrubber()
    value = scrubber.scrub(scrubber.placed(call.kind, call.name, "res", outcome.value))
    if not isinstance(call, ModelCall):
        text = _text(value)
        return {names.TOOL_RESULT: text, names.OUTPUT_VALUE: text}
    inner = value.get("message") if isinstance(value, Mapping) else None
    if isinstance(inner, Mapping):
        message = _message(inner)
    else:
        message = {"role": "assistant", "parts": [{"type": "text", "content": _text(value)}]}
    message["finish_reason"] = "tool_call" if outcome.proposed else "stop"
    return {names.OUTPUT_MESSAGES: _json([message]), names.OUTPUT_VALUE: _text(value)}


def request_attributes(call: ModelCall) -> dict[str, float | int]:
    """Return the parameters of a request that the conventions name; they are no content."""
    found: dict[str, float | int] = {}
    for param, name in _PARAMS.items():
        value = call.params.get(param)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found


def response_model(outcome: Outcome) -> str | None:
    """Return the model that an answer says it is from, where it says so."""
    value = outcome.value
    if not isinstance(value, Mapping):
        return None
    extra = value.get("extra")
    told = extra.get("response_metadata") if isinstance(extra, Mapping) else None
    for place in (told, extra, value):
        for key in ("model_name", "model"):
            found = place.get(key) if isinstance(place, Mapping) else None
            if isinstance(found, str) and found:
                return found
    return None


def _message(message: Mapping[str, Json]) -> dict[str, Json]:
    """Return a message as the conventions spell it."""
    role, content = message.get("role", ""), message.get("content")
    parts: list[Json] = []
    if role == "tool":
        parts.append({"type": "tool_call_response", "id": message.get("call_id"), "response": content})
    elif content not in (None, "", [], ()):
        parts.append({"type": "text", "content": content if isinstance(content, str) else _json(content)})
    calls = message.get("calls")
    for call in calls if isinstance(calls, list | tuple) else ():
        if isinstance(call, Mapping):
            arguments = call.get("args", call.get("arguments"))
            parts.append({"type": "tool_call", "id": call.get("id"), "name": call.get("name"), "arguments": arguments})
    return {"role": role, "parts": parts}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
