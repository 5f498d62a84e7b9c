"""The first session of docs/how-to/server.md: the demo, asked with curl."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console_pages import executed
from tests.terminal_pages import BLOCK, environment

SHELL = [body for language, _, _, body in BLOCK.findall(executed("how-to/server.md")) if language == "bash"]


def test_the_demo_is_asked_as_the_page_says(tmp_path: Path) -> None:
    """It waits for a person, a key is made and shown, and from then on nobody is let in without one."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt install curl")
    command, asked = SHELL
    env = environment(tmp_path / "bin")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ours = f"127.0.0.1:{free.getsockname()[1]}"
    server = subprocess.Popen(
        [sys.executable, "-m", "oao_harness", *command.split()[1:]],
        cwd=tmp_path, env={**env, "OAO_SERVER_PORT": ours.partition(":")[2], "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        # It listens when it says so.
        assert ours in server.stdout.readline()
        script = asked.replace("127.0.0.1:8000", ours).replace("curl ", "curl -sS --fail-with-body ")
        done = subprocess.run(
            ["bash", "-ec", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout
        assert '"status":"SUSPENDED"' in done.stdout
        assert '{"runs":[{' in done.stdout
        refused = subprocess.run(["curl", "-s", f"http://{ours}/runs"], capture_output=True, timeout=30, check=True)
        assert b'"status": 401' in refused.stdout
    finally:
        server.terminate()
        server.communicate(timeout=30)
