"""Tokens, attacked: with real keys, and an issuer that really publishes its keys over HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from oao_harness import ConfigError
from oao_harness.server.callers import Caller
from oao_harness.server.denials import CannotJudge, Unauthenticated
from oao_harness.server.tokens import Tokens, TokenSettings

ISSUER, AUDIENCE = "https://login.test", "oao"
SECRET = "s" * 20 + "ecret-of-more-than-32-bytes"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PEM = serialization.PublicFormat.SubjectPublicKeyInfo
Claims = dict[str, Any]


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, PEM))


def claims(**changes: Any) -> Claims:
    now = time.time()
    all_: Claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 60, "iat": now, "tenant": "acme"}
    all_ |= {"roles": ["operator", "manager"], **changes}
    return {name: value for name, value in all_.items() if value is not None}


def signed(key: Any = RSA, alg: str = "RS256", headers: Claims | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, alg, headers=headers)


def by_hand(header: Claims, body: Claims, secret: bytes | None = None) -> str:
    """A token as an attacker writes it, whom no library restrains."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    text = f"{part(json.dumps(header).encode())}.{part(json.dumps(body).encode())}"
    signature = hmac.new(secret, text.encode(), hashlib.sha256).digest() if secret is not None else b""
    return f"{text}.{part(signature)}"


class Issuer:
    """Publishes keys; can hang, fail, and change them."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"one": RSA}
        self.fetched = 0
        self.answer: bytes | None = None
        self.status = 200
        self.go = threading.Event()
        self.go.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetched += 1
                issuer.go.wait(20)
                body = issuer.answer if issuer.answer is not None else issuer.jwks()
                self.send_response(issuer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"

    def jwks(self) -> bytes:
        listed = []
        for kid, key in self.keys.items():
            if isinstance(key, dict):
                listed.append({**key, "kid": kid})
                continue
            alg: Any = jwt.algorithms.RSAAlgorithm if key in (RSA, OTHER_RSA) else jwt.algorithms.ECAlgorithm
            listed.append({**json.loads(alg.to_jwk(key.public_key())), "kid": kid, "use": "sig"})
        return json.dumps({"keys": listed}).encode()

    def close(self) -> None:
        self.go.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


Judge = Callable[..., Tokens]


@pytest.fixture
def judge() -> Iterator[Judge]:
    made: list[Tokens] = []

    def make(**settings: Any) -> Tokens:
        made.append(Tokens(TokenSettings(issuer=ISSUER, audience=AUDIENCE, **settings)))
        return made[-1]

    yield make
    for tokens in made:
        tokens.close()


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "issuer.pem"
    path.write_bytes(public_pem(RSA))
    return path


# What is believed


async def test_a_published_key_is_believed(issuer: Issuer, judge: Judge) -> None:
    """RSA and EC; its claims say who it is; a hundred tokens cost one fetch."""
    issuer.keys["two"] = EC
    tokens = judge(jwks_url=issuer.url)
    ann = Caller.of("ann", ["operator", "manager"], "acme")
    for _ in range(50):
        assert await tokens.caller_of(signed(headers={"kid": "one"})) == ann
        assert await tokens.caller_of(signed(EC, "ES256", headers={"kid": "two"})) == ann
    assert issuer.fetched == 1


async def test_a_key_in_a_file_or_a_secret_is_believed(
    judge: Judge, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own algorithms."""
    assert (await judge(public_key=pem).caller_of(signed())).id == "ann"
    assert (await judge(public_key=pem).caller_of(signed(RSA, "PS512"))).id == "ann"
    for key, alg in ((EC, "ES256"), (ED, "EdDSA")):
        pem.write_bytes(public_pem(key))
        assert (await judge(public_key=pem).caller_of(signed(key, alg))).id == "ann"
    monkeypatch.setenv("SHARED", SECRET)
    assert (await judge(secret_env="SHARED").caller_of(signed(SECRET, "HS256"))).id == "ann"


