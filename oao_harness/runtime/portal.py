"""Awaits for code that cannot: one event loop in one daemon thread, started when first needed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import threading
from collections.abc import Awaitable

from oao_harness.runtime.context import in_plugin

__all__ = ["settled", "wait"]

_starting = threading.Lock()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="oao-portal", daemon=True).start()
    return loop


if hasattr(os, "register_at_fork"):
    # The child has the loop, but not its thread.
    os.register_at_fork(after_in_child=_loop.cache_clear)


async def settled(awaitable: Awaitable[object]) -> tuple[object, BaseException | None]:
    """Return what a plugin's awaitable returns, or raises, as a value; only its caller's cancellation is raised.

    A task that raises SystemExit or KeyboardInterrupt stops its whole loop, one that raises StopIteration is never
    done, and one that raises CancelledError looks as if its caller was cancelled.
    """
    token = in_plugin.set(True)
    try:
        return await awaitable, None
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return None, RuntimeError(f"{type(error).__name__} of its own")
    except GeneratorExit as error:
        return None, RuntimeError(f"{type(error).__name__} of its own")
    except BaseException as error:  # noqa: BLE001 - a value now
        return None, error
    finally:
        in_plugin.reset(token)


async def _await(awaitable: Awaitable[object], timeout_s: float) -> tuple[object, BaseException | None]:
    return await asyncio.wait_for(settled(awaitable), timeout_s)


def wait(awaitable: Awaitable[object], timeout_s: float) -> tuple[object, BaseException | None]:
    """Block until an awaitable is done and return its result, or what it raised.

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
