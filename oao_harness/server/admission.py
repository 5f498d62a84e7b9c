"""How many runs of one agent there are at once, and how many may wait; who comes after that is told when to come again.

By agent, because one that hangs holds its slots until its deadline, and must hold nobody else's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from oao_harness.server.refusals import TooBusy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Admission"]


class Admission:
    """The slots of one agent. Used from one event loop.

    Args:
        name: Of the agent, for who is refused.
        slots: Runs at once, >= 1.
        waiting: How many more may wait, >= 0.
    """

    def __init__(self, name: str, slots: int, waiting: int) -> None:
        self._name, self.slots, self._most = name, slots, waiting
        self._taken = 0
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        """Slots that are taken."""
        return self._taken

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    @asynccontextmanager
    async def slot(self, patience_s: float) -> AsyncGenerator[None]:
        """Have a slot while something runs; first come, first served.

        Args:
            patience_s: Seconds to wait at most.

        Raises:
            TooBusy: Too many wait already, or none became free in time.
        """
        if self._taken < self.slots:
            self._taken += 1
        else:
            await self._wait(patience_s)
        try:
            yield
        finally:
            self._free()

    async def _wait(self, patience_s: float) -> None:
        if len(self._line) >= self._most:
            raise TooBusy(
                f"agent {self._name!r} is busy: {self._taken} runs are at work and {len(self._line)} wait; come again"
            )
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(mine)
        try:
            await asyncio.wait_for(mine, patience_s)
        except BaseException as error:
            if mine.done() and not mine.cancelled():
                # Its slot came at the same moment.
                self._free()
            elif mine in self._line:
                self._line.remove(mine)
            if isinstance(error, TimeoutError):
                raise TooBusy(f"agent {self._name!r} is busy: no slot was free for {patience_s:g} s") from None
            raise

    def _free(self) -> None:
        while self._line:
            next_ = self._line.popleft()
            if not next_.done():
                # The slot goes from hand to hand.
                next_.set_result(None)
                return
        self._taken -= 1
