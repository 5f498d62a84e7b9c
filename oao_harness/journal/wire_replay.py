"""Recordings of which only the wire is known: the requests to model providers, and not the agent's own calls.

A recording that was imported from HTTP traffic has `layer: wire` in its header. Its events are the requests of the
providers' clients. A framework's model call and a tool call are then judged and made as in a live run; the request
that the model call's body sends is what must be in the recording, and it is served from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from oao_harness.journal.events import HTTP
from oao_harness.journal.matcher import Matcher, Order
from oao_harness.journal.recording import Recording
from oao_harness.journal.replay import Divergence, Replay, Served
from oao_harness.journal.tokens import DEFAULT_KINDS
from oao_hookspecs import Call

__all__ = ["ENDPOINT", "LAYER", "WIRE", "WireReplay", "is_wire", "replay_of"]

LAYER: Final = "layer"
WIRE: Final = "wire"
ENDPOINT: Final = "endpoint"
"""The parameter by which a model call says that it is a request of a provider's client: `chat/completions` ..."""


def is_wire(call: Call) -> bool:
    """Return True for a request of a provider's own client, False for a call of an agent's framework."""
    return call.kind == "model" and isinstance(call.params.get(ENDPOINT), str)


class WireReplay:
    """Serves the requests of providers' clients; all other calls are new, and are made.

    Args:
        matcher: Holds the recorded requests.
    """

    plays_wire = True
    """See `Replay.plays_wire`."""

    def __init__(self, matcher: Replay) -> None:
        self._matcher = matcher

    def serve(self, call: Call, run: str) -> Served | Divergence | None:
        """Return the recorded response of a client's request; None for every other call. See `Replay.serve`."""
        return self._matcher.serve(call, run) if is_wire(call) else None

    def serve_inside(self, call: Call, run: str) -> Served | Divergence | None:
        """Return the recorded response of a request that a governed call's body sends; see `Replay.serve_inside`."""
        return self._matcher.serve(call, run)

    def holds(self, call: Call) -> bool:
        """Return what the matcher says; see `Replay.holds`."""
        return self._matcher.holds(call)

    def unplayed_text(self) -> str | None:
        """Return one line that names the requests that nobody sent; see `Replay.unplayed_text`."""
        return self._matcher.unplayed_text()


def replay_of(
    recording: Recording,
    *,
    order: Order = "causal",
    ignore: Iterable[str] = (),
    volatile: Iterable[str] = DEFAULT_KINDS,
) -> Replay:
    """Return what plays a recording, whatever it knows: calls of agents, or the wire only.

    Args:
        recording: What was recorded.
        order: See `Matcher`.
        ignore: See `Matcher`.
        volatile: See `Matcher`.
    """
    # Who runs nothing of what was recorded asks for no HTTP; see `http_replay`.
    calls = tuple(event for event in recording.events if event.kind != HTTP)
    matcher = Matcher(replace(recording, events=calls), order=order, ignore=ignore, volatile=volatile)
    return WireReplay(matcher) if recording.header.get(LAYER) == WIRE else matcher
