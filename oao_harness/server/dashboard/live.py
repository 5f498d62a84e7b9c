"""Pages that change while they are looked at: fragments by server-sent events, only those that differ.

Each event is the whole of a region, never a change of it: one that is lost, doubled or late does no harm, and whoever
connects again is told everything once.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Final, TypeVar

from sse_starlette import EventSourceResponse, ServerSentEvent

from oao_harness.server.callers import Caller
from oao_harness.server.dashboard.pages import may
from oao_harness.server.dashboard.snapshot import Snapshot, regions_of
from oao_harness.server.service import Service

__all__ = ["digest_of", "regions", "run", "streamed"]

T = TypeVar("T")
_LEAST_S: Final = 0.25
"""Seconds between two looks, however much happens."""
_SETTLED_S: Final = 1.5
"""Seconds after which a page looks again: something may have happened while it was on its way."""
_TICK_S: Final = 1.0
_SHARE: Final = 5
"""A look that takes long is followed by a pause this many times as long."""
_TOLD: Final = re.compile(r"(<time [^>]*>)[^<]*")


def streamed(events: AsyncIterator[ServerSentEvent], heartbeat_s: float) -> EventSourceResponse:
    """Return a stream of events as an answer.

    Args:
        events: What is sent.
        heartbeat_s: Seconds after which a comment is sent, so that nobody in between thinks it dead.
    """
    return EventSourceResponse(events, ping=max(1, round(heartbeat_s)), headers={"Cache-Control": "no-store"})


def digest_of(markup: str) -> str:
    """Return what a fragment is recognised by; that time passes is no change of it."""
    timeless = _TOLD.sub(r"\1", markup)
    return f"{zlib.crc32(timeless.encode('utf-8', 'backslashreplace')):08x}"


class _Notice:
    """That something happened; how often does not matter."""

    def __init__(self) -> None:
        self.is_over = False
        self._told = asyncio.Event()

    def tell(self) -> None:
        self._told.set()

    async def wait(self, timeout_s: float | None) -> None:
        """Return as soon as something happened, or after a time; what happened before this counts too."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), timeout_s)
        self._told.clear()


@asynccontextmanager
async def _noticed(source: AsyncGenerator[object]) -> AsyncGenerator[_Notice]:
    """Listen to a stream whose items do not matter; it is drained, so that it never waits for who looks slowly."""
    notice = _Notice()

    async def drain() -> None:
        try:
            async for _ in source:
                notice.tell()
        finally:
            notice.is_over = True
            notice.tell()

    task = asyncio.create_task(drain())
    try:
        yield notice
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        if not task.cancelled():
            task.exception()


async def regions(
    source: AsyncGenerator[object],
    render: Callable[[], Awaitable[Mapping[str, str]]],
    *,
    seen: str,
    again_s: float | None = None,
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the regions of a page as they change.

    Args:
        source: Yields when something happens; ends with the server.
        render: Returns the regions as they are now, by name.
        seen: Digest of the first region as the page has it already; empty for one that is told everything.
        again_s: Seconds after which to look without being told; None for never.
    """
    sent: dict[str, str] = {}
    looked = 0
    async with _noticed(source) as notice:
        while not notice.is_over:
            began = monotonic()
            for name, markup in (await render()).items():
                digest = digest_of(markup)
                known = sent.get(name, seen)
                sent[name] = digest
                if digest != known:
                    yield ServerSentEvent(markup, event=name, id=digest)
            looked += 1
            await asyncio.sleep(max(_LEAST_S, _SHARE * (monotonic() - began)))
            await notice.wait(_SETTLED_S if looked == 1 else again_s)


async def run(
    service: Service, caller: Caller, execution_id: str, *, after: int, is_again: bool
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the regions of a run's page as they change; ends with the event `end` when the run is over.

    Args:
        service: Where it is.
        caller: Who looks.
        execution_id: The run.
        after: Number of the last record that the page shows.
        is_again: True where the page was connected before, and may have missed anything.
    """
    records = await service.records(caller, execution_id)
    seq = len(records)
    sent: dict[str, str] = {}
    allowed = may(caller)

    def look() -> tuple[dict[str, str], str]:
        snapshot = Snapshot.of(service.store, records)
        return regions_of(snapshot.values(allowed)), snapshot.timeline.status

    async with _noticed(service.follow(caller, execution_id, seq)) as notice:
        is_first = not is_again and seq == after
        while True:
            began = monotonic()
            is_over = notice.is_over
            records += await service.records(caller, execution_id, after=len(records))
            found, status = await service.asked(look)
            for name, markup in found.items():
                digest = digest_of(markup)
                if sent.get(name) != digest and not (is_first and len(records) == after):
                    yield ServerSentEvent(markup, event=name, id=str(len(records)))
                sent[name] = digest
            is_first = False
            if status in {"SUCCESS", "FAILED"}:
                yield ServerSentEvent("over", event="end", id=str(len(records)))
                return
            if is_over:
                # The server stops; the browser comes back.
                return
            await asyncio.sleep(max(_LEAST_S, _SHARE * (monotonic() - began)))
            await notice.wait(_TICK_S if status == "RUNNING" else None)
