"""The recording of one test: what the mode makes of it, what is played, and what is kept when the test has passed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

import pytest

from oao_harness.errors import RecordingError
from oao_harness.journal.attempts import Attempt
from oao_harness.journal.changes import changes
from oao_harness.journal.events import HTTP
from oao_harness.journal.forking import forked
from oao_harness.journal.http_replay import HttpReplay, asked_for
from oao_harness.journal.live import Forking, PartlyLive, without_live
from oao_harness.journal.matcher import Matcher
from oao_harness.journal.mutation import Strength, strength
from oao_harness.journal.pending import pending_path
from oao_harness.journal.playback import Playback, replay_id
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.replay import Divergence, Replay
from oao_harness.journal.scrubbing import Scrubbed
from oao_harness.journal.tokens import DEFAULT_KINDS
from oao_harness.journal.wire_replay import replay_of
from oao_harness.policy.project import shown
from oao_hookspecs import Call, Json, Record
from pytest_oao.http_layer import INSTALL, missing
from pytest_oao.marker import option_of
from pytest_oao.settings import Action, Mode, Order, Settings
from pytest_oao.world import ClockMode, World

__all__ = ["State", "TestRecording"]

State: TypeAlias = Literal["ok", "same", "live", "recorded", "pending", "diverged", "no recording", "unplayed"]

_MOST_MUTANTS: Final = 20
_EVERYTHING: Final = ({"*"}, {"model", "tool"})


class _Unplayable:
    """Stands for a recording that is missing or damaged: every call diverges, and says why."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def serve(self, call: Call, run: str) -> Divergence:
        return Divergence(kind="unrecorded", text=self._reason, name=call.name)

    plays_wire = False

    def serve_inside(self, call: Call, run: str) -> None:
        return None

    def unplayed_text(self) -> str | None:
        return None

    def holds(self, call: Call) -> bool:
        return False


