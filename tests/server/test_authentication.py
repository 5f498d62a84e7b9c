"""Who is let in, attacked: from other machines, other sites, other names, with stolen and made-up credentials."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from oao_harness import ConfigError, OaoError
from oao_harness.server.authentication import (
    Authenticator,
    authenticator_of,
    denied,
    require_safe_binding,
    requires,
)
from oao_harness.server.callers import Caller
from oao_harness.server.denials import CannotJudge, Denial, Forbidden, TooMany, Unauthenticated
from oao_harness.server.keys import KeyFile
from oao_harness.server.origins import is_loopback
from oao_harness.server.quotas import Quotas
from oao_harness.server.routes.login import router
from oao_harness.server.sessions import Sessions, secret_in
from oao_harness.server.tokens import Tokens, TokenSettings
from tests.server.serving import serving

SECRET = "a-secret-of-the-issuer-with-more-than-32-bytes"


def make_app(authenticator: Authenticator | None) -> FastAPI:
    app = FastAPI()
    if authenticator is not None:
        app.state.authenticator = authenticator
    app.add_exception_handler(Denial, denied)
    app.include_router(router)

    @app.get("/")
    async def home(caller: Annotated[Caller, Depends(requires("read"))]) -> dict[str, Any]:
        return {"id": caller.id, "tenant": caller.tenant, "roles": list(caller.roles)}

    @app.get("/token")
    async def token(connection: HTTPConnection, caller: Annotated[Caller, Depends(requires("read"))]) -> str:
        return authenticator_of(connection).csrf_token(connection)

    for permission in ("read", "run", "approve", "admin"):

        @app.post(f"/{permission}")
        async def act(caller: Caller = Depends(requires(permission))) -> str:  # type: ignore[arg-type]  # noqa: B008
            return caller.id

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, caller: Annotated[Caller, Depends(requires("read"))]) -> None:
        await websocket.accept()
        await websocket.send_text(caller.id)
        await websocket.close()

    return app


@contextmanager
def asking(authenticator: Authenticator | None, **config: Any) -> Iterator[httpx.Client]:
    with serving(make_app(authenticator), **config) as url, httpx.Client(base_url=url, timeout=10) as client:
        yield client


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def connection(
    client: tuple[str, int] | None = ("127.0.0.1", 1), method: str = "GET", **headers: str
) -> HTTPConnection:
    """What a server would hand over, for what cannot be sent from this machine."""
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/", "scheme": "http", "client": client, "headers": raw}
    return HTTPConnection(scope)


def assert_problem(answer: httpx.Response, status: int, said: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert said in body["detail"]


# Without keys


def test_without_keys_this_machine_is_let_in(keys: KeyFile) -> None:
    """As `local`, with all permissions, by every name that only this machine has."""
    with asking(Authenticator(keys)) as client:
        assert client.get("/").json() == {"id": "local", "tenant": "", "roles": []}
        assert [client.post(f"/{one}").json() for one in ("read", "run", "approve", "admin")] == ["local"] * 4
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:80"):
            assert client.get("/", headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "127.0.0.1.nip.io",
        "localhost@evil.test",
        "evil.test#localhost",
        "localhost, evil.test",
        "localhost.",
        "0.0.0.0",
        "2130706433",
        "0x7f.1",
        "127.1",
        "[::]",
        "[::1",
        "10.0.0.1",
        "",
        "localhost:port",
        "localhost:99999",
        "\xfflocalhost",
    ],
)
def test_a_name_that_was_pointed_here_is_refused(keys: KeyFile, host: str) -> None:
    """DNS rebinding: the browser believes that the page and the server are one site."""
    with asking(Authenticator(keys)) as client:
        at = urlsplit(str(client.base_url))
        for method in ("GET", "POST"):
            raw = http.client.HTTPConnection(at.hostname or "", at.port, timeout=10)
            raw.putrequest(method, "/" if method == "GET" else "/run", skip_host=True)
            raw.putheader("Host", host.encode("latin-1"))
            raw.putheader("Content-Length", "0")
            raw.endheaders()
            assert raw.getresponse().status in {400, 403}
            raw.close()


def test_two_names_are_refused(keys: KeyFile) -> None:
    """Whoever looks at the other one would think otherwise."""
    with asking(Authenticator(keys)) as client:
        at = urlsplit(str(client.base_url))
        raw = http.client.HTTPConnection(at.hostname or "", at.port, timeout=10)
        raw.putrequest("GET", "/", skip_host=True)
        for host in ("localhost", "evil.test"):
            raw.putheader("Host", host)
        raw.endheaders()
        assert raw.getresponse().status in {400, 403}
        raw.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://127.0.0.1.evil.test:{port}"},
        {"Origin": "http://127.0.0.1:{port}@evil.test"},
        {"Origin": "http://127.0.0.1:{port}/"},
        {"Origin": "file://127.0.0.1:{port}"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "Same-Origin"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.test"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:{port}"},
    ],
)
def test_a_page_that_is_open_elsewhere_starts_nothing(keys: KeyFile, headers: dict[str, str]) -> None:
    """Its browser runs on this machine; a form of it needs no CORS."""
    with asking(Authenticator(keys)) as client:
        port = urlsplit(str(client.base_url)).port
        sent = {name: value.format(port=port) for name, value in headers.items()}
        for content in ("application/x-www-form-urlencoded", "text/plain", "application/json"):
            answer = client.post("/run", content="{}", headers={**sent, "Content-Type": content})
            assert_problem(answer, 403, "another site")
        assert "access-control-allow-origin" not in answer.headers
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        answer = client.get("/ws", headers={**sent, **upgrade, "Sec-WebSocket-Key": "A" * 22 + "=="})
        assert answer.status_code == 403


def test_our_own_page_and_a_link_to_it_pass(keys: KeyFile) -> None:
    """The dashboard works, and so does a link to it in another page; what that page embeds does not."""
    with asking(Authenticator(keys)) as client:
        own = str(client.base_url).rstrip("/")
        assert client.post("/run", headers={"Origin": own, "Sec-Fetch-Site": "same-origin"}).status_code == 200
        assert client.post("/run", headers={"Origin": own}).status_code == 200
        assert client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert client.get("/", headers={**link, "Sec-Fetch-Dest": "document"}).status_code == 200
        assert client.get("/", headers={**link, "Sec-Fetch-Dest": "iframe"}).status_code == 403
        assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status_code == 403


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"])
def test_what_came_through_a_proxy_is_not_local(keys: KeyFile, name: str) -> None:
    """The proxy is on this machine, whoever asks it need not be; nor does it help to name an address."""
    for trusted in (True, False):
        with asking(Authenticator(keys), proxy_headers=trusted) as client:
            for value in ("203.0.113.7", "127.0.0.1", ""):
                assert_problem(client.get("/", headers={name: value}), 403)


@pytest.mark.parametrize("host", ["203.0.113.7", "10.0.0.1", "::", "::ffff:10.0.0.1", "localhost.evil", "", None])
async def test_another_machine_is_refused(keys: KeyFile, host: str | None) -> None:
    """Whatever name it asks for; and whoever comes over a socket without an address."""
    client = None if host is None else (host, 1)
    with pytest.raises(Forbidden, match="only this machine"):
        await Authenticator(keys).authenticate(connection(client, host="localhost"))
    assert (await Authenticator(keys).authenticate(connection(host="localhost"))).id == "local"


def test_the_first_key_shuts_the_door(keys: KeyFile, tmp_path: Path) -> None:
    """Of a running server, for good: also where the file is deleted, damaged, or all keys in it are revoked."""
    with asking(Authenticator(KeyFile(tmp_path / "keys.json"))) as client:
        assert client.post("/run").status_code == 200
        made = keys.create("ann", ["operator"])
        assert_problem(client.post("/run"), 401)
        assert client.post("/run", headers=bearer(made.text)).json() == "ann"
        keys.revoke("ann")
        assert_problem(client.post("/run"), 401)
        (tmp_path / "keys.json").write_text("")
        assert_problem(client.post("/run"), 401)
        (tmp_path / "keys.json").unlink()
        assert_problem(client.post("/run"), 401)
        assert_problem(client.post("/run", headers=bearer(made.text)), 401)


def test_a_server_that_is_told_so_is_never_open() -> None:
    """Nor is one without an authenticator: that is a mistake, and lets nobody in."""
    with asking(Authenticator(open_on_loopback=False)) as client:
        assert_problem(client.get("/"), 401)
    with asking(None) as client:
        assert client.get("/").status_code == 500
    with pytest.raises(OaoError, match="no authenticator"):
        asyncio.run(requires("read")(HTTPConnection({"type": "http", "headers": [], "app": FastAPI()})))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.test", "::ffff:10.0.0.1", "*", "127.1"])
def test_nobody_listens_to_the_world_without_keys(keys: KeyFile, host: str) -> None:
    """It is refused before the port is open; with a key it is allowed."""
    with pytest.raises(ConfigError, match="oao keys create"):
        require_safe_binding(host, Authenticator(keys).has_keys)
    keys.create("ann", ["viewer"])
    require_safe_binding(host, Authenticator(keys).has_keys)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.53", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_this_machine_may_be_listened_to(host: str) -> None:
    """By each of its own names."""
    assert is_loopback(host)
    require_safe_binding(host, False)


# With keys and tokens


def test_a_key_may_what_its_roles_may(keys: KeyFile) -> None:
    """And no more; sent as a bearer token or as X-API-Key."""
    expected = {
        "viewer": [200, 403, 403, 403],
        "operator": [200, 200, 403, 403],
        "approver": [200, 403, 200, 403],
        "admin": [200, 200, 200, 200],
        "manager": [403, 403, 403, 403],
    }
    with asking(Authenticator(keys)) as client:
        for role, statuses in expected.items():
            text = keys.create(f"a-{role}", [role], tenant="acme").text
            for headers in (bearer(text), {"X-API-Key": text}, {"Authorization": f"bearer   {text}"}):
                answers = [client.post(f"/{one}", headers=headers) for one in ("read", "run", "approve", "admin")]
                assert [answer.status_code for answer in answers] == statuses, role
            for answer in answers:
                assert text not in answer.text
        assert client.get("/", headers=bearer(keys.create("x", ["viewer"], tenant="acme").text)).json() == {
            "id": "x",
            "tenant": "acme",
            "roles": ["viewer"],
        }


def test_without_a_good_key_nobody_gets_in(keys: KeyFile) -> None:
    """401 that says how; not from this machine, not by two keys, and a wrong one is not made good by a good one."""
    good = keys.create("ann", ["admin"]).text
    wrong = good[:-1] + ("0" if good[-1] != "0" else "1")
    with asking(Authenticator(keys, failures=Quotas("1000/minute"))) as client:
        missing = client.get("/")
        assert_problem(missing, 401, "Authorization: Bearer")
        assert missing.headers["www-authenticate"] == 'Bearer realm="oao"'
        attempts: list[list[tuple[str, str]]] = [
            [("Authorization", f"Bearer {wrong}")],
            [("Authorization", "Bearer")],
            [("Authorization", good)],
            [("Authorization", f"Basic {good}")],
            [("Authorization", f"Bearer {good} {good}")],
            [("Authorization", f"Bearer {good},")],
            [("X-API-Key", wrong)],
            [("X-API-Key", "")],
            [("X-API-Key", f"Bearer {good}")],
            [("X-API-Key", good), ("Authorization", f"Bearer {wrong}")],
            [("X-API-Key", good), ("Authorization", f"Bearer {good}")],
            [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {wrong}")],
            [("Authorization", "Bearer " + "x" * 20_000)],
            [("Cookie", f"oao_session={good}")],
        ]
        for headers in attempts:
            answer = client.get("/", headers=headers)
            assert_problem(answer, 401)
            assert good not in answer.text
        for path in (f"/?key={good}", f"/?api_key={good}", f"/?access_token={good}"):
            assert_problem(client.get(path), 401)
        assert client.get("/", headers=bearer(good)).status_code == 200


def test_who_guesses_is_slowed_down(keys: KeyFile) -> None:
    """429 after some wrong ones, also at the form; who has a key still gets in, and who sends none is told to."""
    good = keys.create("ann", ["admin"]).text
    with asking(Authenticator(keys, failures=Quotas("3/minute"))) as client:
        statuses = [client.get("/", headers=bearer(f"oao_{n:012x}_{'0' * 64}")).status_code for n in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        refused = client.post("/login", data={"key": "guess"})
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert client.get("/").status_code == 401
        assert client.get("/", headers=bearer(good)).status_code == 200


async def test_a_caller_may_ask_so_often(keys: KeyFile) -> None:
    """With all of its keys together, and each caller for itself: no tenant uses up what is another's."""
    authenticator = Authenticator(keys, calls=Quotas("2/minute"))
    ann, again, other, bob = (
        connection(authorization=f"Bearer {keys.create(name, ['viewer'], tenant=tenant).text}")
        for name, tenant in (("ann", "acme"), ("ann", "acme"), ("ann", "shop"), ("bob", "acme"))
    )
    for one in (ann, again, bob, bob, other, other):
        await authenticator.authenticate(one)
    for one in (ann, again, other, bob):
        with pytest.raises(TooMany) as caught:
            await authenticator.authenticate(one)
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 60


