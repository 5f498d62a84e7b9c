"""Starts no MCP server where a recording is played: a client connects to a process that is none, and says nothing."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Final

import anyio

from oao_harness.adapters.mcp_exchanges import is_played
from oao_harness.errors import FrameworkError
from oao_harness.runtime.context import current, in_plugin, is_possible

__all__ = ["install"]

_STARTS: Final = "_create_platform_compatible_process"


def install() -> None:
    """Patch how the SDK starts the server of a stdio client; once.

    Raises:
        FrameworkError: The installed SDK starts it in another way.
    """
    module = sys.modules["mcp.client.stdio"]
    function = getattr(module, _STARTS, None)
    if function is None:
        raise FrameworkError(
            f"mcp.client.stdio has no {_STARTS}, which oao governs; install a version that oao-harness supports (see "
            "its extras), or a newer oao-harness"
        )
    if not hasattr(function, "__wrapped__"):
        setattr(module, _STARTS, _starting(function))


def _starting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def start(*args: Any, **kwargs: Any) -> Any:
        run = current() if is_possible() and not in_plugin.get() else None
        return await function(*args, **kwargs) if run is None or not is_played(run) else _NoServer()

    return start


class _NoServer:
    """A process that reads nothing, says nothing, and ends when its input does."""

    pid = 0

    def __init__(self) -> None:
        self._ends, self.stdout = anyio.create_memory_object_stream[bytes](0)
        self.stdin = self
        self.returncode: int | None = None
        self._ended = anyio.Event()

    async def send(self, _data: bytes) -> None:
        """Take what is written to it."""

    async def aclose(self) -> None:
        """End."""
        self.terminate()

    async def wait(self) -> int:
        """Wait for its end."""
        await self._ended.wait()
        return 0

    def terminate(self) -> None:
        """End."""
        self.returncode = 0
        self._ends.close()
        self.stdout.close()
        self._ended.set()

    kill = terminate

    async def __aenter__(self) -> _NoServer:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.terminate()
