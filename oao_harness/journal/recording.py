"""Recordings: the journal of one or more runs as a file that a person reviews. Format 1.

```text
oao        1, the format
test       node id of the test, or ""
recorded   at (ISO 8601, UTC), oao (version), policy, python, sdk (versions by distribution), clock (Unix seconds)
messages   every message once, by reference: m1, m2 ...
tools      every tool schema once, by reference: t1, t2 ...
events     the calls in the order they started: n, kind, name, run, span, req, res | error, decision, key, usage,
           at (when it ended, in seconds after `clock`), took_s ...
totals     steps, model_calls, tool_calls, tokens [, http]
```

Four or more references in a row are a range, `"m1..m4"`. `span` is `[start, end]` in ticks of a logical clock: what
overlaps in it overlapped when it was recorded. A text of several lines is `{"$lines": [...]}`, so that one changed line
is one changed line in a review; a large content is `{"$blob": name, "as": ...}`, a file in the folder `blobs` beside
the recording. Fields that this version does not know are kept. Nothing is written that holds a secret: see `secrets`
and `credentials`.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, cast

from oao_harness.errors import RecordingError
from oao_harness.journal.blobs import Blobs, write_whole
from oao_harness.journal.codec import holds_opaque
from oao_harness.journal.compiling import compiled
from oao_harness.journal.credentials import Finding, find_credentials, may_hold_credentials
from oao_harness.journal.document import pretty
from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.places import test_of
from oao_harness.journal.recording_file import FORMAT, from_document, to_document
from oao_harness.journal.secrets import Scrubber
from oao_hookspecs import Json, Record

__all__ = ["FORMAT", "RecordedEvent", "Recording"]

_MOST_FINDINGS: Final = 3
_SDKS: Final = {
    "anthropic": "anthropic",
    "langchain_core": "langchain-core",
    "langgraph": "langgraph",
    "openai": "openai",
}
# What the text of a recording has where the codec met a value that cannot be read back.
_OPAQUE: Final = '"opaque"'
# Half of a surrogate pair, as a model's answer may hold it: JSON can escape it, UTF-8 cannot encode it.
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The recorded calls of one test or run."""

    test: str = ""
    events: tuple[RecordedEvent, ...] = ()
    header: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """`at`, `oao`, `policy`, `python`, `sdk`, `clock`: what it was recorded with."""
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json], compare=False)
    """What the file says that this version does not know; kept when it is written again."""

    @classmethod
    def from_records(
        cls,
        records: Iterable[Record | tuple[str, Record]],
        *,
        test: str = "",
        policy: str = "",
        clock: float | None = None,
        header: Mapping[str, Json] | None = None,
    ) -> Recording:
        """Compile journal records.

        Args:
            records: Records of one run in order, or `(run name, record)` pairs of several runs in the order they
                were written.
            test: Node id of the test.
            policy: Name of the policy that was in force.
            clock: When the recording's clock began, in Unix seconds; by default with the first record.
            header: What else the header says.
        """
        tape = list(records)
        if clock is None and tape:
            first = tape[0][1] if isinstance(tape[0], tuple) else tape[0]
            clock = cast("float", first["at"])
        whole: dict[str, Json] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "oao": version("oao-harness"),
            "policy": policy,
            "python": platform.python_version(),
            "sdk": _loaded_versions(),
            **({"clock": clock} if clock is not None else {}),
            **(header or {}),
        }
        return cls(test=test, events=compiled(tape, clock), header=whole)

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
        except (ValueError, OSError, RecursionError) as error:
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
        try:
            content = from_document(cast("dict[str, Json]", document), Blobs(path.parent).read)
        except RecordingError as error:
            raise RecordingError(
                f"recording {_shown(path)} is damaged in {error}; "
                "restore it from version control, or delete it and record again"
            ) from error
        recording = cls(test=content.test, header=content.header, events=content.events, extra=content.extra)
        if test is not None and recording.test and test_of(recording.test) != test_of(test):
            raise RecordingError(
                f"recording {_shown(path)} is of test {recording.test!r}, not of {test!r}; "
                "rename the file, or delete it and record again"
            )
        return recording

    def save(self, path: str | Path, *, scrubber: Scrubber | None = None) -> None:
        """Write the recording, whole or not at all, without secrets.

        Args:
            path: The file; its folder is made where it is missing.
            scrubber: What is replaced; by default the secrets that the environment holds now.

        Raises:
            RecordingError: A value cannot be read back later, or something still looks like a credential.
        """
        path = Path(path)
        blobs = Blobs(path.parent)
        text = self._text(blobs)
        if _OPAQUE in text:
            self._refuse_opaque()
        looked_at = "\n".join([text, *blobs.texts()])
        clean = self.scrubbed(Scrubber.of() if scrubber is None else scrubber, text=looked_at)
        if clean is not self:
            blobs = Blobs(path.parent)
            text = clean._text(blobs)
            looked_at = "\n".join([text, *blobs.texts()])
        if may_hold_credentials(looked_at):
            clean._refuse_credentials(path)
        try:
            # First: a recording never refers to what is not there.
            blobs.write()
            write_whole(path, _encoded(text))
        except OSError as error:
            raise RecordingError(f"recording {_shown(path)} cannot be written: {error}") from error

    def scrubbed(self, scrubber: Scrubber, *, text: str | None = None) -> Recording:
        """Return the recording as it is written: without secrets, keys computed from what is left.

        Args:
            scrubber: What is replaced.
            text: The recording as JSON text, where the caller has it.
        """
        events = scrubber.events(self.events, text)
        header, extra = (
            cast("Mapping[str, Json]", scrubber.scrub(cast("Json", dict(one)))) for one in (self.header, self.extra)
        )
        test = str(scrubber.scrub(self.test))
        if events is self.events and (test, header, extra) == (self.test, self.header, self.extra):
            return self
        return replace(self, test=test, events=events, header=header, extra=extra)

    def credentials(self) -> Iterator[tuple[RecordedEvent | None, Finding]]:
        """Yield what looks like a credential, and the event it stands in; None for the header."""
        looked_at: set[int] = set()
        for event in self.events:
            for path, value in _parts(event):
                if id(value) not in looked_at:
                    # Messages are shared: each is looked at where it stands first.
                    looked_at.add(id(value))
                    for found in find_credentials(value, path):
                        yield event, found
        for found in find_credentials({"recorded": dict(self.header), **self.extra}, ""):
            yield None, found

    def _refuse_opaque(self) -> None:
        for event in self.events:
            opaque = holds_opaque(event.value)
            if opaque is not None:
                raise RecordingError(
                    f"step {event.n} {event.kind} {event.name} returned a {opaque}, which a recording cannot hold; "
                    "return plain data, a dataclass or a pydantic model"
                )

    def _refuse_credentials(self, path: Path) -> None:
        found = list(self.credentials())
        if not found:
            return
        event, first = found[0]
        lines = [f"recording {_shown(path)} would hold {first.kind} in {_place(event, first)}; it was not saved"]
        lines += [f"  and {other.kind} in {_place(where, other)}" for where, other in found[1:_MOST_FINDINGS]]
        lines += [f"  and {len(found) - _MOST_FINDINGS} more"] if len(found) > _MOST_FINDINGS else []
        if event is not None and "(a key)" not in first.path:
            first_path = re.sub(r"\[\d+\]", ".*", first.path)
            pattern = json.dumps(f"{event.kind}.{event.name}.{first_path}")
            lines.append(f"Keep it out of prompts and results, or redact it: [tool.oao.redact] paths = [{pattern}]")
        else:
            lines.append("Keep it out of prompts and results, or redact it: [tool.oao.redact] patterns = [...]")
        raise RecordingError("\n".join(lines))

    def _text(self, blobs: Blobs) -> str:
        document = to_document(self.test, self.header, self.events, self.totals, extra=self.extra, aside=blobs.aside)
        return pretty(document, "") + "\n"

    def to_json(self) -> dict[str, Json]:
        """Return the document as it is written, but for large contents, which stay in it."""
        return to_document(self.test, self.header, self.events, self.totals, extra=self.extra)

    @property
    def totals(self) -> dict[str, Json]:
        """Steps, calls and tokens of all events."""
        http = [event for event in self.events if event.kind == "http"]
        usages = [event.usage for event in self.events if event.usage is not None]
        return {
            "steps": len(self.events) - len(http),
            "model_calls": sum(event.kind == "model" for event in self.events),
            "tool_calls": sum(event.kind == "tool" for event in self.events),
            "tokens": sum(usage.total_tokens for usage in usages),
            **({"http": len(http)} if http else {}),
        }


