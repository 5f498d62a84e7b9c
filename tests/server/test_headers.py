"""Headers for browsers: on every answer, also on errors and refusals."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI, Response

from oao_harness.server.headers import CONTENT_SECURITY_POLICY, SecurityHeaders
from oao_harness.server.limits import BodyLimit
from tests.server.serving import serving


def make_app() -> FastAPI:
    app = FastAPI()

    @app.get("/plain")
    async def plain() -> str:
        return "x"

    @app.get("/static")
    async def static(response: Response) -> str:
        response.headers["Cache-Control"] = "max-age=60"
        response.headers["Content-Security-Policy"] = "default-src 'none'"
        return "x"

    @app.get("/breaks")
    async def breaks() -> None:
        raise RuntimeError

    return app


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/plain", 200), ("GET", "/none", 404), ("POST", "/plain", 405), ("GET", "/breaks", 500),
    ("POST", "/too-large", 413),
])  # fmt: skip
def test_every_answer_has_them(method: str, path: str, status: int) -> None:
    """Whatever it is; and HSTS only where it means something."""
    with serving(SecurityHeaders(BodyLimit(make_app(), most_bytes=10))) as url:
        content = b"x" * (11 if status == 413 else 0)
        answer = httpx.request(method, url + path, content=content)
    assert answer.status_code == status
    headers = answer.headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in headers
    assert "access-control-allow-origin" not in headers


def test_no_page_may_be_framed_or_hold_scripts_of_others() -> None:
    """The policy names no source but our own, and allows nothing inline."""
    for part in (
        "default-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "object-src 'none'",
    ):
        assert part in CONTENT_SECURITY_POLICY.split("; ")
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "*" not in CONTENT_SECURITY_POLICY


def test_an_answer_may_say_otherwise() -> None:
    """What it says itself stays, once; HSTS comes with https."""
    with serving(SecurityHeaders(make_app(), extra={"X-Extra": "1"})) as url:
        answer = httpx.get(f"{url}/static", headers={"X-Forwarded-Proto": "https"})
    assert answer.headers.get_list("cache-control") == ["max-age=60"]
    assert answer.headers.get_list("content-security-policy") == ["default-src 'none'"]
    assert answer.headers["x-extra"] == "1"
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
