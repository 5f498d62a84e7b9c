"""Ends tasks that may take a cancellation for a lost connection, as a client does that is just connecting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["cancelled"]

_AGAIN_S = 0.5


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, again and again, until all of them have ended; their errors are taken.

    Args:
        tasks: They may have ended already.
    """
    every = list(tasks)
    left = {task for task in every if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)
    await asyncio.gather(*every, return_exceptions=True)
