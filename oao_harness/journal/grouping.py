"""What many runs of one event loop ask of a store at the same time, asked in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar, cast

from oao_harness.errors import StoreError
from oao_harness.journal.leases import me
from oao_harness.journal.writer import Writer
from oao_hookspecs import Record, Store

__all__ = ["Group"]

_Q = TypeVar("_Q")
_A = TypeVar("_A")

_MOST: Final = 200
"""So many questions are asked at once at most: their answers must come within the time of one."""


class _Grouping(Protocol):
    def claim_many(
        self, execution_ids: Sequence[str], *, owner: str, ttl_s: float
    ) -> list[tuple[int, Sequence[Record]] | Exception]: ...

    def append_many(self, appends: Sequence[tuple[str, int, Sequence[Record]]]) -> list[Exception | None]: ...


class _Gathering(Generic[_Q, _A]):
    """Questions that are asked together as soon as the loop has turned once.

    Between a question and its answer nothing is on its way that a cancelled run could overtake: a question either
    still waits, and is taken back, or is answered.
    """

    def __init__(self, ask: Callable[[Sequence[_Q]], Sequence[_A | Exception]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[_Q, asyncio.Future[_A]]] = []

    async def ask(self, question: _Q, loop: asyncio.AbstractEventLoop) -> _A:
        answer: asyncio.Future[_A] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append((question, answer))
        # Cancelled, it is not sent.
        return await answer

    def _send(self) -> None:
        asked, self._waiting = self._waiting, []
        asked = [one for one in asked if not one[1].cancelled()]
        for start in range(0, len(asked), _MOST):
            some = asked[start : start + _MOST]
            try:
                answers = self._ask([question for question, _ in some])
            except Exception as error:  # noqa: BLE001 - handed to all whose it is
                answers = [error] * len(some)
            for (_, future), answer in zip(some, answers, strict=True):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)


@dataclass(slots=True)
class _Claim:
    execution_id: str
    epoch: int = 0


class Group:
    """The runs of one event loop, the running one, in one store.

    Args:
        store: One that groups, see `of`.
        ttl_s: Seconds that a lease lives where nobody renews it.
    """

    def __init__(self, store: Store, ttl_s: float) -> None:
        self._store = store
        self._many = cast("_Grouping", store)
        self._ttl_s = ttl_s
        self._loop = asyncio.get_running_loop()
        self._claims: _Gathering[_Claim, tuple[int, Sequence[Record]]] = _Gathering(self._claim_all)
        self._commits: _Gathering[Writer, None] = _Gathering(self._commit_all)

    @classmethod
    def of(cls, store: Store, ttl_s: float) -> Group | None:
        """Return a group of a store; None for one to which a question costs too little to wait for others."""
        return cls(store, ttl_s) if getattr(store, "groups", False) else None

    @property
    def is_here(self) -> bool:
        """True in the event loop that the group is of."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    async def claim(self, execution_id: str) -> tuple[int, Sequence[Record]]:
        """Become the only writer of a run; see `Store.claim`.

        Returns:
            The epoch, 0 for a run that does not exist, and its records.
        """
        asked = _Claim(execution_id)
        try:
            return await self._claims.ask(asked, self._loop)
        except asyncio.CancelledError:
            if asked.epoch:
                # It was answered, and nobody hears it.
                with suppress(StoreError):
                    self._store.release(execution_id, asked.epoch)
            raise

    def _claim_all(self, asked: Sequence[_Claim]) -> list[tuple[int, Sequence[Record]] | Exception]:
        answers = self._many.claim_many([one.execution_id for one in asked], owner=me(), ttl_s=self._ttl_s)
        for one, answer in zip(asked, answers, strict=True):
            one.epoch = 0 if isinstance(answer, Exception) else answer[0]
        return answers

    async def commit(self, writer: Writer) -> None:
        """Write what waits in a writer; see `Writer.flush`. Cancelled before, it still waits."""
        await self._commits.ask(writer, self._loop)

    def _commit_all(self, writers: Sequence[Writer]) -> list[None | Exception]:
        with ExitStack() as stack:
            # Nobody writes to these journals meanwhile.
            pending = [stack.enter_context(writer.committing()) for writer in writers]
            some = [commit for commit in pending if commit.records]
            errors = self._many.append_many([(one.execution_id, one.epoch, one.records) for one in some])
            for commit, error in zip(some, errors, strict=True):
                commit.error = error
                if error is None:
                    commit.kept()
        return [commit.error for commit in pending]
