"""Awaits for code that cannot: one event loop in one daemon thread, started when first needed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Awaitable

__all__ = ["wait"]

_starting = threading.Lock()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="oao-portal", daemon=True).start()
    return loop


async def _await(awaitable: Awaitable[object], timeout_s: float) -> object:
    return await asyncio.wait_for(awaitable, timeout_s)


def wait(awaitable: Awaitable[object], timeout_s: float) -> object:
    """Block until an awaitable is done and return its result.

    Args:
        awaitable: Not bound to another event loop.
        timeout_s: Seconds it may take.

    Raises:
        TimeoutError: It was not done in time; it is cancelled.
    """
    with _starting:
        loop = _loop()
    future = asyncio.run_coroutine_threadsafe(_await(awaitable, timeout_s), loop)
    try:
        # A little longer than the loop's own bound: this one only fires where the awaitable blocks the loop.
        return future.result(timeout_s + 1.0)
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise
