"""A recording as a JSON document, and back: messages and tool schemas once each, by reference. Format 1.

```text
oao        1, the format
test       node id of the test; empty for a run that was exported
recorded   at, oao, policy, python, sdk (versions by package), clock [, run, task]
messages   by name, m1 to the last, in the order in which they were met
tools      schemas of tools by name, t1 to the last
events     [{n, kind, name, span, req, decision, key
             [, run, call_id, scope, parent, batch, res | error, usage, attempts, at, took_s, finished]}]
totals     steps, model_calls, tool_calls, tokens
```

An event is one call: `kind` is `model`, `tool` or `http`. `span` are the ticks of a logical clock at which it began and
ended: two events whose spans overlap ran side by side. `req` is the request; the messages and tools of a model call are
names, or ranges such as `"m1..m7"`. `res` is the result, or `error` its `type`, `message` and `data`; `$message` in it
is the name of a message. `decision` is the verdict and its rule. `key` is 16 hex digits over kind, name and request
without volatile tokens: an index, checked when the file is played. `parent` is the event inside of whose body the call
was made, `batch` the model event whose answer asked for it together with others. `at` is when it ended, in seconds
after `clock` (Unix seconds), `took_s` how long it took where that was a millisecond or more. `usage` are tokens:
`in`, `out`, `estimated`. `finished` is there, and false, where no outcome was written. A text of several lines
is `{"$lines": [...]}`; a large content is a file of its own in `blobs/` beside the recording, `{"$blob": NAME}`. Fields
that this version does not know are kept when it writes the file again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from oao_harness.errors import RecordingError
from oao_harness.journal.document import fold, may_fold, unfold
from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.records import error_from_json, key_of, usage_from_json, usage_to_json
from oao_harness.journal.sharing import canonical
from oao_hookspecs import Json

__all__ = ["FORMAT", "Content", "from_document", "to_document"]

FORMAT: Final = 1
Aside: TypeAlias = Callable[[str], Json]
Read: TypeAlias = Callable[[Mapping[str, Json]], str]

_RANGE: Final = ".."
_SHORTEST_RANGE: Final = 4
_FIELDS: Final = frozenset({"oao", "test", "recorded", "messages", "tools", "events", "totals"})
_EVENT_FIELDS: Final = frozenset(
    (
        *("n", "kind", "name", "run", "call_id", "scope", "parent", "batch", "span", "req", "res", "error", "usage"),
        *("attempts", "at", "took_s", "finished", "decision", "key"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a document says."""

    test: str
    header: Mapping[str, Json]
    events: tuple[RecordedEvent, ...]
    extra: Mapping[str, Json]
    """What this version does not know; kept when the document is written again."""


def to_document(
    test: str,
    header: Mapping[str, Json],
    events: Iterable[RecordedEvent],
    totals: Mapping[str, Json],
    *,
    extra: Mapping[str, Json] | None = None,
    aside: Aside | None = None,
) -> dict[str, Json]:
    """Return the document of a recording, as it is written.

    Args:
        test: Node id of the test.
        header: What it was recorded with.
        events: The calls.
        totals: See `Recording.totals`.
        extra: Fields that this version does not know.
        aside: Returns what stands for a large text; see `fold`.
    """
    messages, tools = _Interned("m", aside), _Interned("t", aside)
    nodes: list[Json] = []
    for event in events:
        request = dict(event.request)
        if event.kind == "model":
            request["messages"] = messages.refs(event.run, cast("list[Json]", request.get("messages", ())))
            if "tools" in request:
                request["tools"] = tools.refs(event.run, cast("list[Json]", request["tools"]))
        nodes.append(_event_to_json(event, request, messages, aside))
    return {
        "oao": FORMAT,
        "test": test,
        "recorded": dict(header),
        "messages": messages.table(),
        "tools": tools.table(),
        "events": nodes,
        "totals": dict(totals),
        **(extra or {}),
    }


