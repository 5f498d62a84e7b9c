"""Plays a recording from which secrets were taken: the live requests are compared without them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from oao_harness.journal.events import HttpCall
from oao_harness.journal.replay import Divergence, Replay, Served
from oao_harness.journal.secrets import Scrubber
from oao_hookspecs import Call, Json, ToolCall

__all__ = ["Scrubbed"]


class Scrubbed:
    """Hands calls on without the secrets that the environment holds now.

    Args:
        replay: Plays the recording.
        scrubber: Replaces secrets as they were replaced when the recording was saved.
    """

    def __init__(self, replay: Replay, scrubber: Scrubber) -> None:
        self._replay = replay
        self._scrubber = scrubber

    @property
    def plays_wire(self) -> bool:
        """See `Replay.plays_wire`."""
        return self._replay.plays_wire

    def serve(self, call: Call, run: str) -> Served | Divergence | None:
        """See `Replay.serve`."""
        return self._replay.serve(self._clean(call), run)

    def serve_inside(self, call: Call, run: str) -> Served | Divergence | None:
        """See `Replay.serve_inside`."""
        return self._replay.serve_inside(self._clean(call), run)

    def holds(self, call: Call) -> bool:
        """See `Replay.holds`."""
        return self._replay.holds(call)

    def unplayed_text(self) -> str | None:
        """See `Replay.unplayed_text`."""
        return self._replay.unplayed_text()

    def _clean(self, call: Call) -> Call:
        request = call.request
        found = self._scrubber.request(call.kind, call.name, request)
        if found is request:
            return call
        if isinstance(call, ToolCall):
            return replace(call, arguments=found)
        if isinstance(cast("object", call), HttpCall):
            return cast("Call", replace(cast("Any", call), request=found))
        rest = dict(found)
        messages = cast("Sequence[Mapping[str, Json]]", rest.pop("messages", ()))
        tools = cast("Sequence[Mapping[str, Json]]", rest.pop("tools", ()))
        return replace(call, messages=messages, tools=tools, params=rest)
