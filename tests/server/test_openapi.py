"""The OpenAPI document, against the server itself: no answer that it does not know, and none that blames the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.server.conftest import serving

if TYPE_CHECKING:
    from tests.server.conftest import Server

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


def test_schemathesis_finds_no_surprise(tmp_path: Path) -> None:
    """Bounded fuzzing of every route: no 5xx, no undocumented status, media type, header or body."""
    environ = {"OAO_SERVER_MOST_WAIT_S": "0.5"}
    with serving(tmp_path, "--deadline", "2", "--grace", "1", environ=environ, broken=False) as server:
        server.run("payer", 1)
        server.run("echo", 1)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "schemathesis.cli",
                "run",
                f"{server.url}/openapi.json",
                f"--checks={','.join(CHECKS)}",
                "--max-examples=6",
                "--phases=examples,coverage,fuzzing",
                "--exclude-path-regex=events$",
                "--request-timeout=15",
                "--max-failures=10",
                "--seed=7",
                "--no-color",
            ],
            capture_output=True,
            text=True,
            timeout=280,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_every_problem_is_documented_as_one(server: Server) -> None:
    """All errors of all routes are `application/problem+json` of one schema."""
    document = server.client.get("/openapi.json").json()

    assert "Problem" in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path == "/healthz":
                continue
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)
            assert "500" in operation["responses"], (method, path)


def test_the_page_of_the_api_needs_no_other_server(server: Server) -> None:
    """/docs has no inline script and nothing from elsewhere, and its parts are served."""
    page = server.client.get("/docs")

    assert "http://" not in page.text.replace(server.url, "")
    assert "https://" not in page.text
    assert "<script>" not in page.text
    assert server.client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200
    assert server.client.get("/docs/assets/begin.js").status_code == 200
    assert server.client.get("/docs/assets/../../pyproject.toml").status_code == 404
    assert server.client.get("/docs/assets/index.html").status_code == 404


def test_health_is_not_readiness(server: Server) -> None:
    """/healthz and /readyz answer, and what is not there is a problem document."""
    assert server.client.get("/healthz").json() == {"status": "ok"}
    assert server.client.get("/readyz").json() == {"status": "ready"}
    missing = server.client.get("/nothing")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    wrong = server.client.delete("/run")
    assert (wrong.status_code, wrong.headers["content-type"]) == (405, "application/problem+json")