def _event_to_json(
    event: RecordedEvent, request: dict[str, Json], messages: _Interned, aside: Aside | None
) -> dict[str, Json]:
    node: dict[str, Json] = {"n": event.n, "kind": event.kind, "name": event.name}
    node |= {"run": event.run} if event.run else {}
    node |= {"call_id": event.call_id} if event.call_id else {}
    node |= {"scope": event.scope} if event.scope else {}
    node |= {"parent": event.parent} if event.parent else {}
    node |= {"batch": event.batch} if event.batch else {}
    node |= {"span": [event.start, event.end], "req": fold(request, aside)}
    if event.error is not None:
        error: dict[str, Json] = {"type": event.error.type, "message": event.error.message}
        node["error"] = fold({**error, "data": dict(event.error.data)}, aside)
    elif event.finished and not event.denied:
        value = event.value
        if event.kind == "model" and isinstance(value, Mapping) and isinstance(value.get("message"), Mapping):
            rest = {key: item for key, item in value.items() if key != "message"}
            value = {"$message": messages.ref(value["message"]), **rest}
        node["res"] = fold(value, aside)
    node |= {"usage": usage_to_json(event.usage)} if event.usage is not None else {}
    node |= {"attempts": event.attempts} if event.attempts > 1 else {}
    node |= {"at": event.at} if event.at is not None else {}
    node |= {"took_s": event.took_s} if event.took_s else {}
    node |= {} if event.finished else {"finished": False}
    node |= {"decision": event.decision}
    node |= event.extra
    node["key"] = event.key
    return node


class _Interned:
    """Values kept once and named in the order they were met."""

    def __init__(self, prefix: str, aside: Aside | None) -> None:
        self._prefix = prefix
        self._aside = aside
        self._numbers: dict[str, int] = {}
        self._by_id: dict[int, tuple[Json, int]] = {}
        self._values: dict[str, Json] = {}
        self._last: dict[str, tuple[list[Json], list[list[int]]]] = {}

    def ref(self, value: Json) -> str:
        """Return the name of one value."""
        return f"{self._prefix}{self._number(value)}"

    def refs(self, lane: str, values: Sequence[Json]) -> list[Json]:
        """Return the names of many values; four or more in a row as one range, `m1..m4`.

        Args:
            lane: What calls after each other share; the next list in it mostly goes on where the last one ended.
            values: The values.
        """
        given = list(values)
        came, rows = self._last.get(lane, ([], []))
        if len(came) > len(given) or not all(map(operator.is_, came, given)):
            came, rows = [], []
        # The rows of the last list are copied only as far as they are changed.
        rows = [*rows[:-1], *([[*rows[-1]]] if rows else [])]
        for number in map(self._number, given[len(came) :]):
            if rows and rows[-1][1] + 1 == number:
                rows[-1][1] = number
            else:
                rows.append([number, number])
        self._last[lane] = (given, rows)
        return list(self._names(rows))

    def _names(self, rows: Iterable[Sequence[int]]) -> Iterator[str]:
        prefix = self._prefix
        for first, last in rows:
            if last - first + 1 >= _SHORTEST_RANGE:
                yield f"{prefix}{first}{_RANGE}{prefix}{last}"
            else:
                yield from (f"{prefix}{number}" for number in range(first, last + 1))

    def _number(self, value: Json) -> int:
        known = self._by_id.get(id(value))
        if known is not None:
            return known[1]
        text = canonical(value)
        number = self._numbers.get(text)
        if number is None:
            number = len(self._numbers) + 1
            self._numbers[text] = number
            # The text tells at once that there is nothing to fold, which is so for most.
            self._values[f"{self._prefix}{number}"] = fold(value, self._aside) if may_fold(text) else value
        # Kept with the value: an id is good only as long as its object lives.
        self._by_id[id(value)] = (value, number)
        return number

    def table(self) -> dict[str, Json]:
        return self._values


class _Table:
    """Values by the names that requests refer to them by."""

    def __init__(self, prefix: str, nodes: Mapping[str, Json], read: Read | None) -> None:
        self._prefix = prefix
        self._values = {name: unfold(item, read) for name, item in nodes.items()}
        ordered = all(name == f"{prefix}{number}" for number, name in enumerate(nodes, start=1))
        # Where a person has deleted one or moved it, a range is looked up name by name.
        self._ordered = list(self._values.values()) if ordered else None

    def __getitem__(self, name: str) -> Json:
        return self._values[name]

    def all(self, refs: Json) -> list[Json]:
        """Return the values of names and ranges."""
        found: list[Json] = []
        for ref in cast("list[str]", refs):
            first, is_range, last = ref.partition(_RANGE)
            if not is_range:
                found.append(self._values[ref])
            elif found:
                found += self._range(first, last)
            else:
                # Most are one range; a long one is not copied twice.
                found = self._range(first, last)
        return found

    def _range(self, first: str, last: str) -> list[Json]:
        begin, end = int(first.removeprefix(self._prefix)), int(last.removeprefix(self._prefix))
        if self._ordered is not None and 1 <= begin <= end <= len(self._ordered):
            return self._ordered[begin - 1 : end]
        return [self._values[f"{self._prefix}{number}"] for number in range(begin, end + 1)]


