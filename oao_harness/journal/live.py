"""Replays that let some calls happen: kinds or tools that are live, and a recording that is played until it differs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from oao_harness.journal.recording import Recording
from oao_harness.journal.replay import Divergence, Replay, Served
from oao_hookspecs import Call

__all__ = ["Forking", "PartlyLive", "is_live", "without_live"]


def is_live(kind: str, name: str, live: Sequence[str]) -> bool:
    """Return True where a call is not replayed.

    Args:
        kind: `model`, `tool` or `http`.
        name: Of the model or tool.
        live: Kinds, names, or `kind:name`; names may be globs.
    """
    return any(
        one == kind or fnmatchcase(name, one) or (":" in one and fnmatchcase(f"{kind}:{name}", one)) for one in live
    )


def without_live(recording: Recording, live: Sequence[str]) -> Recording:
    """Return a recording without the calls that are not replayed; calls inside of them are kept."""
    gone = {event.n for event in recording.events if is_live(event.kind, event.name, live)}
    events = tuple(
        # A batch stays one where the model that asked for it is live: its calls may still come in any order.
        replace(event, parent=None) if event.parent in gone else event
        for event in recording.events
        if event.n not in gone
    )
    return replace(recording, events=events)


class PartlyLive:
    """Plays a recording, and lets the calls of some kinds and names happen.

    Args:
        replay: Plays the rest; made of what `without_live` left.
        live: Kinds and names, see `is_live`.
    """

    def __init__(self, replay: Replay, live: Sequence[str]) -> None:
        self._replay = replay
        self._live = tuple(live)

    def serve(self, call: Call, run: str) -> Served | Divergence | None:
        """See `Replay.serve`."""
        return None if is_live(call.kind, call.name, self._live) else self._replay.serve(call, run)

    @property
    def plays_wire(self) -> bool:
        """See `Replay.plays_wire`."""
        return self._replay.plays_wire

    def serve_inside(self, call: Call, run: str) -> Served | Divergence | None:
        """See `Replay.serve_inside`."""
        return None if is_live(call.kind, call.name, self._live) else self._replay.serve_inside(call, run)

    def holds(self, call: Call) -> bool:
        """See `Replay.holds`."""
        return self._replay.holds(call)

    def unplayed_text(self) -> str | None:
        """See `Replay.unplayed_text`."""
        return self._replay.unplayed_text()


class Forking:
    """Plays a recording until a call differs; from then on everything happens.

    A recorded answer that comes after a changed request belongs to a conversation that did not happen: it is never
    mixed into the new one.

    Args:
        replay: Plays the recording.
        forked: Called once, at the first call that differs, before it happens.
    """

    def __init__(self, replay: Replay, forked: Callable[[], None]) -> None:
        self._replay = replay
        self._forked = forked
        self._lock = threading.Lock()
        self.reason: str | None = None
        """How the call differs that was the first to happen; None while everything is played."""

    @property
    def plays_wire(self) -> bool:
        """See `Replay.plays_wire`."""
        return self._replay.plays_wire and self.reason is None

    def serve(self, call: Call, run: str) -> Served | Divergence | None:
        """See `Replay.serve`."""
        return self._or_fork(self._replay.serve, call, run)

    def serve_inside(self, call: Call, run: str) -> Served | Divergence | None:
        """See `Replay.serve_inside`."""
        return self._or_fork(self._replay.serve_inside, call, run)

    def _or_fork(self, serve: Callable[[Call, str], Served | Divergence | None], call: Call, run: str) -> Served | None:
        with self._lock:
            if self.reason is not None:
                return None
            found = serve(call, run)
            if found is None or isinstance(found, Served):
                return found
            self.reason = found.text
            self._forked()
            return None

    def holds(self, call: Call) -> bool:
        """See `Replay.holds`."""
        return self._replay.holds(call)

    def unplayed_text(self) -> str | None:
        """See `Replay.unplayed_text`; None after a call that differs: the rest is of a conversation that was left."""
        return self._replay.unplayed_text() if self.reason is None else None
