"""Why somebody is not let in, as errors that know their HTTP status."""

from __future__ import annotations

import math
from collections.abc import Mapping

from oao_harness.errors import OaoError

__all__ = ["CannotJudge", "Denial", "Forbidden", "TooMany", "Unauthenticated"]


class Denial(OaoError):  # noqa: N818 - named by what they say, as over HTTP
    """Somebody is not let in."""

    status = 403
    """Of HTTP."""
    title = "Forbidden"

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer says besides, by the name of the header."""
        return {}


class Unauthenticated(Denial):
    """Nobody knows who asks.

    Args:
        reason: One line for a person.
        given: True where a credential was given, and is wrong.
    """

    status = 401
    title = "Unauthorized"

    def __init__(self, reason: str, *, given: bool = False) -> None:
        super().__init__(reason)
        self.given = given

    @property
    def headers(self) -> Mapping[str, str]:
        """Which credential would do. Source: RFC 6750, section 3."""
        return {"WWW-Authenticate": 'Bearer realm="oao"' + (', error="invalid_token"' if self.given else "")}


class Forbidden(Denial):
    """Who asks is known, or need not be, and may not do that."""


class TooMany(Denial):
    """Somebody asks more often than is allowed.

    Args:
        reason: One line for a person.
        retry_after_s: Seconds after which it makes sense to ask again.
    """

    status = 429
    title = "Too Many Requests"

    def __init__(self, reason: str, *, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> Mapping[str, str]:
        """When to ask again, in whole seconds."""
        return {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


class CannotJudge(Denial):
    """The server cannot find out who asks: then nobody is let in."""

    status = 503
    title = "Service Unavailable"

    @property
    def headers(self) -> Mapping[str, str]:
        """When to ask again, in whole seconds."""
        return {"Retry-After": "5"}