def from_document(document: Mapping[str, Json], read: Read | None = None) -> Content:
    """Return what a document says.

    Args:
        document: The document.
        read: Returns the text that a `{"$blob": ...}` stands for.

    Raises:
        RecordingError: It is damaged; says where, and not in which file.
    """
    where = "the header"
    try:
        messages = _Table("m", cast("dict[str, Json]", document["messages"]), read)
        tools = _Table("t", cast("dict[str, Json]", document["tools"]), read)
        events: list[RecordedEvent] = []
        known: set[int] = set()
        for index, node in enumerate(cast("list[dict[str, Json]]", document["events"]), start=1):
            where = f"event {index}"
            event = _event_from_json(node, messages, tools, read)
            _check(event, node, known)
            known.add(event.n)
            events.append(event)
        where = "the header"
        header = document.get("recorded") or {}
        if not isinstance(header, Mapping):
            raise RecordingError("recorded is no object")
        return Content(
            test=str(document.get("test", "")),
            header=header,
            events=tuple(events),
            extra={key: item for key, item in document.items() if key not in _FIELDS},
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise RecordingError(f"{where}: {type(error).__name__} {error}") from error
    except RecordingError as error:
        raise RecordingError(f"{where}: {error}") from error


def _check(event: RecordedEvent, node: Mapping[str, Json], known: Collection[int]) -> None:
    """Refuse what contradicts itself: of two events of one number, a replay would play one and miss neither."""
    if event.n in known:
        raise RecordingError(f"its number {event.n} is that of another event")
    if event.parent is not None and event.parent not in known:
        raise RecordingError(f"its parent {event.parent} is no event before it")
    if event.end < event.start:
        raise RecordingError(f"its span {[event.start, event.end]} ends before it begins")
    if event.finished and not event.denied and "res" not in node and event.error is None:
        raise RecordingError("it has neither res nor error")


def _event_from_json(node: Mapping[str, Any], messages: _Table, tools: _Table, read: Read | None) -> RecordedEvent:
    get = node.get
    kind, name, run = str(node["kind"]), str(node["name"]), str(get("run", ""))
    request = unfold(node["req"], read)
    if not isinstance(request, dict):
        raise RecordingError("its req is no object")
    if kind == "model":
        request = {**request, "messages": messages.all(request["messages"])}
        if "tools" in request:
            request["tools"] = tools.all(request["tools"])
    value: Json = get("res")
    if value.__class__ is not str:
        value = unfold(value, read)
        if isinstance(value, dict) and "$message" in value:
            rest = {key: item for key, item in value.items() if key != "$message"}
            value = {"message": messages[str(value["$message"])], **rest}
    start, end = node["span"]
    error, usage = get("error"), get("usage")
    return RecordedEvent(
        n=int(node["n"]),
        kind=kind,
        name=name,
        run=run,
        start=int(start),
        end=int(end),
        request=request,
        # Trusted, so that loading needs no hashing; the matcher finds out where a request was edited by hand.
        key=str(get("key") or key_of(kind, name, request)),
        value=value,
        error=error_from_json(cast("dict[str, Json]", unfold(error, read))) if error is not None else None,
        usage=usage_from_json(usage) if usage is not None else None,
        decision=str(get("decision", "allow")),
        parent=get("parent"),
        attempts=int(get("attempts", 1)),
        finished=bool(get("finished", True)),
        call_id=get("call_id"),
        batch=get("batch"),
        scope=str(get("scope", "")),
        at=get("at"),
        took_s=get("took_s"),
        extra={} if _EVENT_FIELDS.issuperset(node) else {k: node[k] for k in node if k not in _EVENT_FIELDS},
    )