@pytest.mark.parametrize(
    ("settings", "changes", "caller"),
    [
        ({}, {"roles": "operator approver"}, Caller.of("ann", ["operator", "approver"], "acme")),
        ({}, {"roles": None}, Caller.of("ann", [], "acme")),
        ({"roles_claim": "realm.roles"}, {"realm": {"roles": ["admin"]}}, Caller.of("ann", ["admin"], "acme")),
        ({"roles_claim": "https://x.test/r"}, {"https://x.test/r": ["admin"]}, Caller.of("ann", ["admin"], "acme")),
        ({"tenant_claim": ""}, {"tenant": None}, Caller.of("ann", ["operator", "manager"], "")),
        ({"tenant_claim": ""}, {}, Caller.of("ann", ["operator", "manager"], "")),
        ({"tenant_claim": "org.id"}, {"org": {"id": "shop"}}, Caller.of("ann", ["operator", "manager"], "shop")),
        ({"subject_claim": "email"}, {"email": "a@x.test"}, Caller.of("a@x.test", ["operator", "manager"], "acme")),
        ({}, {"aud": ["else", AUDIENCE]}, Caller.of("ann", ["operator", "manager"], "acme")),
    ],
)
async def test_claims_say_who_it_is(judge: Judge, pem: Path, settings: Claims, changes: Claims, caller: Caller) -> None:
    """By the names that the issuer has for them."""
    assert await judge(public_key=pem, **settings).caller_of(signed(**changes)) == caller


async def test_clocks_may_differ_a_little(judge: Judge, pem: Path) -> None:
    """By as much as the settings say, and no more."""
    for leeway_s, good in ((30.0, True), (5.0, False)):
        tokens, token = judge(public_key=pem, leeway_s=leeway_s), signed(exp=time.time() - 15)
        if good:
            assert await tokens.caller_of(token)
            continue
        with pytest.raises(Unauthenticated, match="has expired"):
            await tokens.caller_of(token)


# What is not


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": 1000.0}, "has expired"),
        ({"exp": None}, "no claim 'exp'"),
        ({"nbf": time.time() + 36_000}, "not valid yet"),
        ({"aud": "else"}, "another audience"),
        ({"aud": f"{AUDIENCE}2"}, "another audience"),
        ({"aud": []}, "aud"),
        ({"aud": None}, "no claim 'aud'"),
        ({"iss": "https://evil.test"}, "another issuer"),
        ({"iss": None}, "no claim 'iss'"),
        ({"sub": None}, "no claim 'sub'"),
        ({"sub": ""}, "names nobody"),
        ({"sub": "ann\n"}, "names nobody"),
        ({"tenant": None}, "names no tenant"),
        ({"tenant": ""}, "names no tenant"),
        ({"tenant": 7}, "names no tenant"),
        ({"tenant": ["acme"]}, "names no tenant"),
        ({"roles": {"admin": True}}, "no list of roles"),
        ({"roles": ["operator", 7]}, "no list of roles"),
    ],
)
async def test_a_wrong_claim_is_refused(judge: Judge, pem: Path, changes: Claims, why: str) -> None:
    """However well it is signed: no token for somebody else, of somebody else, for ever, or for all tenants."""
    tokens = judge(public_key=pem)
    assert await tokens.caller_of(signed())
    with pytest.raises(Unauthenticated, match=why) as caught:
        await tokens.caller_of(signed(**changes))
    assert caught.value.headers["WWW-Authenticate"].endswith('error="invalid_token"')


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 7, ["RS256"]])
async def test_a_token_without_a_signature_is_refused(judge: Judge, pem: Path, issuer: Issuer, alg: object) -> None:
    """However it spells that it has none."""
    forged = by_hand({"alg": alg, "typ": "JWT", "kid": "one"}, claims())
    for tokens in (judge(public_key=pem), judge(jwks_url=issuer.url)):
        for token in (forged, forged.rstrip("."), signed(headers={"kid": "one"}).rpartition(".")[0] + "."):
            with pytest.raises(Unauthenticated):
                await tokens.caller_of(token)


async def test_a_public_key_is_no_secret(judge: Judge, pem: Path, issuer: Issuer) -> None:
    """HS256 made with the public key, in every form that the key is published in."""
    jwk = json.loads(issuer.jwks())["keys"][0]
    texts = [pem.read_bytes(), pem.read_bytes().strip(), json.dumps(jwk).encode(), jwk["n"].encode()]
    for tokens in (judge(public_key=pem), judge(jwks_url=issuer.url)):
        for text in texts:
            forged = by_hand({"alg": "HS256", "typ": "JWT", "kid": "one"}, claims(), text)
            with pytest.raises(Unauthenticated, match="algorithm that is not allowed"):
                await tokens.caller_of(forged)


