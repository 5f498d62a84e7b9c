"""Keeps a replayed test off the network: an audit hook below every client library. It cannot be removed, only idle."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from oao_harness.runtime.audit import listen

if TYPE_CHECKING:
    from pytest_oao.settings import Network

__all__ = ["close_network", "open_network"]

# `gethostbyname_ex` is heard as `gethostbyname`.
_LOOK_UPS: Final = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
_EVENTS: Final = ("socket.connect", "socket.sendto", "socket.sendmsg", *_LOOK_UPS)


class _Guard:
    """What is allowed now. One instance: the hook that asks it is process-wide too."""

    def __init__(self) -> None:
        self.mode: Network = "open"
        self.refuse: Callable[[str], BaseException] | None = None
        self.may_connect: Callable[[], bool] | None = None

    def hook(self, event: str, args: tuple[object, ...]) -> None:
        if self.refuse is None:
            return
        target = _target(event, args)
        if target is None:
            return
        host, port = target
        if self.mode == "loopback" and _is_loopback(host):
            return
        if self.mode != "open" and not (self.may_connect is not None and self.may_connect()):
            refuse = self.refuse
            raise refuse(f"network: connect to {host}:{port} during replay ({self.mode})")


@functools.cache
def _guard() -> _Guard:
    guard = _Guard()
    listen(_EVENTS, guard.hook)
    return guard


def close_network(
    mode: Network, refuse: Callable[[str], BaseException], may_connect: Callable[[], bool] | None = None
) -> None:
    """Refuse connections from now on.

    Args:
        mode: `closed` refuses all but Unix sockets, `loopback` all but this machine, `open` none.
        refuse: Makes the exception to raise from one line of text; told once for each attempt.
        may_connect: Asked about each connection that the mode refuses; True lets it pass.
    """
    guard = _guard()
    guard.mode, guard.refuse, guard.may_connect = mode, refuse, may_connect


def open_network() -> None:
    """Let every connection pass again."""
    _guard().refuse = None


def _target(event: str, args: tuple[object, ...]) -> tuple[str, object] | None:
    """Return host and port, or None for what is no network: Unix sockets, pairs."""
    if event in _LOOK_UPS:
        host = args[0]
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
        return (str(name), args[1] if len(args) > 1 else "name") if name else None
    address = args[1]
    if isinstance(address, tuple) and len(cast("tuple[object, ...]", address)) >= 2:
        parts = cast("tuple[object, ...]", address)
        return str(parts[0]), parts[1]
    return None


def _is_loopback(host: str) -> bool:
    if host in {"localhost", "ip6-localhost", ""} or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