def test_a_damaged_file_lets_nobody_in_and_says_so_once(
    keys: KeyFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """503 to everybody, the reason in the log and not in the answer; mended, it goes on."""
    good = keys.create("ann", ["admin"]).text
    content = (tmp_path / "keys.json").read_bytes()
    with asking(Authenticator(keys)) as client, caplog.at_level(logging.DEBUG):
        client.post("/login", data={"key": good})
        (tmp_path / "keys.json").write_bytes(content[:-20])
        for _ in range(3):
            answer = client.get("/", headers=bearer(good))
            assert_problem(answer, 503, "nobody is let in")
            assert str(tmp_path) not in answer.text
            assert_problem(client.get("/"), 503)
            assert_problem(client.get("/", headers=bearer(f"oao_{'0' * 12}_{'0' * 64}")), 503)
        (tmp_path / "keys.json").write_bytes(content)
        assert client.get("/", headers=bearer(good)).status_code == 200
    assert caplog.text.count("are damaged:") == 1
    assert good not in caplog.text
    assert good.rpartition("_")[2] not in caplog.text


def test_a_token_is_as_good_as_a_key(keys: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP: roles, tenant, expiry; a key is never taken for a token, and a token is none in X-API-Key."""
    monkeypatch.setenv("ISSUER_SECRET", SECRET)
    tokens = Tokens(TokenSettings(issuer="i", audience="oao", secret_env="ISSUER_SECRET"))
    claims = {"iss": "i", "aud": "oao", "sub": "bob", "tenant": "shop", "roles": ["operator"], "exp": time.time() + 60}
    good = jwt.encode(claims, SECRET, "HS256")
    old = jwt.encode({**claims, "exp": time.time() - 600}, SECRET, "HS256")
    key = keys.create("ann", ["viewer"]).text
    with asking(Authenticator(keys, tokens)) as client:
        assert client.get("/", headers=bearer(good)).json() == {"id": "bob", "tenant": "shop", "roles": ["operator"]}
        assert client.post("/run", headers=bearer(good)).json() == "bob"
        assert client.post("/admin", headers=bearer(good)).status_code == 403
        assert client.get("/", headers=bearer(key)).json()["id"] == "ann"
        expired = client.get("/", headers=bearer(old))
        assert_problem(expired, 401, "expired")
        assert 'error="invalid_token"' in expired.headers["www-authenticate"]
        assert_problem(client.get("/", headers={"X-API-Key": good}), 401)
    with asking(Authenticator(None, tokens)) as client:
        assert_problem(client.get("/"), 401)
        assert_problem(client.get("/", headers=bearer(key)), 401)
        assert client.get("/", headers=bearer(good)).status_code == 200
    tokens.close()


# The sessions of browsers


def test_a_person_logs_in_and_out(keys: KeyFile) -> None:
    """The form takes a key once; the cookie is not it, scripts cannot read it, other sites do not send it."""
    key = keys.create("ann", ["operator"], tenant="acme").text
    with asking(Authenticator(keys)) as client:
        own = str(client.base_url).rstrip("/")
        page = client.get("/", headers={"Accept": "text/html,*/*"})
        assert (page.status_code, page.headers["location"]) == (303, "/login")
        form = client.get("/login")
        assert (form.status_code, 'name="key"' in form.text) == (200, True)
        # Only files of the server's own; nothing stands in the page.
        assert re.findall(r"<script(?! src=\"/ui/static/)", form.text) == []
        assert re.search(r"\son\w+=|style=", form.text) is None
        answer = client.post("/login", data={"key": f" {key}\n"}, headers={"Origin": own})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert key.rpartition("_")[2] not in cookie
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        assert client.get("/").json() == {"id": "ann", "tenant": "acme", "roles": ["operator"]}
        own_page = {"Origin": own, "Sec-Fetch-Site": "same-origin"}
        assert client.post("/run", headers=own_page).json() == "ann"
        assert client.post("/admin", headers=own_page).status_code == 403
        out = client.post("/logout", headers=own_page)
        assert (out.status_code, out.headers["location"]) == (303, "/login")
        assert client.get("/").status_code == 401


def test_a_session_over_https_is_sent_over_nothing_else(keys: KeyFile) -> None:
    """`Secure`, with the prefix that binds it to the host; the proxy that ends TLS says that it is https."""
    key = keys.create("ann", ["viewer"]).text
    with asking(Authenticator(keys)) as client:
        https = {"X-Forwarded-Proto": "https"}
        cookie = client.post("/login", data={"key": key}, headers=https).headers["set-cookie"]
        assert cookie.startswith("__Host-oao_session=")
        assert "Secure" in cookie.split("; ")
        value = cookie.partition(";")[0].partition("=")[2]
        assert client.get("/", headers={**https, "Cookie": f"__Host-oao_session={value}"}).status_code == 200
        assert client.get("/", headers={**https, "Cookie": f"oao_session={value}"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 64},
        {"X-CSRF-Token": "{token}", "Origin": "https://evil.test"},
        {"X-CSRF-Token": "{token}", "Sec-Fetch-Site": "cross-site"},
        {"X-CSRF-Token": "{other}"},
    ],
)
def test_another_site_does_nothing_with_a_session(keys: KeyFile, headers: dict[str, str]) -> None:
    """Though the browser sent its cookie: not by a form, not by a WebSocket, not with the token of another session."""
    key = keys.create("ann", ["admin"]).text
    with asking(Authenticator(keys)) as client:
        client.post("/login", data={"key": key})
        other = client.get("/token").json()
        client.cookies.clear()
        client.post("/login", data={"key": key})
        token = client.get("/token").json()
        assert len({token, other}) == 2
        sent = {name: value.format(token=token, other=other) for name, value in headers.items()}
        assert_problem(client.post("/run", headers=sent), 403)
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        answer = client.get("/ws", headers={**sent, **upgrade, "Sec-WebSocket-Key": "A" * 22 + "=="})
        assert answer.status_code == 403
        assert client.post("/run", headers={"X-CSRF-Token": token}).json() == "ann"


def test_another_site_does_not_log_a_person_in(keys: KeyFile) -> None:
    """With a key of the attacker's, whose runs the person would then start; nor out."""
    key = keys.create("eve", ["admin"]).text
    with asking(Authenticator(keys)) as client:
        for headers in ({"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            answer = client.post("/login", data={"key": key}, headers=headers)
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
            assert_problem(client.post("/logout", headers=headers), 403)


def test_a_session_ends_with_its_key(keys: KeyFile) -> None:
    """Revoked, at once; and the session itself after its time."""
    now = [time.time()]
    sessions = Sessions(lasts_s=60, clock=lambda: now[0])
    one, two = (keys.create(name, ["viewer"]) for name in ("ann", "bob"))
    with asking(Authenticator(keys, sessions=sessions)) as client:
        client.post("/login", data={"key": one.text})
        assert client.get("/").json()["id"] == "ann"
        keys.revoke(one.key.id)
        assert_problem(client.get("/"), 401, "session is over")
        client.post("/login", data={"key": two.text})
        saved = dict(client.cookies)
        now[0] += 61
        answer = client.get("/", headers={"Cookie": f"oao_session={saved['oao_session']}"})
        assert_problem(answer, 401, "session is over")


def test_a_made_up_session_is_refused(keys: KeyFile) -> None:
    """Unsigned, signed by others, of another use, changed; and a session is no bearer token."""
    made = keys.create("ann", ["admin"])
    secret = b"k" * 32
    claims = {"sub": made.key.id, "aud": "oao-dashboard", "exp": time.time() + 60, "iat": time.time()}
    good = jwt.encode(claims, secret, "HS256")
    head, body, signature = good.split(".")
    with asking(Authenticator(keys, sessions=Sessions(secret))) as client:
        assert client.get("/", headers={"Cookie": f"oao_session={good}"}).json()["id"] == "ann"
        for forged in (
            jwt.encode(claims, None, "none"),
            jwt.encode(claims, b"x" * 32, "HS256"),
            jwt.encode({**claims, "aud": "oao"}, secret, "HS256"),
            jwt.encode({**claims, "exp": 1}, secret, "HS256"),
            jwt.encode({**claims, "exp": "never"}, secret, "HS256"),
            jwt.encode({key: value for key, value in claims.items() if key != "exp"}, secret, "HS256"),
            jwt.encode({**claims, "sub": "0" * 12}, secret, "HS256"),
            jwt.encode(claims, secret + b"k" * 32, "HS512"),
            f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}",
            f"{head}.{body}.",
            "",
            ".",
            "x" * 3000,
            made.text,
        ):
            assert client.get("/", headers={"Cookie": f"oao_session={forged}"}).status_code == 401, forged
        assert client.get("/", headers=bearer(good)).status_code == 401


def test_a_wrong_key_at_the_form_is_said_and_not_repeated(keys: KeyFile) -> None:
    """Whatever was typed does not come back as part of a page; a form that is none is a wrong key."""
    keys.create("ann", ["admin"])
    with asking(Authenticator(keys, failures=Quotas("100/minute"))) as client:
        typed = "<script>alert(1)</script>"
        answer = client.post("/login", data={"key": typed})
        assert answer.status_code == 401
        assert "unknown" in answer.text
        assert "alert(1)" not in answer.text
        assert "set-cookie" not in answer.headers
        for odd in ({"files": {"key": b"x"}}, {"json": {"key": 1}}, {"data": {f"k{n}": "x" for n in range(50)}}):
            answer = client.post("/login", **odd)  # type: ignore[arg-type]
            assert (answer.status_code in {400, 401}, "set-cookie" in answer.headers) == (True, False)


def test_an_open_server_has_nothing_to_log_in_to() -> None:
    """The form leads to the first page."""
    with asking(Authenticator()) as client:
        for answer in (client.get("/login"), client.post("/login", data={"key": "x"})):
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
            assert "set-cookie" not in answer.headers


def test_several_processes_share_a_secret(tmp_path: Path) -> None:
    """Made by the first, readable for its owner alone; a short or odd one is an error."""
    path = tmp_path / "sub" / "session.key"
    assert secret_in(path) == secret_in(path)
    assert len(secret_in(path)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(path.parent.iterdir())) == 1
    for content in ("", "00", "not hex"):
        path.write_text(content)
        with pytest.raises(ConfigError, match="secret of the sessions"):
            secret_in(path)
    with pytest.raises(ConfigError, match="32 are the least"):
        Sessions(b"short")


async def test_denials_say_what_they_are() -> None:
    """Each is a problem with its own status."""
    for error, status in (
        (Unauthenticated("who"), 401),
        (Forbidden("no"), 403),
        (TooMany("slow", retry_after_s=0.2), 429),
        (CannotJudge("down"), 503),
    ):
        answer = await denied(connection(accept="application/json"), error)
        assert answer.status_code == status
        assert json.loads(bytes(answer.body))["title"]
        assert ("retry-after" in answer.headers) == (status in {429, 503})