async def test_a_secret_among_the_published_keys_is_not_used(judge: Judge, issuer: Issuer) -> None:
    """Whoever can read it could sign with it."""
    text = base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"=").decode()
    issuer.keys["shared"] = {"kty": "oct", "k": text, "alg": "HS256"}
    tokens = judge(jwks_url=issuer.url)
    with pytest.raises(Unauthenticated):
        await tokens.caller_of(by_hand({"alg": "HS256", "kid": "shared"}, claims(), SECRET.encode()))
    with pytest.raises(Unauthenticated):
        await tokens.caller_of(by_hand({"alg": "RS256", "kid": "shared"}, claims(), SECRET.encode()))


async def test_what_a_token_brings_along_is_not_believed(judge: Judge, issuer: Issuer, pem: Path) -> None:
    """A key of its own, a place to get one, another key's name, an algorithm of another key."""
    issuer.keys["two"] = EC
    own = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_RSA.public_key()))
    evil = Issuer()
    evil.keys = {"one": OTHER_RSA}
    try:
        for tokens in (judge(jwks_url=issuer.url), judge(public_key=pem)):
            for headers in (
                {"kid": "one"},
                {"kid": "one", "jwk": own},
                {"kid": "one", "jku": evil.url},
                {"kid": "one", "x5u": evil.url, "crit": ["x5u"]},
                {"kid": "two"},
                {"kid": "../one"},
            ):
                with pytest.raises(Unauthenticated):
                    await tokens.caller_of(signed(OTHER_RSA, headers=headers))
        assert evil.fetched == 0
    finally:
        evil.close()


async def test_a_changed_token_is_refused(judge: Judge, pem: Path) -> None:
    """Other claims, another signature, none of it, no token at all; and the refusal says nothing that it holds."""
    tokens = judge(public_key=pem)
    head, body, signature = signed().split(".")
    other = signed(roles=["admin"]).split(".")
    deep = base64.urlsafe_b64encode(b"[" * 12_000).decode().rstrip("=")
    for token in (
        f"{head}.{other[1]}.{signature}",
        f"{head}.{body}.{other[2]}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{signature}.{signature}",
        f"{head}..{signature}",
        f"{deep}.{body}.{signature}",
        "",
        ".",
        "..",
        "a.b.c",
        "\ud83d.\0.é",
        "oao_" + "0" * 12,
        "x" * 1_000_000,
    ):
        with pytest.raises(Unauthenticated) as caught:
            await tokens.caller_of(token)
        assert len(str(caught.value)) < 100
        assert body not in str(caught.value)


async def test_an_algorithm_that_is_not_named_is_refused(judge: Judge, pem: Path) -> None:
    """Where the settings name some, no other will do."""
    tokens = judge(public_key=pem, algorithms=["RS512"])
    assert await tokens.caller_of(signed(RSA, "RS512"))
    with pytest.raises(Unauthenticated, match="not allowed"):
        await tokens.caller_of(signed())


