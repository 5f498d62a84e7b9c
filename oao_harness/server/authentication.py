"""Finds out who asks, and refuses who may not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from oao_harness.errors import ConfigError
from oao_harness.server.callers import LOCAL, Caller, Permission
from oao_harness.server.settings import Settings

__all__ = ["require_safe_binding", "requires"]


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


def require_safe_binding(settings: Settings) -> None:
    """Refuse to listen where others than this machine come in, and nobody could tell who they are.

    Raises:
        ConfigError: The address is not this machine's own.
    """
    if not settings.is_loopback:
        raise ConfigError(
            f"host {settings.host!r}: others than this machine could come in, and there are no keys to tell who asks; "
            "listen on 127.0.0.1"
        )
