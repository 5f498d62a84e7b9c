"""Where the outcomes of a replayed run come from: what the gate asks of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from oao_hookspecs import Call, Outcome

__all__ = ["Replay", "Served"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A recorded outcome that answers a call."""

    outcome: Outcome
    children: Sequence[tuple[Call, Outcome | None, bool]] = ()
    """Calls that were made inside of it when it was recorded, also in runs nested in it, how they ended, or None, and
    whether they were denied."""
    decision: str = "allow"
    """The recorded verdict and rule; where it is a denial there is no outcome to serve."""
    n: int | None = None
    """The call's number in the journal that the run itself continues; None where another run is played."""
    known: bool = False
    """True where that journal holds the outcome: it is neither written nor told again."""
    event: int | None = None
    """Number of the recorded event that answers; None where nobody numbered it."""
    again: bool = False
    """True where the call began, has no outcome, and may be made again: there is nothing to serve."""


class Replay(Protocol):
    """Answers calls from a recording."""

    def serve(self, call: Call, run_name: str) -> Served | str | None:
        """Return the recorded outcome, or a text that says how the call diverges; its first line stands alone.

        None: the call is new, and may be made. Called once per call, from any thread, before the policies are asked.
        """
        ...

    def holds(self, call: Call) -> bool:
        """Return True where a proposed call was made after all, so that nobody needs to be asked about it again."""
        ...

    def unplayed_text(self) -> str | None:
        """Return one line that names the recorded calls that were not made, or None where all were."""
        ...
