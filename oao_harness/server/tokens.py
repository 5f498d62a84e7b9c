"""JSON web tokens: who they say asks, where their signature and their claims hold. Issues none."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.types import Options

from oao_harness.errors import ConfigError
from oao_harness.server.callers import Caller
from oao_harness.server.denials import CannotJudge, Unauthenticated

__all__ = ["TokenSettings", "Tokens"]

_log: Final = logging.getLogger("oao.server")
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_EC: Final = ("ES256", "ES384", "ES512")
_EDDSA: Final = ("EdDSA",)
_HMAC: Final = ("HS256", "HS384", "HS512")
_MOST_CHARACTERS: Final = 16_384
_MOST_WAITING: Final = 32
_AFTER_FAILURE_S: Final = 5.0
_LEAST_SECRET_BYTES: Final = 32
_Key: TypeAlias = "RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey | bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """Whose tokens are believed. Exactly one of `jwks_url`, `public_key` and `secret_env` says with which key.

    A kind of key goes with algorithms of its own: a public key is never taken for the secret of an HMAC, and a token
    without a signature is never believed.
    """

    issuer: str
    """What `iss` must be."""
    audience: str
    """What `aud` must be, or hold."""
    jwks_url: str = ""
    """Where the issuer publishes its keys, for example `https://login.example/.well-known/jwks.json`."""
    public_key: str | Path = ""
    """A file with the issuer's public key, PEM."""
    secret_env: str = ""
    """The variable of the environment that holds the secret shared with the issuer, 32 bytes or more."""
    algorithms: Sequence[str] = ()
    """Which ones are allowed; all that go with the kind of key by default."""
    leeway_s: float = 30.0
    """By how much the clocks of issuer and server may differ, 0 to 300."""
    subject_claim: str = "sub"
    """Holds who it is."""
    roles_claim: str = "roles"
    """Holds the roles: a list, or a text with blanks between them. A name, or a path with dots where none has it:
    `realm_access.roles`. Without it a caller may do nothing."""
    tenant_claim: str = "tenant"
    """Holds the tenant, and a token without it is refused: it would see all tenants. Empty where there are none."""
    timeout_s: float = 5.0
    """Seconds to wait for the issuer's keys."""
    kept_s: float = 300.0
    """Seconds for which the issuer's keys are kept: one that it withdraws is believed that long."""
    refetch_s: float = 30.0
    """Seconds between two fetches because of a key that nobody knows: a token can name any."""


