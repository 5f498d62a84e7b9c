"""Where a request comes from: this machine, a page of ours, or a page of somebody else's. Judges, and does no I/O."""

from __future__ import annotations

import functools
import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from oao_harness.errors import ConfigError
from oao_harness.server.denials import Forbidden

__all__ = [
    "is_from_our_page",
    "is_loopback",
    "is_unsafe",
    "require_local",
    "require_no_other_site",
    "require_safe_binding",
]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


def require_safe_binding(host: str, has_keys: bool) -> None:
    """Refuse to let other machines reach a server that lets in everybody.

    Args:
        host: The address or name to listen on; empty for all addresses.
        has_keys: True where callers need a key or a token.

    Raises:
        ConfigError: Others could reach it, and nothing keeps them out.
    """
    if has_keys or is_loopback(host):
        return
    raise ConfigError(
        f"listening on {host!r} would let everybody who reaches this machine run its agents: make a key first "
        "(oao keys create NAME --role admin), configure tokens, or listen on 127.0.0.1"
    )


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Return True for `localhost` and for an address that only this machine has; no other name is looked up."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]") if host.startswith("[") else host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def require_local(connection: HTTPConnection) -> None:
    """Refuse what does not come from this machine itself, by itself.

    The name that was asked for counts too: a page from elsewhere can have its own name point here (DNS rebinding).

    Raises:
        Forbidden: It comes from elsewhere, through a proxy, or asks for another name.
    """
    client = connection.client
    if client is None or not is_loopback(client.host):
        raise Forbidden("without keys only this machine is let in; make one: oao keys create NAME --role operator")
    if any(name in connection.headers for name in _FORWARDED):
        raise Forbidden("this came through a proxy, and who asks there is unknown: make keys, oao keys create NAME")
    hosts = connection.headers.getlist("host")
    host = _host_of(hosts[0]) if len(hosts) == 1 else None
    if host is None or not is_loopback(host[0]):
        raise Forbidden("without keys the server answers to localhost, 127.0.0.1 and [::1] alone, and to no other name")


def is_unsafe(connection: HTTPConnection) -> bool:
    """Return True for what may change something; a WebSocket may, and no rule of the browser's keeps others from it."""
    return connection.scope["type"] != "http" or connection.scope["method"] not in _SAFE


def require_no_other_site(connection: HTTPConnection) -> None:
    """Refuse what a page from elsewhere has a browser send. What no browser sent says nothing of it, and passes.

    Another port of the same machine is elsewhere. Following a link to a page of ours is allowed.

    Raises:
        Forbidden: It comes from another site.
    """
    headers = connection.headers
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    is_link = (
        not is_unsafe(connection)
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    foreign = any(site not in {"same-origin", "none"} for site in sites) and not is_link
    if foreign or any(not _is_own(connection, origin) for origin in origins):
        raise Forbidden("this was sent by a page of another site")


def is_from_our_page(connection: HTTPConnection) -> bool:
    """Return True where the browser vouches that a page of ours has sent it."""
    headers = connection.headers
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    if any(site != "same-origin" for site in sites) or any(not _is_own(connection, origin) for origin in origins):
        return False
    return bool(sites or origins)


def _is_own(connection: HTTPConnection, origin: str) -> bool:
    """Return True for the origin that the request itself was sent to.

    The scheme is left out: a proxy that ends TLS need not say so. Whoever can serve the same host and port in plain
    text can read the cookie too, where it is not kept from them by `Secure`.
    """
    hosts = connection.headers.getlist("host")
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if len(hosts) != 1 or parts.scheme not in {"http", "https"} or parts.path or parts.query or parts.fragment:
        return False
    sent_by, host = _host_of(parts.netloc), _host_of(hosts[0])
    if sent_by is None or host is None:
        return False
    standard = _PORTS[parts.scheme]
    return (sent_by[0].lower(), sent_by[1] or standard) == (host[0].lower(), host[1] or standard)


def _host_of(header: str) -> tuple[str, int | None] | None:
    """Return name and port of a Host header; None where it is not one."""
    if not header or any(character in header for character in "/\\@?#, \t"):
        return None
    try:
        parts = urlsplit(f"//{header}")
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or (header.startswith("[") and header.partition("]")[2] != _port_text(port)):
        # Python leaves out what stands between the brackets and the port.
        return None
    return parts.hostname, port


def _port_text(port: int | None) -> str:
    return "" if port is None else f":{port}"
