"""The server over Redis: it submits what workers do, and says so when the store is away."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import ROOT, serving

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Redis of its own, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"redis://127.0.0.1:{port}/0", process
    process.kill()
    process.wait(10)


def test_a_worker_does_what_the_server_submits(tmp_path: Path, redis: tuple[str, subprocess.Popen[bytes]]) -> None:
    """With Redis the server only submits; a client waits for what a worker does; a store that is away is a 503."""
    url, process = redis
    with serving(tmp_path / "project", "--scheduler", url, "--store", url, "--grace", "1") as server:
        id_ = server.client.post("/jobs", json={"agent": "echo", "task": 7}).json()["execution_id"]
        assert server.client.get(f"/jobs/{id_}", params={"wait_s": 0.5}).json()["status"] == "QUEUED"
        environ = {"PYTHONPATH": f"{ROOT}:{ROOT / 'hookspecs'}", "PATH": "/usr/bin:/bin"}
        (tmp_path / "project" / "serving.py").touch()
        project = tmp_path / "project" / "pyproject.toml"
        project.write_text(project.read_text().replace('broken = "no_such_module:agent"', ""))
        worker = subprocess.Popen(
            [sys.executable, "-m", "oao_harness", "worker", "--burst", "--scheduler", url, "--store", url],
            cwd=tmp_path / "project",
            env=environ,
            stdout=subprocess.DEVNULL,
        )
        found = server.client.get(f"/jobs/{id_}", params={"wait_s": 25}).json()
        assert (found["status"], found["report"]["final_output"]) == ("SUCCESS", 7)
        worker.wait(30)

        process.kill()
        process.wait(10)

        assert server.client.get("/healthz").status_code == 200
        for path in ("/runs", "/readyz", "/queue", f"/runs/{id_}"):
            away = server.client.get(path)
            assert away.status_code == 503, path
            assert away.headers["Retry-After"]
            assert "127.0.0.1" not in away.text
        assert server.run("echo", 1).status_code == 503
        assert server.stop() in {0, -15}


def test_a_queue_that_hangs_is_a_503(tmp_path: Path, redis: tuple[str, subprocess.Popen[bytes]]) -> None:
    """A Redis that is there and says nothing holds up nobody for long, and all is well when it is back."""
    url, process = redis
    with serving(tmp_path / "project", "--scheduler", url, "--store", url, "--grace", "1") as server:
        done = server.run("echo", 1).json()["execution_id"]
        process.send_signal(signal.SIGSTOP)
        try:
            for path in ("/queue", "/ui/fleet", f"/runs/{done}"):
                began = time.monotonic()
                answer = server.client.get(path)
                assert (answer.status_code, path) == (503, path)
                assert time.monotonic() - began < 15
                assert url.partition("//")[2] not in answer.text
            assert server.client.get("/healthz").status_code == 200
        finally:
            process.send_signal(signal.SIGCONT)
        give_up = time.monotonic() + 15
        while server.client.get("/readyz").status_code != 200:
            assert time.monotonic() < give_up
        assert server.run("echo", 2).json()["final_output"] == 2
        assert server.client.get("/queue").status_code == 200
