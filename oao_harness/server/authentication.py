"""Finds out who asks, and refuses who may not. Where that cannot be judged, nobody is let in."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, cast

from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.websockets import WebSocket

from oao_harness.errors import ConfigError, OaoError
from oao_harness.server.callers import LOCAL, Caller, Permission
from oao_harness.server.denials import CannotJudge, Denial, Forbidden, TooMany, Unauthenticated
from oao_harness.server.keys import KeyFile, is_key
from oao_harness.server.origins import (
    is_from_our_page,
    is_unsafe,
    require_local,
    require_no_other_site,
    require_safe_binding,
)
from oao_harness.server.quotas import Quotas, group_of
from oao_harness.server.sessions import Sessions
from oao_harness.server.tokens import Tokens

__all__ = ["Authenticator", "authenticator_of", "denied", "require_safe_binding", "requires"]

T = TypeVar("T")

_log: Final = logging.getLogger("oao.server")
_NO_KEY: Final = "show who you are: send a key or a token as `Authorization: Bearer ...`"
_WRONG_KEY: Final = "this key is unknown, has expired, or was revoked"


class Authenticator:
    """Knows callers by API key, by token, or by the session of a browser that has shown a key.

    Where there are no keys and no tokens, whoever is on this machine is let in as `local` and may do everything. From
    the first key on that is over, also in a server that is running, and also where the file of the keys is gone again.

    For one event loop. Looking whether the file of the keys has changed is one `stat`, not worth a thread.

    Args:
        keys: The keys.
        tokens: Judges tokens; None where none are believed.
        open_on_loopback: False lets nobody in without a key or a token, not from this machine either.
        sessions: Of browsers.
        failures: How often an address may show a credential that is wrong.
        calls: How often a caller may ask; None for as often as they like.
    """

    def __init__(
        self,
        keys: KeyFile | None = None,
        tokens: Tokens | None = None,
        *,
        open_on_loopback: bool = True,
        sessions: Sessions | None = None,
        failures: Quotas | None = None,
        calls: Quotas | None = None,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._may_be_open = open_on_loopback
        self.sessions = sessions or Sessions()
        self._failures = failures or Quotas("20/minute")
        self._calls = calls
        self._said = ""

    @property
    def is_open(self) -> bool:
        """True where no key and no token is asked for."""
        if self._may_be_open and (self._tokens is not None or (self._keys is not None and self._keys.exists())):
            self._may_be_open = False
        return self._may_be_open

    @property
    def has_keys(self) -> bool:
        """True where something keeps others out: see `require_safe_binding`."""
        return not self.is_open

    def close(self) -> None:
        """Release what it holds."""
        if self._tokens is not None:
            self._tokens.close()

    async def authenticate(self, connection: HTTPConnection) -> Caller:
        """Return who asks.

        Raises:
            Unauthenticated: Nobody knows.
            Forbidden: A page of another site has sent it; or nobody needs a key, and it is not from this machine.
            TooMany: The address has shown too many wrong credentials, or the caller has asked too often.
            CannotJudge: The keys cannot be read now.
        """
        if self.is_open:
            require_local(connection)
            require_no_other_site(connection)
            caller = LOCAL
        else:
            credential = _credential_of(connection)
            if credential is not None:
                caller = await self._caller_of(connection, *credential)
            elif self.sessions.has_cookie(connection):
                caller = self._caller_in_session(connection)
            else:
                raise Unauthenticated(_NO_KEY)
        if self._calls is not None and caller is not LOCAL:
            quota = self._calls.hit(caller.tenant, caller.id)
            if not quota.allowed:
                raise TooMany(
                    f"{quota.limit} requests of a caller in {quota.window_s} s are allowed",
                    retry_after_s=quota.resets_in_s,
                )
        return caller

    async def log_in(self, connection: HTTPConnection, response: Response, key: str) -> Caller:
        """Begin the session of a browser that shows a key, and return whose it is; see `authenticate` for the errors.

        Args:
            connection: What the browser has sent.
            response: Gets the cookie.
            key: What was typed.
        """
        require_no_other_site(connection)
        caller = await self._caller_of(connection, key, only_keys=True)
        self.sessions.begin(connection, response, key.split("_")[1])
        return caller

    def csrf_token(self, connection: HTTPConnection) -> str:
        """Return what a page sends as `X-CSRF-Token` with whatever changes something; empty without a session."""
        return self.sessions.csrf_token(connection)

    async def _caller_of(self, connection: HTTPConnection, credential: str, only_keys: bool) -> Caller:
        try:
            if only_keys or is_key(credential) or self._tokens is None:
                caller = self._in_file(lambda keys: keys.caller_of(credential))
                if caller is None:
                    raise Unauthenticated(_WRONG_KEY, given=True)
                return caller
            return await self._tokens.caller_of(credential)
        except Unauthenticated as error:
            quota = self._failures.hit(group_of(connection.client.host if connection.client else None))
            if quota.allowed:
                raise
            raise TooMany(
                "too many wrong keys or tokens came from this address", retry_after_s=quota.resets_in_s
            ) from error

    def _caller_in_session(self, connection: HTTPConnection) -> Caller:
        # The browser sends the cookie whoever made it ask, so that must have been a page of ours.
        require_no_other_site(connection)
        if is_unsafe(connection) and not is_from_our_page(connection) and not self.sessions.vouches(connection):
            raise Forbidden("nothing shows that a page of ours has sent this; send its X-CSRF-Token")
        id_ = self.sessions.key_id(connection)
        key = self._in_file(lambda keys: keys.active(id_)) if id_ is not None else None
        if key is None:
            raise Unauthenticated("the session is over; log in again")
        return key.caller

    def _in_file(self, ask: Callable[[KeyFile], T | None]) -> T | None:
        if self._keys is None:
            return None
        try:
            return ask(self._keys)
        except ConfigError as error:
            if str(error) != self._said:
                self._said = str(error)
                _log.error("%s", error)
            raise CannotJudge("the server cannot read its keys now, so nobody is let in; its log says why") from error


def _credential_of(connection: HTTPConnection) -> tuple[str, bool] | None:
    """Return what a request shows, and whether that can be a key alone; None where it shows nothing."""
    bearers, keys = connection.headers.getlist("authorization"), connection.headers.getlist("x-api-key")
    if not bearers and not keys:
        return None
    if len(bearers) + len(keys) > 1:
        raise Unauthenticated("more than one key or token was sent; send one", given=True)
    if keys:
        return keys[0], True
    scheme, _, credential = bearers[0].partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise Unauthenticated(_NO_KEY, given=True)
    return credential.strip(), False


def authenticator_of(connection: HTTPConnection) -> Authenticator:
    """Return the authenticator of the application that a request was sent to: `app.state.authenticator`.

    Raises:
        OaoError: It has none: then nobody is let in.
    """
    found: object = getattr(connection.app.state, "authenticator", None)
    if not isinstance(found, Authenticator):
        raise OaoError("the application has no authenticator; set app.state.authenticator")
    return found


def requires(permission: Permission) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """Return the dependency of a route, or of a WebSocket, that only callers with a permission may use.

    Args:
        permission: What they need.
    """

    async def caller(connection: HTTPConnection) -> Caller:
        found = await authenticator_of(connection).authenticate(connection)
        if not found.may(permission):
            raise Forbidden(f"{found.id} may not {permission}; a key with another role may: oao keys create --role")
        return found

    return caller


async def denied(connection: HTTPConnection, error: Exception) -> Response:
    """Answer to who is not let in: with a problem, and to a person who opens a page with the form to log in.

    The handler of `Denial`, for requests and for WebSockets. Source: RFC 9457.
    """
    denial = cast("Denial", error)
    if isinstance(connection, WebSocket):
        answer = _problem(denial)
        if "websocket.http.response" in connection.scope.get("extensions", {}):
            await connection.send_denial_response(answer)
        else:
            await connection.close(1008)
        return answer
    is_page = connection.scope["method"] == "GET" and "text/html" in connection.headers.get("accept", "")
    if isinstance(denial, Unauthenticated) and not denial.given and is_page:
        return RedirectResponse("/login", status_code=303)
    return _problem(denial)


def _problem(denial: Denial) -> Response:
    body = {"type": "about:blank", "title": denial.title, "status": denial.status, "detail": str(denial)}
    return Response(
        json.dumps(body), denial.status, headers=dict(denial.headers), media_type="application/problem+json"
    )