class TestRecording:
    """The recording of one attempt of one test.

    Args:
        nodeid: The test.
        path: Its file, there or not.
        settings: Of the session.
        marks: The test's markers, nearest first.
        refused: Why this test cannot have a recording; None where it can.
    """

    __test__ = False

    def __init__(
        self, nodeid: str, path: Path, settings: Settings, marks: Sequence[pytest.Mark], refused: str | None = None
    ) -> None:
        self.path = path
        self.exists = path.exists()
        """True where there was a recording when the test began."""
        self.mode: Mode = settings.record
        """What the session does with recordings."""
        self.state: State = "live"
        """What became of it."""
        self.changes: str | None = None
        """How what happened differs from what was recorded, in one line; in the modes `new` and `all`."""
        self.refused = refused
        self.replay: Replay | None = None
        self.playback: Playback | None = None
        """Puts the records of replayed runs into the recorded order."""
        self._nodeid = nodeid
        self._settings = settings
        self._live = cast("tuple[str, ...]", option_of(marks, "live", settings.live))
        self._order: Order = option_of(marks, "order", settings.order)
        self._ignore = (*settings.ignore, *cast("tuple[str, ...]", option_of(marks, "ignore", ())))
        self._volatile = settings.volatile or DEFAULT_KINDS
        self._unplayed = cast("Action", option_of(marks, "unplayed", settings.unplayed))
        self._forking: Forking | None = None
        self.served_http: set[int] = set()
        """Numbers of the recorded requests that were answered from the recording."""
        self._http = option_of(marks, "http", settings.http) != "off"
        self._clock: ClockMode = option_of(marks, "clock", settings.clock)

    @cached_property
    def old(self) -> Recording | RecordingError | None:
        """The recording that there was, or why it cannot be read; None where there was none."""
        if not self.exists:
            return None
        try:
            return Recording.load(self.path, test=self._nodeid)
        except RecordingError as error:
            return error

    @property
    def recorded(self) -> tuple[RecordedEvent, ...]:
        """The calls of the recording that there was."""
        return self.old.events if isinstance(self.old, Recording) else ()

    @property
    def is_live(self) -> bool:
        """True where nothing of this test is played, nor kept."""
        return self.refused is not None or self.is_all_live

    @property
    def is_all_live(self) -> bool:
        """True where somebody asked for that: `--oao-live=*`."""
        return set(self._live) in _EVERYTHING

    @property
    def plays(self) -> bool:
        """True where calls are answered by the recording, or refused because there is none."""
        return not self.is_live and (self.mode == "none" or (self.exists and self.mode in {"once", "new"}))

    @property
    def keeps(self) -> bool:
        """True where the calls of the test, should it pass, become a recording."""
        return not self.is_live and (not self.plays or self.has_forked)

    @property
    def lets_calls_happen(self) -> bool:
        """True where some calls are live although the rest is played."""
        return bool(self._live)

    @property
    def has_forked(self) -> bool:
        """True where the run has left its recording."""
        return self._forking is not None and self._forking.reason is not None

    @property
    def recorded_at(self) -> str | None:
        """When it was recorded, ISO 8601; None where nobody knows."""
        at = self.old.header.get("at") if isinstance(self.old, Recording) else None
        return at if isinstance(at, str) else None

    @property
    def recorded_cost(self) -> float | None:
        """What its model calls cost when they were recorded, in US dollars; None where nobody knows."""
        cost = self.old.header.get("cost_usd") if isinstance(self.old, Recording) else None
        return float(cost) if isinstance(cost, int | float) else None

    def age_days(self, now: datetime) -> int | None:
        """Return how many days ago it was recorded; None where it does not say."""
        if not isinstance(self.old, Recording):
            return None
        try:
            return (now.astimezone(UTC) - datetime.fromisoformat(str(self.old.header.get("at")))).days
        except (ValueError, TypeError):
            return None

    @cached_property
    def has_http(self) -> bool:
        """True where requests of agents and tools may have to be recorded, or answered from the recording."""
        if not self._http or self.is_live or missing():
            return False
        if not self.plays:
            return True
        return self.mode == "new" or (self.plays_http and bool(asked_for(cast("Recording", self.old), self._live)))

    @cached_property
    def plays_http(self) -> bool:
        """True where requests are answered from the recording, or refused because they are not in it."""
        return self._http and self.plays and any(event.kind == HTTP for event in self.recorded)

    def world(self) -> World | None:
        """Return the time and the chance that the test sees; None where it neither plays nor makes a recording."""
        if self.is_live:
            return None
        if isinstance(self.old, Recording) and self.mode != "rewrite":
            # Also where all calls are live: what is compared with the recording must see the same time.
            return World.of(self.old.header, self._clock)
        return None if self.plays else World.fresh(self._clock)

    def replay_id(self, name: str) -> str | None:
        """Return the id of a run that plays the recording, the same each time; None where nothing is played."""
        return replay_id(self.old, name) if self.plays and isinstance(self.old, Recording) else None

    def open(self, forked: Callable[[], None]) -> None:
        """Find out what answers the calls of the test.

        Args:
            forked: Called when a run leaves its recording, before the first new call happens.
        """
        if not self.plays:
            return
        self.state = "ok"
        if isinstance(self.old, RecordingError):
            self.replay = _Unplayable(str(self.old))
        elif self.old is None:
            self.replay = _Unplayable(
                f'no recording of this test; record it: pytest --oao-record=once "{self._nodeid}"'
            )
        else:
            played = without_live(self.old, self._live) if self._live else self.old
            self.playback = Playback(played)
            replay: Replay = replay_of(played, order=self._order, ignore=self._ignore, volatile=self._volatile)
            if self.plays_http and isinstance(replay, Matcher):
                replay = HttpReplay(
                    replay,
                    self.old,
                    self._live,
                    order=self._order,
                    ignore=self._ignore,
                    volatile=self._volatile,
                )
                left = asked_for(self.old, self._live)
                if left and missing():
                    self.replay = _Unplayable(
                        f"step {left[0].n} http {left[0].name} must be served, and vcrpy is not installed: {INSTALL}"
                    )
                    return
            replay = Scrubbed(replay, self._settings.scrubber)
            if self._live:
                replay = PartlyLive(replay, self._live)
            elif self.mode == "new":
                replay = self._forking = Forking(replay, forked)
            self.replay = replay

    def attempt(self) -> Attempt | None:
        """Return what keeps the calls of the test while they are made, so that a crash loses nothing that was paid.

        None where all calls are played.
        """
        if self.is_live or (self.plays and self._forking is None):
            return None
        return Attempt(
            self._settings.root / ".oao", f"{self.path.parent.name}.{self.path.stem}", self._settings.scrubber
        )

    def strength(self) -> Strength | None:
        """Return how many altered requests the recording would have refused; None where it was not played as it is."""
        limit = self._settings.mutate
        if limit is None or self.state != "ok" or not isinstance(self.old, Recording):
            return None
        return strength(self.old, ignore=self._ignore, volatile=self._volatile, limit=limit or _MOST_MUTANTS)

    def unplayed(self) -> str | None:
        """Return which recorded calls were not made, where that fails the test."""
        left = self.replay.unplayed_text() if self.replay is not None else None
        if left is None or self._unplayed == "ignore":
            return None
        if self._forking is not None:
            # The agent does less than it did: that is a new recording too.
            self._forking.reason = self._forking.reason or left
            return None
        self.state = "unplayed"
        if self._unplayed == "warn":
            self.changes = left
            return None
        return f"{left}\n{self.advice()}"

    def advice(self, kind: str = "") -> str:
        """Return where the recording is, and what to do where the change was meant.

        Args:
            kind: What kind of divergence it was, where it was one; see `ReplayDiverged`.
        """
        if not self.exists:
            return f"expected at {self.shown_path}"
        if isinstance(self.replay, _Unplayable):
            # Why it cannot be played, and what to do, is in the reason; nobody intended it.
            return f'to record again: pytest --oao-record=rewrite "{self._nodeid}"'
        lines = [f"recording {self.shown_path}{self._made_with()}"]
        # What `new` replays it judges too: another verdict is kept only of a run that is live from its start.
        mode = "all" if kind == "verdict" else "new"
        lines.append(f'intended?  pytest --oao-record={mode} "{self._nodeid}" && oao review')
        return "\n".join(lines)

    def _made_with(self) -> str:
        if not isinstance(self.old, Recording):
            return ""
        header = self.old.header
        policy = f" with policy {header['policy']}" if header.get("policy") else ""
        return f", recorded {str(header['at'])[:10]}{policy}" if header.get("at") else ""

    @property
    def shown_path(self) -> str:
        """The path as a person would write it here."""
        return shown(self.path)

    def keep(self, tape: Sequence[tuple[str, Record]], header: dict[str, Json], world: World | None) -> str | None:
        """Keep what a passing test did; return why the test fails because that cannot be kept.

        Args:
            tape: `(run name, record)` in the order they were written.
            header: What the recording's header says beside what it always says.
            world: What the test saw of time and chance.
        """
        made = self._made(tape, {**(world.header() if world is not None else {}), **header})
        if all(event.kind == HTTP for event in made.events):
            return None
        if unfinished := next((event for event in made.events if not event.finished), None):
            return (
                f"step {unfinished.n} {unfinished.kind} {unfinished.name} had not ended when the test did, and so it "
                "could never be replayed; let the test wait for it"
            )
        path = self.path
        if isinstance(self.old, Recording) and self.mode != "rewrite":
            found = changes(self.old, made.scrubbed(self._settings.scrubber))
            if not found.behaviour:
                self.state = "same"
                return None
            self.changes = found.headline
            path = pending_path(path)
        try:
            made.save(path, scrubber=self._settings.scrubber)
        except RecordingError as error:
            return str(error)
        self.state = "recorded" if path == self.path else "pending"
        return None

    def withdraw(self) -> None:
        """Delete what an earlier run left pending, after a run that shows it is no longer so."""
        if self.mode in {"new", "all", "rewrite"} and self.state in {"ok", "same", "recorded"}:
            with suppress(OSError):
                pending_path(self.path).unlink(missing_ok=True)

    def _made(self, tape: Sequence[tuple[str, Record]], header: dict[str, Json]) -> Recording:
        policy = self._settings.policy
        if self.has_forked and isinstance(self.old, Recording):
            events = (record.get("event") for _, record in tape if record["type"] == "outcome")
            served = {event for event in events if isinstance(event, int)} | self.served_http
            return forked(self.old, served, tape, policy=policy, header=header)
        clock = cast("float | None", header.get("clock"))
        return Recording.from_records(tape, test=self._nodeid, policy=policy, clock=clock, header=header)
