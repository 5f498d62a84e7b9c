"""A recording as a JSON document, and back: messages and tool schemas once each, by reference. Format 1."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, cast

from oao_harness.errors import RecordingError
from oao_harness.journal.document import fold, unfold
from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.records import error_from_json, key_of, usage_from_json, usage_to_json
from oao_hookspecs import Json

__all__ = ["FORMAT", "from_document", "to_document"]

FORMAT: Final = 1


def to_document(
    test: str, header: Mapping[str, Json], events: Iterable[RecordedEvent], totals: Mapping[str, Json]
) -> dict[str, Json]:
    """Return the document of a recording, as it is written."""
    messages, tools = _Interned("m"), _Interned("t")
    nodes: list[Json] = []
    for event in events:
        request = dict(event.request)
        if event.kind == "model":
            request["messages"] = [messages.ref(item) for item in cast("list[Json]", request.get("messages", ()))]
            if "tools" in request:
                request["tools"] = [tools.ref(item) for item in cast("list[Json]", request["tools"])]
        nodes.append(_event_to_json(event, request, messages))
    return {
        "oao": FORMAT,
        "test": test,
        "recorded": dict(header),
        "messages": messages.table(),
        "tools": tools.table(),
        "events": nodes,
        "totals": dict(totals),
    }


def _event_to_json(event: RecordedEvent, request: dict[str, Json], messages: _Interned) -> dict[str, Json]:
    node: dict[str, Json] = {"n": event.n, "kind": event.kind, "name": event.name}
    node |= {"run": event.run} if event.run else {}
    node |= {"call_id": event.call_id} if event.call_id else {}
    node |= {"parent": event.parent} if event.parent else {}
    node |= {"batch": event.batch} if event.batch else {}
    node |= {"span": [event.start, event.end], "req": fold(request)}
    if event.error is not None:
        error: dict[str, Json] = {"type": event.error.type, "message": event.error.message}
        node["error"] = fold({**error, "data": dict(event.error.data)})
    elif event.finished and not event.denied:
        value = event.value
        if event.kind == "model" and isinstance(value, Mapping) and isinstance(value.get("message"), Mapping):
            rest = {key: item for key, item in value.items() if key != "message"}
            value = {"$message": messages.ref(value["message"]), **rest}
        node["res"] = fold(value)
    node |= {"usage": usage_to_json(event.usage)} if event.usage is not None else {}
    node |= {"attempts": event.attempts} if event.attempts > 1 else {}
    node |= {"at": event.at} if event.at is not None else {}
    node |= {"took_s": event.took_s} if event.took_s else {}
    node |= {} if event.finished else {"finished": False}
    node |= {"decision": event.decision, "key": event.key}
    return node


class _Interned:
    """Values kept once and named in the order they were met."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._names: dict[str, str] = {}
        self._values: dict[str, Json] = {}

    def ref(self, value: Json) -> str:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False)
        name = self._names.get(text)
        if name is None:
            name = f"{self._prefix}{len(self._names) + 1}"
            self._names[text] = name
            self._values[name] = fold(value)
        return name

    def table(self) -> dict[str, Json]:
        return self._values


def from_document(document: Mapping[str, Json]) -> tuple[str, Mapping[str, Json], tuple[RecordedEvent, ...]]:
    """Return test, header and events of a document.

    Raises:
        RecordingError: It is damaged; says where, and not in which file.
    """
    where = "the header"
    try:
        messages = {name: unfold(item) for name, item in cast("dict[str, Json]", document["messages"]).items()}
        tools = {name: unfold(item) for name, item in cast("dict[str, Json]", document["tools"]).items()}
        events: list[RecordedEvent] = []
        for index, node in enumerate(cast("list[dict[str, Json]]", document["events"]), start=1):
            where = f"event {index}"
            events.append(_event_from_json(node, messages, tools))
        where = "the header"
        header = cast("Mapping[str, Json]", document.get("recorded") or {})
        return str(document.get("test", "")), header, tuple(events)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(f"{where}: {type(error).__name__} {error}") from error


def _event_from_json(node: Mapping[str, Json], messages: dict[str, Json], tools: dict[str, Json]) -> RecordedEvent:
    kind, name = str(node["kind"]), str(node["name"])
    request = cast("dict[str, Json]", unfold(node["req"]))
    if kind == "model":
        request["messages"] = [messages[str(ref)] for ref in cast("list[Json]", request["messages"])]
        if "tools" in request:
            request["tools"] = [tools[str(ref)] for ref in cast("list[Json]", request["tools"])]
    value = unfold(node.get("res"))
    if isinstance(value, dict) and "$message" in value:
        value = {"message": messages[str(value.pop("$message"))], **value}
    start, end = cast("list[int]", node["span"])
    error, usage = node.get("error"), node.get("usage")
    return RecordedEvent(
        n=int(cast("int", node["n"])),
        kind=kind,
        name=name,
        run=str(node.get("run", "")),
        start=int(start),
        end=int(end),
        request=request,
        # Trusted, so that loading needs no hashing; the matcher finds out where a request was edited by hand.
        key=str(node.get("key") or key_of(kind, name, request)),
        value=value,
        error=error_from_json(cast("dict[str, Json]", unfold(error))) if error is not None else None,
        usage=usage_from_json(cast("Mapping[str, Json]", usage)) if usage is not None else None,
        decision=str(node.get("decision", "allow")),
        parent=cast("int | None", node.get("parent")),
        attempts=int(cast("int", node.get("attempts", 1))),
        finished=bool(node.get("finished", True)),
        call_id=cast("str | None", node.get("call_id")),
        batch=cast("int | None", node.get("batch")),
        at=cast("float | None", node.get("at")),
        took_s=cast("float | None", node.get("took_s")),
    )