async def test_a_weak_published_key_is_refused(judge: Judge, issuer: Issuer) -> None:
    """1024 bits of RSA can be factored."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    issuer.keys["weak"] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(weak.public_key()))
    private = weak.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = signed(private, headers={"kid": "weak"})
    with pytest.raises(Unauthenticated):
        await judge(jwks_url=issuer.url).caller_of(token)


# The issuer's keys


async def test_an_unknown_key_is_asked_for_once(judge: Judge, issuer: Issuer) -> None:
    """A flood of tokens that name keys which nobody has costs the issuer nothing, and others no time."""
    tokens = judge(jwks_url=issuer.url)
    with pytest.raises(Unauthenticated, match="name the key"):
        await tokens.caller_of(signed())
    assert issuer.fetched == 0
    assert await tokens.caller_of(signed(headers={"kid": "one"}))
    for n in range(50):
        with pytest.raises(Unauthenticated, match="does not publish"):
            await tokens.caller_of(signed(headers={"kid": f"none-{n}"}))
    assert issuer.fetched == 1


async def test_a_new_key_is_found_and_an_old_one_forgotten(judge: Judge, issuer: Issuer) -> None:
    """After the times that the settings name."""
    tokens = judge(jwks_url=issuer.url, refetch_s=0.0, kept_s=0.2)
    assert await tokens.caller_of(signed(headers={"kid": "one"}))
    issuer.keys = {"two": OTHER_RSA}
    assert await tokens.caller_of(signed(OTHER_RSA, headers={"kid": "two"}))
    with pytest.raises(Unauthenticated):
        await tokens.caller_of(signed(headers={"kid": "one"}))


async def test_an_issuer_that_hangs_blocks_nothing(judge: Judge, issuer: Issuer) -> None:
    """The loop goes on, those with a known key get in, the others are told to come again; only so many wait."""
    tokens = judge(jwks_url=issuer.url, refetch_s=0.0, timeout_s=0.5)
    known = signed(headers={"kid": "one"})
    assert await tokens.caller_of(known)
    issuer.go.clear()
    flood = [asyncio.create_task(tokens.caller_of(signed(headers={"kid": f"none-{n}"}))) for n in range(100)]
    for _ in range(5):
        await asyncio.sleep(0.01)
        began = time.monotonic()
        assert await tokens.caller_of(known)
        assert time.monotonic() - began < 0.3
    answers = await asyncio.wait_for(asyncio.gather(*flood, return_exceptions=True), 10)
    assert all(isinstance(answer, CannotJudge) for answer in answers)
    assert issuer.fetched <= 3


@pytest.mark.parametrize(
    ("status", "answer"),
    [(500, b""), (200, b""), (200, b"<html>"), (200, b"[]"), (200, b'{"keys": []}'), (302, b""), (200, b"\xff\xfe")],
)
async def test_an_issuer_that_fails_lets_nobody_in(judge: Judge, issuer: Issuer, status: int, answer: bytes) -> None:
    """The server says that it cannot judge, or that it knows no such key; and it is not asked again at once."""
    issuer.status, issuer.answer = status, answer
    tokens = judge(jwks_url=issuer.url)
    for _ in range(5):
        with pytest.raises((CannotJudge, Unauthenticated)):
            await tokens.caller_of(signed(headers={"kid": "one"}))
    assert issuer.fetched <= 2


# Settings


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": ""}, "an issuer and an audience"),
        ({"audience": ""}, "an issuer and an audience"),
        ({"public_key": ""}, "exactly one"),
        ({"jwks_url": "https://x.test"}, "exactly one"),
        ({"algorithms": ["none"]}, "'none' does not go"),
        ({"algorithms": ["RS256", "HS256"]}, "'HS256' does not go"),
        ({"algorithms": ["ES256"]}, "'ES256' does not go"),
        ({"leeway_s": -1}, "leeway_s"),
        ({"leeway_s": 1e9}, "leeway_s"),
        ({"leeway_s": float("nan")}, "leeway_s"),
        ({"subject_claim": ""}, "subject_claim"),
        ({"public_key": "nowhere.pem"}, "cannot be read"),
        ({"public_key": "", "secret_env": "NOT_SET_ANYWHERE"}, "holds 0 bytes"),
        ({"public_key": "", "jwks_url": "file:///etc/passwd"}, "Invalid JWKS URI"),
    ],
)
def test_a_wrong_setting_is_an_error(pem: Path, changes: Claims, why: str) -> None:
    """Before anybody is let in."""
    right = TokenSettings(issuer=ISSUER, audience=AUDIENCE, public_key=pem)
    Tokens(right).close()
    with pytest.raises(ConfigError, match=why):
        Tokens(replace(right, **changes))


def test_a_key_that_is_none_is_an_error(pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private one, a weak one, a text, a short secret; no message shows any of it."""
    private = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    for content, why in ((private, "private key"), (public_pem(weak), "1024 bits"), (b"hello", "no public key")):
        pem.write_bytes(content)
        with pytest.raises(ConfigError, match=why):
            Tokens(TokenSettings(issuer=ISSUER, audience=AUDIENCE, public_key=pem))
    for secret, why in (("short-secret", "holds 12 bytes"), (public_pem(RSA).decode(), "PEM")):
        monkeypatch.setenv("SHARED", secret)
        with pytest.raises(ConfigError, match=why) as caught:
            Tokens(TokenSettings(issuer=ISSUER, audience=AUDIENCE, secret_env="SHARED"))
        assert secret not in str(caught.value)
