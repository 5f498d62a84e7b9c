"""Finds out who asks, and refuses who may not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from oao_harness.server.callers import LOCAL, Caller, Permission

__all__ = ["requires"]


def requires(permission: Permission) -> Callable[[], Awaitable[Caller]]:
    """Return the dependency of a route that only callers with a permission may use.

    Args:
        permission: What they need.
    """

    async def caller() -> Caller:
        if not LOCAL.may(permission):
            raise PermissionError(permission)
        return LOCAL

    return caller
