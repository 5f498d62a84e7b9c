"""One recorded run of another tool on its way to be a recording: its calls in order, and what cannot be replayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final, TypedDict, Unpack

from oao_harness.errors import RecordingError
from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.recording import Recording
from oao_harness.journal.shape import Shaper
from oao_hookspecs import ErrorInfo, Json, ProposedCall, Usage

__all__ = ["ImportedRun", "RunBuilder", "Told"]

# Each request holds all messages before it: what a run of more of them costs grows with the square.
_MOST_MESSAGES: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRun:
    """A recorded run of another tool."""

    recording: Recording
    """Its header says `form`, `source`, `agent`, `task` where known, and the notes."""
    name: str = ""
    """What the file calls the run, unique in it; empty where the file is one run."""
    notes: Sequence[str] = ()
    """What is not recorded, and so cannot be replayed or judged."""


class Told(TypedDict, total=False):
    """What a file may tell of any call, whatever its kind."""

    error: ErrorInfo | None
    """Set where it failed."""
    finished: bool
    """False where nobody knows how it ended."""
    parent: int | None
    """Number of the call inside whose body it was made."""
    at: float | None
    """When it ended, in seconds after the recording's clock."""
    took_s: float | None
    """How long it took, in seconds."""


class RunBuilder:
    """Takes the calls of one run in order.

    Args:
        form: Short name of the file's form, for example `agentdojo`.
        source: Name of the file.
        name: See `ImportedRun`.
        agent: Name of the agent that the run is of.
    """

    def __init__(self, *, form: str, source: str, agent: str, name: str = "") -> None:
        self.agent = agent
        self.task: str | None = None
        self._header: dict[str, Json] = {"form": form, "source": source, "agent": agent}
        self._name = name
        self._events: list[RecordedEvent] = []
        self._messages: dict[str, int] = {}
        self._notes: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()
        self._shaper = Shaper()
        self._tick = 0

    def model(
        self,
        name: str,
        messages: Sequence[Json],
        answer: Json,
        *,
        agent: str = "",
        span: tuple[int, int] | None = None,
        tools: Sequence[Json] = (),
        params: Mapping[str, Json] | None = None,
        usage: Usage | None = None,
        **told: Unpack[Told],
    ) -> int:
        """Add a model call and return its number.

        Args:
            name: Of the model.
            messages: The request.
            answer: The message that it answered with.
            agent: Who made the call; the run's agent by default.
            span: Its ticks; after all before it by default.
            tools: As far as they are recorded.
            params: What else was asked for.
            usage: Tokens; None where they are not recorded.
            told: See `Told`.

        Raises:
            RecordingError: The request is too long.
        """
        if len(messages) > _MOST_MESSAGES:
            raise RecordingError(f"a request has {len(messages)} messages; at most {_MOST_MESSAGES} are read")
        request: dict[str, Json] = {"messages": list(messages), **(dict(params) if params else {})}
        if tools:
            request["tools"] = list(tools)
        failed = told.get("error") is not None or not told.get("finished", True)
        value: Json = None if failed else {"message": answer}
        return self._add("model", name, request, value, agent=agent, span=span, usage=usage, **told)

    def tool(
        self,
        call: ProposedCall,
        *,
        agent: str = "",
        span: tuple[int, int] | None = None,
        batch: int | None = None,
        value: Json = None,
        **told: Unpack[Told],
    ) -> int:
        """Add a tool call and return its number.

        Args:
            call: Name, arguments and id.
            agent: See `model`.
            span: See `model`.
            batch: Number of the model call whose answer asked for it together with others.
            value: What it returned.
            told: See `Told`.
        """
        return self._add(
            "tool", call.name, dict(call.arguments), value,
            agent=agent, span=span, call_id=call.call_id, batch=batch, **told,
        )  # fmt: skip

    def _add(
        self,
        kind: str,
        name: str,
        request: Mapping[str, Json],
        value: Json,
        *,
        agent: str,
        span: tuple[int, int] | None,
        usage: Usage | None = None,
        call_id: str | None = None,
        batch: int | None = None,
        **told: Unpack[Told],
    ) -> int:
        n = len(self._events) + 1
        run = agent or self.agent
        start, end = span or (self._tick + 1, self._tick + 2)
        self._tick = max(self._tick, end)
        key = self._shaper.shape(kind, name, request, run, is_final=True).key
        event = RecordedEvent(
            n=n, kind=kind, name=name, run=run, start=start, end=end, request=request, key=key, value=value,
            usage=usage, call_id=call_id, batch=batch, **told,
        )  # fmt: skip
        self._events.append(event)
        return n

    def move(self, n: int, *, start: int, end: int) -> None:
        """Give a call other ticks, where its end is known only later."""
        self._events[n - 1] = replace(self._events[n - 1], start=start, end=end)

    def note(self, text: str) -> None:
        """Say once what is not recorded."""
        self._notes[text] += 1

    def count(self, text: str) -> None:
        """Say what is not recorded, and how often; `{n}` in the text is the number."""
        self._counted[text] += 1

    def head(self, **fields: Json) -> None:
        """Keep what the file says of the run in the header; None is nothing."""
        self._header |= {key: value for key, value in fields.items() if value is not None}

    @property
    def events(self) -> int:
        """How many calls there are so far."""
        return len(self._events)

    def build(self) -> ImportedRun:
        """Return the run."""
        notes = [*self._notes, *(text.format(n=n) for text, n in self._counted.items())]
        header: dict[str, Json] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "oao": version("oao-harness"),
            "policy": "",
            **self._header,
        }
        if self.task is not None:
            header["task"] = self.task
        if self._name:
            header["run"] = self._name
        if notes:
            header["notes"] = list(notes)
        events = tuple(self._events)
        return ImportedRun(recording=Recording(events=events, header=header), name=self._name, notes=tuple(notes))
