"""Which volatile token of the live run stands for which recorded one: one to one, for all runs of a replay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oao_harness.journal.tokens import Token

__all__ = ["Conflict", "Renaming"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A token that is not the one that stands for the recorded one."""

    live: Token
    recorded: Token
    meant: Token | None = None
    """The recorded token that the live one stands for so far."""
    since: int | None = None
    """Number of the recorded event that said so."""
    expected: Token | None = None
    """The live token that stands for the recorded one so far."""
    answered: bool = False
    """True where the recorded one came with a served answer, and so can only be itself."""


class Renaming:
    """Grows with every served call and never forgets.

    A token that a served answer holds means itself: the agent can only have it from there. Where the answer repeats a
    token of a request, which the live run has renamed, both the new one and the repeated one mean it.
    """

    def __init__(self) -> None:
        self._recorded: dict[Token, Token] = {}
        self._live: dict[Token, Token] = {}
        self._since: dict[Token, int] = {}
        self._answered: dict[Token, int] = {}

    def meanings(self, live: Token) -> tuple[Token, ...]:
        """Return the recorded tokens that a live one stands for: none while it is new, rarely two."""
        bound = self._recorded.get(live)
        if live not in self._answered:
            return () if bound is None else (bound,)
        return (live,) if bound is None or bound == live else (bound, live)

    def is_taken(self, recorded: Token) -> bool:
        """Return True where nothing new may stand for a recorded token."""
        return recorded in self._live or recorded in self._answered

    def conflicts(self, live: Sequence[Token], recorded: Sequence[Token]) -> list[Conflict]:
        """Return where live tokens do not stand for the recorded ones at the same places; empty where all do."""
        found: list[Conflict] = []
        new: dict[Token, Token] = {}
        taken: dict[Token, Token] = {}
        for one, other in zip(live, recorded, strict=True):
            meanings = self.meanings(one) or ((new[one],) if one in new else ())
            if other in meanings:
                continue
            if not meanings and not self.is_taken(other) and other not in taken:
                new[one], taken[other] = other, one
                continue
            expected = self._live.get(other) or taken.get(other) or (other if other in self._answered else None)
            since = self._since.get(one, self._answered.get(one))
            since = self._since.get(expected, self._answered.get(expected)) if since is None and expected else since
            meant = meanings[0] if meanings else None
            answered = other in self._answered and other not in self._live
            found.append(
                Conflict(live=one, recorded=other, meant=meant, since=since, expected=expected, answered=answered)
            )
        return found

    def bind(self, live: Sequence[Token], recorded: Sequence[Token], n: int) -> None:
        """Keep what the tokens of a served request stand for.

        Args:
            live: Its tokens; without a conflict.
            recorded: Those of the recorded event.
            n: Number of that event.
        """
        for one, other in zip(live, recorded, strict=True):
            if not self.meanings(one):
                self._recorded[one], self._live[other] = other, one
                self._since[one] = n

    def answer(self, tokens: Iterable[Token], n: int) -> None:
        """Keep that a served answer holds tokens."""
        for token in tokens:
            self._answered.setdefault(token, n)

    def translated(self, live: Token) -> Token:
        """Return the recorded token that a live one stands for; the live one where it is new."""
        meanings = self.meanings(live)
        return meanings[0] if meanings else live
