"""Reads OTLP-JSON: spans with plain attributes. It knows the format of traces, and nothing of what they are about.

Source: opentelemetry-proto, `trace.proto` and `common.proto`; OTLP specification, "JSON Protobuf Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from oao_harness.errors import RecordingError
from oao_harness.importing.reading import Node, list_at, node_at, required
from oao_hookspecs import Json

__all__ = ["Event", "Span", "is_otlp", "spans_in"]

_RESOURCES: Final = ("resourceSpans", "resource_spans")
# The second is the name that OTLP had before 0.19.
_SCOPES: Final = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans")
_FAILED: Final = (2, "2", "STATUS_CODE_ERROR")
_DEEPEST: Final = 64
_PLAIN: Final[dict[str, tuple[type, ...]]] = {
    "stringvalue": (str,),
    "bytesvalue": (str,),
    "boolvalue": (bool,),
    "doublevalue": (int, float, str),  # NaN and the infinities are texts
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a span."""

    name: str
    attributes: Node


@dataclass(slots=True, kw_only=True)
class Span:
    """One span."""

    trace: str
    id: str
    parent: str
    """Empty for a root."""
    name: str
    start: int
    """Nanoseconds since the epoch."""
    end: int | None
    """None where the span never ended."""
    attributes: Node
    resource: Node
    events: Sequence[Event] = ()
    failed: str | None = None
    """What its status says of an error; None where it has none."""
    where: str = ""
    """Its place in the file."""
    children: list[Span] = field(default_factory=list["Span"], repr=False)


def is_otlp(document: Json) -> bool:
    """Return True where a document holds traces in OTLP-JSON."""
    return isinstance(document, dict) and any(key in document for key in _RESOURCES)


def spans_in(documents: Sequence[Json]) -> tuple[list[Span], int]:
    """Return the spans of documents in the order of the file, and how many were there twice.

    Raises:
        RecordingError: A document is damaged; says where, and not in which file.
    """
    found: dict[tuple[str, str], Span] = {}
    doubles = 0
    for number, document in enumerate(documents, start=1):
        where = f"line {number}: " if len(documents) > 1 else ""
        for span in _spans(node_at(document, f"{where}the document"), where):
            known = found.setdefault((span.trace, span.id), span)
            if known is span:
                continue
            if not _equal(known, span):
                raise RecordingError(f"{span.where} has the id {span.id!r} of another span, {known.where}")
            doubles += 1
    return list(found.values()), doubles


def _equal(one: Span, other: Span) -> bool:
    def said(span: Span) -> tuple[object, ...]:
        return span.parent, span.name, span.start, span.end, span.attributes, span.failed, tuple(span.events)

    return said(one) == said(other)


def _spans(document: Node, where: str) -> Iterator[Span]:
    for i, one in enumerate(_several(document, _RESOURCES, where)):
        at = f"{where}resourceSpans[{i}]"
        holder = node_at(one, at)
        described = node_at(holder.get("resource") or {}, f"{at}.resource")
        resource = _attributes(described.get("attributes"), f"{at}.resource.attributes")
        for j, scope in enumerate(_several(holder, _SCOPES, f"{at}.")):
            inner = f"{at}.scopeSpans[{j}]"
            for k, item in enumerate(list_at(node_at(scope, inner).get("spans") or [], f"{inner}.spans")):
                yield _span(node_at(item, f"{inner}.spans[{k}]"), resource, f"{inner}.spans[{k}]")


def _several(node: Node, keys: Sequence[str], where: str) -> list[Json]:
    found: list[Json] = []
    for key in keys:
        found += list_at(node.get(key) or [], f"{where}{key}")
    return found


def _span(node: Node, resource: Node, where: str) -> Span:
    def get(camel: str, snake: str) -> Json:
        return node.get(camel, node.get(snake))

    status = node_at(node.get("status") or {}, f"{where}.status")
    ids = [_id(get("traceId", "trace_id"), f"{where}.traceId"), _id(get("spanId", "span_id"), f"{where}.spanId")]
    parent = get("parentSpanId", "parent_span_id")
    start = _nanoseconds(get("startTimeUnixNano", "start_time_unix_nano"), f"{where}.startTimeUnixNano")
    end = _nanoseconds(get("endTimeUnixNano", "end_time_unix_nano"), f"{where}.endTimeUnixNano") or None
    if end is not None and end < start:
        raise RecordingError(f"{where} ends before it begins")
    events: list[Event] = []
    for index, item in enumerate(list_at(node.get("events") or [], f"{where}.events")):
        at = f"{where}.events[{index}]"
        event = node_at(item, at)
        attributes = _attributes(event.get("attributes"), f"{at}.attributes")
        events.append(Event(name=str(event.get("name") or ""), attributes=attributes))
    return Span(
        trace=ids[0],
        id=ids[1],
        parent="" if parent is None else required(parent, str, f"{where}.parentSpanId").lower(),
        name=str(node.get("name") or ""),
        start=start,
        end=end,
        attributes=_attributes(node.get("attributes"), f"{where}.attributes"),
        resource=resource,
        events=events,
        failed=str(status.get("message") or "failed") if status.get("code") in _FAILED else None,
        where=where,
    )


def _id(value: Json, where: str) -> str:
    found = required(value, str, where).lower()
    if not found:
        raise RecordingError(f"{where} is empty")
    return found


def _nanoseconds(value: Json, where: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        return int(value)
    if value is None:
        return 0
    found = required(value, int, where)
    if found < 0:
        raise RecordingError(f"{where} is {found}; a time is >= 0")
    return found


def _attributes(value: Json, where: str) -> Node:
    found: Node = {}
    for index, item in enumerate(list_at(value or [], where)):
        node = node_at(item, f"{where}[{index}]")
        key = required(node.get("key"), str, f"{where}[{index}].key")
        if key in found:
            raise RecordingError(f"{where} has {key!r} twice")
        found[key] = _value(node.get("value"), f"{where}[{index}].value", 0)
    return found


def _value(value: Json, where: str, depth: int) -> Json:
    """Return an `AnyValue` as plain JSON."""
    if depth > _DEEPEST:
        raise RecordingError(f"{where} is nested too deep")
    node = node_at({} if value is None else value, where)
    for key, item in node.items():
        kind = key.replace("_", "").lower()
        if kind in _PLAIN:
            if not isinstance(item, _PLAIN[kind]):
                raise RecordingError(f"{where}.{key} is {item!r:.60}, which is not of its type")
            return item
        if kind == "intvalue":
            return _whole(item, where)
        if kind == "arrayvalue":
            values = list_at(node_at(item or {}, where).get("values") or [], where)
            return [_value(one, f"{where}[{i}]", depth + 1) for i, one in enumerate(values)]
        if kind == "kvlistvalue":
            pairs = list_at(node_at(item or {}, where).get("values") or [], where)
            nodes = [node_at(one, where) for one in pairs]
            return {str(one.get("key")): _value(one.get("value"), where, depth + 1) for one in nodes}
    if node:
        raise RecordingError(f"{where} has none of the types that OTLP knows: {', '.join(node)}")
    return None


def _whole(value: Json, where: str) -> int:
    try:
        return int(cast("str", value))
    except (TypeError, ValueError) as error:
        raise RecordingError(f"{where} is {value!r:.60}, which is no whole number") from error
