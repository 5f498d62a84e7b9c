"""Where the outcomes of a replayed run come from: what the gate asks of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from oao_harness.journal.differences import Difference
from oao_hookspecs import Call, Outcome

__all__ = ["Divergence", "DivergenceKind", "Replay", "Served"]

DivergenceKind: TypeAlias = Literal[
    "changed",
    "identity",
    "order",
    "repeat",
    "unexpected",
    "exhausted",
    "unfinished",
    "unplayed",
    "unreadable",
    "unrecorded",
    "verdict",
    "network",
    "doubt",
]
"""What a divergence is.

```text
changed     the request is another one than the recorded one
identity    it is the same but for an id, which is not the one that stands for the recorded one
order       it was recorded, and something recorded before it was not asked for yet
repeat      it was asked for more often than it was recorded
unexpected  something else was recorded
exhausted   the recording is over
unfinished  the call never ended when it was recorded
unplayed    a recorded call was not asked for
unreadable  the recorded result cannot be read back
unrecorded  there is no recording, or it is damaged
verdict     the policies decide otherwise than when it was recorded
network     the code under test connects to the network
doubt       nobody knows whether a call of an interrupted run happened
```
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """How a call is not what the recording holds."""

    kind: DivergenceKind
    text: str
    """What a person reads; the first line stands alone."""
    step: int | None = None
    """Number of the recorded event that it is compared with, or would have been."""
    name: str = ""
    """Name of the model or tool that was called."""
    differences: tuple[Difference, ...] = ()
    """All of them, also those that the text leaves out."""


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

    @property
    def plays_wire(self) -> bool:
        """True where only the requests to model providers were recorded: the calls around them are made."""
        ...

    def serve(self, call: Call, run: str) -> Served | Divergence | None:
        """Return the recorded outcome, or how the call diverges. Called once per call, from any thread.

        None: the call is new, and may be made. The policies are asked afterwards.

        Args:
            call: What the agent asks for.
            run: Name of the live run that asks.
        """
        ...

    def serve_inside(self, call: Call, run: str) -> Served | Divergence | None:
        """Return the recorded response of a request that the body of a governed call sends to a model provider.

        None: it may be sent. That is always so where the calls themselves were recorded: a body that runs is live.
        """
        ...

    def holds(self, call: Call) -> bool:
        """Return True where a proposed call was made after all, so that nobody needs to be asked about it again."""
        ...

    def unplayed_text(self) -> str | None:
        """Return one line that names the recorded calls that were not made, or None where all were."""
        ...
