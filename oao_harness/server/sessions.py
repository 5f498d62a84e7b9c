"""The dashboard's sessions: a signed cookie that names a key, and never holds it."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import jwt
from starlette.requests import HTTPConnection
from starlette.responses import Response

from oao_harness.errors import ConfigError

__all__ = ["Sessions", "secret_in"]

_AUDIENCE: Final = "oao-dashboard"
_LEAST_BYTES: Final = 32


def secret_in(path: str | Path) -> bytes:
    """Return the secret that a file holds; made, readable for its owner alone, where there is none.

    For several processes of one server, and for sessions that outlive it.

    Raises:
        ConfigError: It cannot be read or made, or is too short.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_LEAST_BYTES))
            try:
                # Whole or not at all; and where another process was faster, its secret is the one.
                with suppress(FileExistsError):
                    os.link(name, path)
            finally:
                os.unlink(name)
        secret = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the secret of the sessions in {str(path)!r} cannot be read or made: {error}") from error
    if len(secret) < _LEAST_BYTES:
        raise ConfigError(f"the secret of the sessions in {str(path)!r} is too short; delete it, and it is made anew")
    return secret


class Sessions:
    """Makes and reads cookies.

    Args:
        secret: What they are signed with, 32 bytes or more; by default one that ends with this process.
        lasts_s: Seconds that a session lasts, > 0.
        clock: Returns Unix seconds.
    """

    def __init__(
        self, secret: bytes | None = None, *, lasts_s: float = 8 * 3600.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._secret = secrets.token_bytes(_LEAST_BYTES) if secret is None else secret
        if len(self._secret) < _LEAST_BYTES:
            raise ConfigError(f"the secret of the sessions has {len(self._secret)} bytes; {_LEAST_BYTES} are the least")
        self._lasts_s = lasts_s
        self._clock = clock

    def begin(self, connection: HTTPConnection, response: Response, key_id: str) -> None:
        """Set the cookie of a new session.

        Args:
            connection: Who asked for it.
            response: The answer.
            key_id: Of the key that was shown.
        """
        now = self._clock()
        claims = {"sub": key_id, "aud": _AUDIENCE, "exp": now + self._lasts_s, "iat": now, "jti": secrets.token_hex(8)}
        value = jwt.encode(claims, self._secret, "HS256")
        is_https = _is_https(connection)
        response.set_cookie(
            _name(is_https=is_https),
            value,
            max_age=int(self._lasts_s),
            path="/",
            secure=is_https,
            httponly=True,
            samesite="strict",
        )

    def end(self, connection: HTTPConnection, response: Response) -> None:
        """Take the cookie away."""
        is_https = _is_https(connection)
        response.delete_cookie(_name(is_https=is_https), path="/", secure=is_https, httponly=True, samesite="strict")

    def key_id(self, connection: HTTPConnection) -> str | None:
        """Return the id of the key that a session was begun with; None where there is no session, or it is over."""
        value = self._cookie(connection)
        if value is None or len(value) > 1000:
            return None
        try:
            # The time is judged below, on this object's clock.
            claims = jwt.decode(
                value,
                self._secret,
                algorithms=["HS256"],
                audience=_AUDIENCE,
                options={"require": ["sub", "aud", "exp"], "verify_exp": False, "verify_iat": False},
            )
            return str(claims["sub"]) if self._clock() < float(claims["exp"]) else None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None

    def has_cookie(self, connection: HTTPConnection) -> bool:
        """Return True where the browser has sent a cookie of a session, good or not."""
        return self._cookie(connection) is not None

    def csrf_token(self, connection: HTTPConnection) -> str:
        """Return what a page of ours must send back as `X-CSRF-Token`; empty without a session."""
        value = self._cookie(connection)
        return "" if value is None else hmac.new(self._secret, f"csrf:{value}".encode(), hashlib.sha256).hexdigest()

    def vouches(self, connection: HTTPConnection) -> bool:
        """Return True where a request brings the token of its own session."""
        token, given = self.csrf_token(connection), connection.headers.get("x-csrf-token", "")
        return bool(token) and hmac.compare_digest(token.encode(), given.encode("utf-8", "surrogateescape"))

    @staticmethod
    def _cookie(connection: HTTPConnection) -> str | None:
        return connection.cookies.get(_name(is_https=_is_https(connection)))


def _is_https(connection: HTTPConnection) -> bool:
    return connection.scope.get("scheme") in {"https", "wss"}


def _name(*, is_https: bool) -> str:
    # With this prefix a browser takes it from no other host, and over nothing but TLS.
    return "__Host-oao_session" if is_https else "oao_session"