def _loaded_versions() -> dict[str, Json]:
    """Return the versions of the frameworks and clients that this process uses: what a reader suspects first."""
    return {name: version(name) for module, name in _SDKS.items() if module in sys.modules}


def _parts(event: RecordedEvent) -> Iterator[tuple[str, Json]]:
    """Yield what an event holds, messages and tools one by one, with its path."""
    yield "name", event.name
    for key, item in event.request.items():
        if event.kind == "model" and key in {"messages", "tools"} and isinstance(item, list):
            yield from ((f"req.{key}[{index}]", one) for index, one in enumerate(item))
        else:
            yield "req", {key: item}
    if isinstance(event.value, Mapping) and isinstance(event.value.get("message"), Mapping):
        yield "res.message", event.value["message"]
        yield "res", {key: item for key, item in event.value.items() if key != "message"}
    else:
        yield "res", event.value
    if event.error is not None:
        yield "error", {"message": event.error.message, **event.error.data}
    if event.extra:
        yield "", dict(event.extra)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode("utf-8")


def _place(event: RecordedEvent | None, found: Finding) -> str:
    where = "the header" if event is None else f"event {event.n} ({event.kind} {event.name})"
    return f"{where}, {found.path}"


def _shown(path: Path) -> str:
    try:
        return repr(str(path.relative_to(Path.cwd())))
    except ValueError:
        return repr(str(path))
