"""What an MCP client says beside its tool calls: journaled in a live run, served in a replay, judged by nobody."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

from oao_harness.journal.codec import decode_error, encode_error
from oao_harness.journal.exchanges import PROTOCOL
from oao_harness.journal.replay import Divergence
from oao_harness.runtime import gate
from oao_harness.runtime.context import frame
from oao_harness.runtime.dispatch import drive_async
from oao_harness.runtime.passage import diverging
from oao_harness.runtime.run import Run
from oao_hookspecs import Json

__all__ = ["exchange", "is_played"]

# Requests of agents' own code are numbered from 1.
_FIRST: Final = 1_000_000
# What a client says of itself in these changes with its version, and asks for nothing.
_HANDSHAKES: Final = frozenset({"initialize", "server/discover"})
_OWNER: Final = object()


def is_played(run: Run) -> bool:
    """Return True where a recording stands for the world: no server is asked anything."""
    return run.playback is not None


async def exchange(
    run: Run, data: Mapping[str, Any], server: str, send: Callable[[], Awaitable[Any]], shape: gate.Shape
) -> Any:
    """Return the answer to a request that calls no tool.

    Args:
        run: The run whose agent asks.
        data: The request: `method`, `params`.
        server: What the server calls itself; empty before it said so.
        send: Asks the server.
        shape: How the result is journaled and served.

    Raises:
        RunHalted: The run is over, or its recording holds no such request.
    """
    method = str(data.get("method"))
    name, request = f"{PROTOCOL}{method}", _request(method, data, server)
    if run.playback is not None:
        run.refuse_if_over()
        return await _served(run, name, request, shape)
    if run.closed or run.halted is not None:
        return await send()
    number = next(run.memory(_OWNER, lambda: itertools.count(_FIRST)))
    inside = frame.get()
    fields: dict[str, Json] = {"h": number, "name": name, "req": request}
    if inside is not None and inside.run is run:
        fields["parent"] = inside.n
    run.write("http", fields)
    began = time.perf_counter()

    def ended(how: dict[str, Json]) -> None:
        if not run.closed:
            took = round(time.perf_counter() - began, 6)
            run.write_if_possible("http.ended", {"h": number, **how, "duration_s": took})

    try:
        result = await send()
    except BaseException as error:
        info = encode_error(error)
        ended({"error": {"type": info.type, "message": info.message, "data": dict(info.data)}})
        raise
    ended({"res": shape.dump(result).value})
    return result


async def _served(run: Run, name: str, request: Mapping[str, Json], shape: gate.Shape) -> Any:
    found = run.playback.exchanges.take(name, request) if run.playback is not None else None
    if found is not None and found.outcome is not None:
        if found.outcome.error is not None:
            raise decode_error(found.outcome.error)
        return shape.load(found.outcome.value)
    text = f"{name} was not recorded, and a replay asks no server (replay diverged)"
    await drive_async(diverging(run, Divergence(kind="unexpected", text=text, name=name), None), run.hooks.timeout_s)
    raise run.require_halt()


def _request(method: str, data: Mapping[str, Any], server: str) -> dict[str, Json]:
    if method in _HANDSHAKES:
        return {}
    params = {key: value for key, value in cast("dict[str, Any]", data.get("params") or {}).items() if key != "_meta"}
    return {**({"server": server} if server else {}), **params}
