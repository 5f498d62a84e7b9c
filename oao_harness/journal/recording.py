"""Recordings: the journal of one or more runs as a file that a person reviews. Format 1.

```text
oao        1, the format
test       node id of the test, or ""
recorded   at (ISO 8601, UTC), oao (version), policy, python, sdk (versions by distribution), clock (Unix seconds)
messages   every message once, by reference: m1, m2 ...
tools      every tool schema once, by reference: t1, t2 ...
events     the calls in the order they started: n, kind, name, run, span, req, res | error, decision, key, usage,
           at (when it ended, in seconds after `clock`), took_s ...
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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, cast

from oao_harness.errors import RecordingError
from oao_harness.journal.codec import holds_opaque
from oao_harness.journal.compiling import compiled
from oao_harness.journal.document import pretty
from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.recording_file import FORMAT, from_document, to_document
from oao_hookspecs import Json, Record

__all__ = ["FORMAT", "RecordedEvent", "Recording"]

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
class Recording:
    """The recorded calls of one test or run."""

    test: str = ""
    events: tuple[RecordedEvent, ...] = ()
    header: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """`at`, `oao`, `policy`, `python`, `sdk`, `clock`: what it was recorded with."""

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
        try:
            found, header, events = from_document(cast("dict[str, Json]", document))
        except RecordingError as error:
            raise RecordingError(
                f"recording {_shown(path)} is damaged in {error}; "
                "restore it from version control, or delete it and record again"
            ) from error
        recording = cls(test=found, header=header, events=events)
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
        return to_document(self.test, self.header, self.events, self.totals)

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


def _loaded_versions() -> dict[str, Json]:
    """Return the versions of the frameworks and clients that this process uses: what a reader suspects first."""
    return {name: version(name) for module, name in _SDKS.items() if module in sys.modules}


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
