"""Recordings: the journal of one or more runs as a file that a person reviews. Format 1.

```text
oao        1, the format
test       node id of the test, or ""
recorded   at (ISO 8601, UTC), oao (version), policy, python, sdk (versions by distribution)
messages   every message once, by reference: m1, m2 ...
tools      every tool schema once, by reference: t1, t2 ...
events     the calls in the order they started: n, kind, name, run, span, req, res | error, decision, key, usage ...
totals     steps, model_calls, tool_calls, tokens
```

`span` is `[start, end]` in ticks of a logical clock: what overlaps in it overlapped when it was recorded. A text of
several lines is `{"$lines": [...]}`, so that one changed line is one changed line in a review.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, cast

from oao_harness.errors import RecordingError
from oao_harness.journal.codec import holds_opaque
from oao_harness.journal.document import fold, pretty, unfold
from oao_harness.journal.records import error_from_json, key_of, usage_from_json, usage_to_json
from oao_hookspecs import Call, Effect, ErrorInfo, Json, ModelCall, Outcome, Record, ToolCall, Usage

__all__ = ["FORMAT", "RecordedEvent", "Recording"]

FORMAT: Final = 1
_SECRET_NAME: Final = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
_SECRET_LENGTH: Final = 8
_SDKS: Final = {
    "anthropic": "anthropic",
    "langchain_core": "langchain-core",
    "langgraph": "langgraph",
    "openai": "openai",
}
# Half of a surrogate pair, as a model's answer may hold it: JSON can escape it, UTF-8 cannot encode it.
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """One recorded call."""

    n: int
    """Number in the recording, from 1."""
    kind: str
    name: str
    run: str
    """Name of the agent whose run made the call."""
    start: int
    end: int
    """Ticks of the recording's logical clock."""
    request: Mapping[str, Json]
    key: str
    value: Json = None
    error: ErrorInfo | None = None
    usage: Usage | None = None
    decision: str = "allow"
    """Verdict and rule, for example `deny max_tool_calls`."""
    parent: int | None = None
    """Number of the event inside whose body the call was made."""
    attempts: int = 1
    finished: bool = True
    """False where no outcome was written before the recording ended."""
    call_id: str | None = None
    batch: int | None = None
    """Number of the model event whose answer asked for this call together with others."""
    scope: str = ""
    effect: Effect | None = field(default=None, compare=False)
    call_n: int = field(default=0, compare=False)
    """Number of the call in the journal of its run; 0 where the recording is a file."""

    @property
    def call(self) -> Call:
        """The call as it was made."""
        if self.kind == "tool":
            return ToolCall(name=self.name, arguments=self.request, call_id=self.call_id, scope=self.scope)
        rest = dict(self.request)
        messages = cast("Sequence[Mapping[str, Json]]", rest.pop("messages", ()))
        tools = cast("Sequence[Mapping[str, Json]]", rest.pop("tools", ()))
        return ModelCall(name=self.name, messages=messages, tools=tools, params=rest, scope=self.scope)

    @property
    def outcome(self) -> Outcome | None:
        """How the call ended; None where nobody knows."""
        if not self.finished:
            return None
        return Outcome(value=self.value, error=self.error, usage=self.usage, attempts=self.attempts, replayed=True)

    @property
    def denied(self) -> bool:
        """True where a policy refused the call when it was recorded."""
        return self.decision.startswith("deny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The recorded calls of one test or run."""

    test: str = ""
    events: tuple[RecordedEvent, ...] = ()
    header: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """`at`, `oao`, `policy`, `python`, `sdk`: what it was recorded with."""

    @classmethod
    def from_records(
        cls, records: Iterable[Record | tuple[str, Record]], *, test: str = "", policy: str = ""
    ) -> Recording:
        """Compile journal records.

        Args:
            records: Records of one run in order, or `(run name, record)` pairs of several runs in the order they
                were written.
            test: Node id of the test.
            policy: Name of the policy that was in force.
        """
        builder = _Builder()
        for item in records:
            run, record = item if isinstance(item, tuple) else ("", item)
            builder.add(run, record)
        header: dict[str, Json] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "oao": version("oao-harness"),
            "policy": policy,
            "python": platform.python_version(),
            "sdk": _loaded_versions(),
        }
        return cls(test=test, events=builder.events(), header=header)

    @classmethod
    def load(cls, path: str | Path, *, test: str | None = None) -> Recording:
        """Read a recording.

        Args:
            path: The file.
            test: The test it is read for; None accepts any.

        Raises:
            RecordingError: It is missing, truncated, of a newer format, damaged, or of another test.
        """
        path = Path(path)
        try:
            document: dict[str, Json] | None = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RecordingError(f"no recording {_shown(path)}; record it with --oao-record=once") from error
        except (ValueError, OSError) as error:
            raise RecordingError(
                f"recording {_shown(path)} is truncated or not JSON ({error}); restore it from version control, "
                "or delete it and record again"
            ) from error
        number = document.get("oao") if isinstance(document, dict) else None
        if not isinstance(number, int):
            raise RecordingError(f"{_shown(path)} is not a recording of oao: it has no format number under 'oao'")
        if number != FORMAT:
            advice = "upgrade oao-harness" if number > FORMAT else "record it again"
            raise RecordingError(f"recording {_shown(path)} has format {number}, this oao reads {FORMAT}; {advice}")
        recording = _read(cast("dict[str, Json]", document), path)
        # By module and test only: the folders before them depend on where pytest was started.
        if test is not None and recording.test and recording.test.rpartition("/")[2] != test.rpartition("/")[2]:
            raise RecordingError(
                f"recording {_shown(path)} is of test {recording.test!r}, not of {test!r}; "
                "rename the file, or delete it and record again"
            )
        return recording

    def save(self, path: str | Path) -> None:
        """Write the recording, whole or not at all.

        Args:
            path: The file; its folder is made where it is missing.

        Raises:
            RecordingError: A value cannot be read back later, or the text holds a secret of the environment.
        """
        path = Path(path)
        for event in self.events:
            opaque = holds_opaque(event.value)
            if opaque is not None:
                raise RecordingError(
                    f"step {event.n} {event.kind} {event.name} returned a {opaque}, which a recording cannot hold; "
                    "return plain data, a dataclass or a pydantic model"
                )
        text = _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", pretty(self.to_json(), "")) + "\n"
        self._refuse_secrets(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                Path(temporary).chmod(0o644)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise RecordingError(f"recording {_shown(path)} cannot be written: {error}") from error

    def _refuse_secrets(self, path: Path) -> None:
        secrets = [
            (name, value)
            for name, value in os.environ.items()
            if len(value) >= _SECRET_LENGTH and _SECRET_NAME.search(name.upper())
        ]
        if not secrets:
            return
        # In the values, not in the file: there, lines and quotes of a secret are written differently.
        for text in _texts([[event.name, event.request, event.value, _error_parts(event)] for event in self.events]):
            for name, value in secrets:
                if value in text:
                    raise RecordingError(
                        f"recording {_shown(path)} would hold the value of ${name}; it was not saved. "
                        "Keep secrets out of prompts and tool results"
                    )

    def to_json(self) -> dict[str, Json]:
        """Return the document as it is written."""
        return _write(self)

    @property
    def totals(self) -> dict[str, Json]:
        """Steps, calls and tokens of all events."""
        usages = [event.usage for event in self.events if event.usage is not None]
        return {
            "steps": len(self.events),
            "model_calls": sum(event.kind == "model" for event in self.events),
            "tool_calls": sum(event.kind == "tool" for event in self.events),
            "tokens": sum(usage.total_tokens for usage in usages),
        }


class _Builder:
    """Pairs calls with their outcomes and counts ticks."""

    def __init__(self) -> None:
        self._tick = 0
        self._open: dict[tuple[str, int], dict[str, Json]] = {}
        self._calls: list[dict[str, Json]] = []
        self._ids: dict[str, str] = {}
        self._batches: dict[tuple[str, Json], int] = {}
        self._names: dict[str, str] = {}
        # The call inside whose body a run was started.
        self._inside: dict[str, Json] = {}

    def add(self, run: str, record: Record) -> None:
        type_ = record["type"]
        if type_ not in {"call", "outcome"}:
            if type_ == "run.started":
                self._start(run, record)
            return
        self._tick += 1
        n = cast("int", record["n"])
        if type_ == "call":
            call: dict[str, Json] = {**record, "run": run or self._ids.get("", ""), "start": self._tick}
            self._open[run, n] = call
            self._calls.append(call)
            call["number"] = len(self._calls)
            call["batch"] = self._batches.get((run, record.get("call_id")))
            parent = self._open.get((run, cast("int", record.get("parent") or 0)))
            call["parent_number"] = parent["number"] if parent is not None else self._inside.get(run)
        elif (run, n) in self._open:
            self._open[run, n].update({"outcome": dict(record), "end": self._tick})
            for call_id in cast("list[Json]", record.get("batch") or ()):
                if call_id is not None:
                    self._batches[run, call_id] = cast("int", self._open[run, n]["number"])

    def _start(self, run: str, record: Record) -> None:
        if not run:
            self._ids[""] = str(record["agent"])
        self._names[str(record["execution_id"])] = run
        parent = self._names.get(str(record.get("parent", "")))
        if parent is not None and record.get("parent_call") is not None:
            outer = self._open.get((parent, cast("int", record["parent_call"])))
            if outer is not None:
                self._inside[run] = outer["number"]

    def events(self) -> tuple[RecordedEvent, ...]:
        return tuple(self._event(call) for call in self._calls)

    def _event(self, call: Mapping[str, Json]) -> RecordedEvent:
        outcome = cast("Mapping[str, Json] | None", call.get("outcome"))
        decision = cast("Mapping[str, Json]", call["decision"])
        # What the agent asked for, not what a policy made of it: a replay compares the agent's requests.
        request = cast("Mapping[str, Json]", call.get("given") or call["req"])
        denied = decision["verdict"] == "deny"
        error = usage = None
        if outcome is not None:
            if outcome.get("error") is not None:
                error = error_from_json(cast("Mapping[str, Json]", outcome["error"]))
            if outcome.get("usage") is not None:
                usage = usage_from_json(cast("Mapping[str, Json]", outcome["usage"]))
        return RecordedEvent(
            n=cast("int", call["number"]),
            kind=str(call["kind"]),
            name=str(call["name"]),
            run=str(call["run"]),
            start=cast("int", call["start"]),
            end=cast("int", call.get("end") or (call["start"] if denied else self._tick + 1)),
            request=request,
            key=key_of(str(call["kind"]), str(call["name"]), request),
            value=outcome.get("res") if outcome is not None else None,
            error=error,
            usage=usage,
            decision=f"{decision['verdict']} {decision['rule']}".rstrip(),
            parent=cast("int | None", call["parent_number"]),
            attempts=cast("int", outcome.get("attempts", 1)) if outcome is not None else 1,
            finished=outcome is not None or denied,
            call_id=cast("str | None", call.get("call_id")),
            batch=cast("int | None", call["batch"]),
            scope=str(call.get("scope", "")),
            effect=cast("Effect | None", call.get("effect")),
            call_n=cast("int", call["n"]),
        )


def _loaded_versions() -> dict[str, Json]:
    """Return the versions of the frameworks and clients that this process uses: what a reader suspects first."""
    return {name: version(name) for module, name in _SDKS.items() if module in sys.modules}


# The document


def _write(recording: Recording) -> dict[str, Json]:
    messages, tools = _Interned("m"), _Interned("t")
    events: list[Json] = []
    for event in recording.events:
        request = dict(event.request)
        if event.kind == "model":
            request["messages"] = [messages.ref(item) for item in cast("list[Json]", request.get("messages", ()))]
            if "tools" in request:
                request["tools"] = [tools.ref(item) for item in cast("list[Json]", request["tools"])]
        events.append(_event_to_json(event, request, messages))
    return {
        "oao": FORMAT,
        "test": recording.test,
        "recorded": recording.header,
        "messages": messages.table(),
        "tools": tools.table(),
        "events": events,
        "totals": recording.totals,
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


def _read(document: Mapping[str, Json], path: Path) -> Recording:
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
        return Recording(test=str(document.get("test", "")), events=tuple(events), header=header)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(
            f"recording {_shown(path)} is damaged in {where}: {type(error).__name__} {error}; "
            "restore it from version control, or delete it and record again"
        ) from error


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
    )


def _error_parts(event: RecordedEvent) -> Json:
    return None if event.error is None else [event.error.message, event.error.data]


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _shown(path: Path) -> str:
    try:
        return repr(str(path.relative_to(Path.cwd())))
    except ValueError:
        return repr(str(path))
