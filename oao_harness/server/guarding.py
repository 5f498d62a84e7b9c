"""What stands before the routes: who may come in, how much a request may be, what a browser is told. Only wiring."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from oao_harness.errors import ConfigError
from oao_harness.policy.reading import close_to
from oao_harness.server.authentication import Authenticator, denied
from oao_harness.server.denials import Denial
from oao_harness.server.headers import SecurityHeaders
from oao_harness.server.keys import KeyFile
from oao_harness.server.limits import BodyDeadline, BodyLimit, RateLimit
from oao_harness.server.quotas import Quotas
from oao_harness.server.sessions import Sessions, secret_in
from oao_harness.server.settings import Settings
from oao_harness.server.tokens import Tokens, TokenSettings

__all__ = ["guard", "make_authenticator"]

_HEALTH: Final = ("/healthz", "/readyz")
_SESSIONS: Final = "sessions.key"
_TOKENS: Final = tuple(one.name for one in fields(TokenSettings))


def make_authenticator(settings: Settings) -> Authenticator:
    """Return what knows the callers of a server.

    Raises:
        ConfigError: A setting of the tokens, or a rate, is unknown or wrong.
    """
    tokens: Tokens | None = None
    if settings.tokens:
        for name in settings.tokens:
            if name not in _TOKENS:
                raise ConfigError(f"[tool.oao.server.tokens]: unknown key {name!r}{close_to(name, _TOKENS)}")
        missing = [name for name in ("issuer", "audience") if name not in settings.tokens]
        if missing:
            raise ConfigError(f"[tool.oao.server.tokens]: {' and '.join(missing)} is missing")
        try:
            tokens = Tokens(TokenSettings(**settings.tokens))
        except TypeError as error:
            raise ConfigError(f"[tool.oao.server.tokens]: {error}; it needs issuer, audience and a key") from error
    calls = Quotas(settings.caller_rate) if settings.caller_rate else None
    keys = KeyFile(settings.keys)
    # Every process of a server must know a cookie that another one has set.
    sessions = Sessions(secret_in(Path(settings.keys).with_name(_SESSIONS))) if keys.exists() else None
    return Authenticator(keys, tokens, sessions=sessions, calls=calls)


def guard(app: FastAPI, settings: Settings) -> None:
    """Let nobody reach the routes of an application who may not; see `Settings`."""
    authenticator = make_authenticator(settings)
    app.state.authenticator = authenticator
    app.add_exception_handler(Denial, denied)
    # What is added last sees a request first.
    app.add_middleware(BodyLimit, most_bytes=settings.most_body_bytes)
    app.add_middleware(BodyDeadline, deadline_s=settings.body_s)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-API-Key"],
            expose_headers=["Retry-After", "RateLimit", "RateLimit-Policy"],
        )
    if settings.address_rate:
        quotas = Quotas(settings.address_rate)
        app.add_middleware(RateLimit, quotas=quotas, exempt=_HEALTH, applies=lambda: not authenticator.is_open)
    app.add_middleware(SecurityHeaders)