class Tokens:
    """Judges tokens.

    Args:
        settings: Whose are believed.

    Raises:
        ConfigError: A setting is missing or wrong, or the key cannot be used.
    """

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        if not settings.issuer or not settings.audience:
            raise ConfigError("tokens need an issuer and an audience: a token for another service must not do here")
        if not 0 <= settings.leeway_s <= 300:
            raise ConfigError(f"tokens: leeway_s={settings.leeway_s!r}; give seconds from 0 to 300")
        if not settings.subject_claim:
            raise ConfigError("tokens: subject_claim is empty; name the claim that says who it is, for example sub")
        if sum(map(bool, (settings.jwks_url, settings.public_key, settings.secret_env))) != 1:
            raise ConfigError("tokens: give exactly one of jwks_url, public_key and secret_env")
        self._key: _Key | None = None
        self._client: jwt.PyJWKClient | None = None
        if settings.jwks_url:
            self._client = _client(settings)
            known: Sequence[str] = (*_RSA, *_EC, *_EDDSA)
        elif settings.secret_env:
            self._key, known = _secret(settings.secret_env), _HMAC
        else:
            self._key, known = _public_key(Path(settings.public_key))
        for name in settings.algorithms:
            if name not in known:
                raise ConfigError(
                    f"tokens: the algorithm {name!r} does not go with this kind of key; {', '.join(known)} do"
                )
        self._algorithms = list(settings.algorithms or known)
        # Threads of its own: an issuer that hangs takes none that read journals.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="oao-tokens")
        self._waiting = 0
        self._failed_at = -_AFTER_FAILURE_S

    def close(self) -> None:
        """End the thread that fetches keys, without waiting for an issuer that hangs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def caller_of(self, token: str) -> Caller:
        """Return who a token says asks.

        Raises:
            Unauthenticated: The token is not believed; the message says why, and nothing that stands in it.
            CannotJudge: The issuer's keys cannot be had now.
        """
        if len(token) > _MOST_CHARACTERS:
            raise Unauthenticated("the token is too long", given=True)
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._algorithms:
                raise Unauthenticated("the token is signed with an algorithm that is not allowed here", given=True)
            key = self._key if self._client is None else await self._published(self._client, header.get("kid"))
            claims = self._verified(token, key)
        except jwt.PyJWTError as error:
            raise Unauthenticated(_why(error), given=True) from error
        except (ValueError, TypeError, RecursionError, UnsupportedAlgorithm) as error:
            raise Unauthenticated("the token cannot be read", given=True) from error
        return self._caller(claims)

    def _verified(self, token: str, key: _Key | jwt.PyJWK | None) -> Mapping[str, object]:
        if key is None:
            raise Unauthenticated("the token is signed with a key that its issuer does not publish", given=True)
        settings = self._settings
        options: Options = {
            "require": ["exp", "iss", "aud", settings.subject_claim],
            "enforce_minimum_key_length": True,
        }
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=self._algorithms,
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway_s,
            options=options,
        )
        return claims

    async def _published(self, client: jwt.PyJWKClient, kid: object) -> jwt.PyJWK | None:
        if not isinstance(kid, str) or not kid:
            raise Unauthenticated("the token does not name the key that it is signed with (kid)", given=True)
        # Known keys wait for nobody: a flood of tokens that name others must not keep these out.
        kept = client.jwk_set_cache.get() if client.jwk_set_cache is not None else None
        found = (
            client.match_kid([one for one in kept.keys if one.public_key_use in {"sig", None}], kid) if kept else None
        )
        if found is not None:
            return found
        if self._waiting >= _MOST_WAITING or time.monotonic() - self._failed_at < _AFTER_FAILURE_S:
            raise CannotJudge("the keys of the tokens' issuer cannot be had now; try again later")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            fetching = loop.run_in_executor(self._threads, self._fetched, client, kid)
            return await asyncio.wait_for(fetching, 2 * self._settings.timeout_s)
        except TimeoutError as error:
            raise CannotJudge("the keys of the tokens' issuer cannot be had now; try again later") from error
        finally:
            self._waiting -= 1

    def _fetched(self, client: jwt.PyJWKClient, kid: str) -> jwt.PyJWK | None:
        """Return a key, in the thread of its own; None where the issuer publishes none of that name."""
        # Those who queued behind a fetch that failed do not wait for the next one.
        if time.monotonic() - self._failed_at < _AFTER_FAILURE_S:
            raise CannotJudge("the keys of the tokens' issuer cannot be had now; try again later")
        try:
            return client.get_signing_key(kid)
        except (jwt.PyJWTError, OSError, ValueError, RecursionError) as error:
            if client.jwk_set_cache is not None and client.jwk_set_cache.get() is not None and _is_unknown(error):
                return None
            self._failed_at = time.monotonic()
            _log.warning("the keys of the tokens' issuer cannot be had from %s: %s", self._settings.jwks_url, error)
            raise CannotJudge("the keys of the tokens' issuer cannot be had now; try again later") from error

    def _caller(self, claims: Mapping[str, object]) -> Caller:
        settings = self._settings
        subject = claims.get(settings.subject_claim)
        if not _is_name(subject):
            raise Unauthenticated(f"the token's claim {settings.subject_claim!r} names nobody", given=True)
        tenant: object = ""
        if settings.tenant_claim:
            tenant = _claim(claims, settings.tenant_claim)
            if not _is_name(tenant):
                raise Unauthenticated(f"the token's claim {settings.tenant_claim!r} names no tenant", given=True)
        roles = _claim(claims, settings.roles_claim)
        if isinstance(roles, str):
            roles = roles.split()
        if roles is None:
            roles = []
        if not isinstance(roles, list) or not all(_is_name(role) for role in cast("list[object]", roles)):
            raise Unauthenticated(f"the token's claim {settings.roles_claim!r} is no list of roles", given=True)
        return Caller.of(cast("str", subject), cast("list[str]", roles), cast("str", tenant))


def _is_unknown(error: Exception) -> bool:
    """Return True where the keys were had, and the wanted one is none of them."""
    return isinstance(error, jwt.PyJWKClientError) and not isinstance(error, jwt.PyJWKClientConnectionError)


def _client(settings: TokenSettings) -> jwt.PyJWKClient:
    try:
        return jwt.PyJWKClient(
            settings.jwks_url,
            lifespan=settings.kept_s,
            timeout=settings.timeout_s,
            cooldown_duration=settings.refetch_s,
        )
    except jwt.PyJWTError as error:
        raise ConfigError(f"tokens: {error}") from error


def _secret(name: str) -> bytes:
    secret = os.environ.get(name, "").encode("utf-8", "surrogateescape")
    if len(secret) < _LEAST_SECRET_BYTES:
        raise ConfigError(
            f"tokens: the variable {name} holds {len(secret)} bytes; give a secret of {_LEAST_SECRET_BYTES} or more, "
            "for example of: openssl rand -hex 32"
        )
    if b"-----BEGIN" in secret:
        raise ConfigError(f"tokens: the variable {name} holds a key in PEM; give its file as public_key")
    return secret


def _public_key(path: Path) -> tuple[_Key, Sequence[str]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"tokens: the public key cannot be read: {error}") from error
    if b"PRIVATE KEY" in content:
        raise ConfigError(
            f"tokens: {str(path)!r} holds a private key, which only the issuer may have; give the public one"
        )
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"tokens: {str(path)!r} is no public key in PEM: {error}") from error
    if isinstance(key, RSAPublicKey):
        if key.key_size < 2048:
            raise ConfigError(f"tokens: the key in {str(path)!r} has {key.key_size} bits; 2048 are the least")
        return key, _RSA
    if isinstance(key, EllipticCurvePublicKey):
        return key, _EC
    if isinstance(key, Ed25519PublicKey | Ed448PublicKey):
        return key, _EDDSA
    raise ConfigError(f"tokens: the key in {str(path)!r} is of a kind that signs no tokens; give RSA, EC or Ed25519")


def _claim(claims: Mapping[str, object], name: str) -> object:
    """Return a claim by its name, or by a path with dots where no claim has that name."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, Mapping):
            return None
        found = cast("Mapping[str, Any]", found).get(part)
    return cast("object", found)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable() and value == value.strip()


def _why(error: jwt.PyJWTError) -> str:
    """Return what is wrong with a token, in words that are not the token's own."""
    if isinstance(error, jwt.ExpiredSignatureError):
        return "the token has expired"
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the token has no claim {error.claim!r}"
    if isinstance(error, jwt.InvalidAudienceError):
        return "the token is for another audience"
    if isinstance(error, jwt.InvalidIssuerError):
        return "the token is of another issuer"
    if isinstance(error, jwt.ImmatureSignatureError):
        return "the token is not valid yet"
    if isinstance(error, jwt.InvalidSignatureError):
        return "the token's signature is wrong"
    return "the token cannot be read, or is not signed as it should be"
