"""The states of a run: INIT, PLAN, EXECUTE, REVIEW, TERMINATE, once and in that order."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from oao_harness.errors import IllegalTransition

__all__ = ["Lifecycle", "State"]

State: TypeAlias = Literal["INIT", "PLAN", "EXECUTE", "REVIEW", "TERMINATE"]

_MOVES: Final[dict[State, tuple[State, ...]]] = {
    "INIT": ("PLAN",),
    # A task that PLAN refuses never enters EXECUTE; the history must not claim that it did.
    "PLAN": ("EXECUTE", "TERMINATE"),
    "EXECUTE": ("REVIEW",),
    "REVIEW": ("TERMINATE",),
    "TERMINATE": (),
}


class Lifecycle:
    """Where a run is, and where it has been."""

    __slots__ = ("_history",)

    def __init__(self) -> None:
        self._history: list[State] = ["INIT"]

    @property
    def state(self) -> State:
        """The current state."""
        return self._history[-1]

    @property
    def history(self) -> tuple[State, ...]:
        """All states so far, the current one last."""
        return tuple(self._history)

    def enter(self, state: State) -> None:
        """Move to another state.

        Raises:
            IllegalTransition: The current state has no such move.
        """
        allowed = _MOVES[self.state]
        if state not in allowed:
            targets = " or ".join(allowed) or "nothing"
            raise IllegalTransition(f"a run in {self.state} cannot enter {state}; it may enter {targets}")
        self._history.append(state)
