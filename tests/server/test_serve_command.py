"""`oao serve` as a stranger meets it: what it says when it listens, and why it does not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from oao_harness.server.keys import KeyFile
from tests import forked

ROOT = Path(__file__).parent.parent.parent


def here(**more: str) -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("OAO_", "OTEL_"))}
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    return {**plain, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **more}


def listening(folder: Path, *options: str) -> list[str]:
    """Return what a server says until the empty line, and end it with Ctrl-C."""
    command = [sys.executable, "-m", "oao_harness", "serve", "--port", "0", *options]
    with subprocess.Popen(command, cwd=folder, env=here(), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            said = list(iter(server.stdout.readline, "\n"))
            server.send_signal(signal.SIGINT)
            assert server.wait(30) in {0, -signal.SIGINT}
        finally:
            server.kill()
    return [line.rstrip("\n") for line in said]


def refused(folder: Path, *options: str, **environ: str) -> str:
    """Return why a server does not begin: one line, no traceback."""
    done = forked.run(["oao_harness", "serve", *options], cwd=folder, env=here(**environ), frameworks=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_it_says_where_the_dashboard_is_and_what_is_next(tmp_path: Path) -> None:
    """The address to open, the API's page, who is let in, and a command that can be copied."""
    said = listening(tmp_path, "--demo")
    text = "\n".join(said)
    url = said[0].split()[2]
    assert f"open    {url} (the dashboard)" in text
    assert f"API     {url}/docs" in text
    assert "callers this machine alone" in text
    assert "approve the refund" in text
    assert f"curl {url}/run" in said[-1]


def test_without_an_agent_it_says_how_to_name_one(tmp_path: Path) -> None:
    """Nothing to run is no error: the runs of the store can be looked at."""
    said = "\n".join(listening(tmp_path))
    assert "agents  none" in said
    assert '[tool.oao.agents] support = "shop:support"' in said
    assert "curl" not in said


def test_with_a_key_it_listens_everywhere_and_the_command_shows_the_key(tmp_path: Path) -> None:
    """Nobody can open 0.0.0.0; what is shown to be opened is this machine."""
    KeyFile(tmp_path / ".oao" / "keys.json").create("ann", ["operator"])
    said = "\n".join(listening(tmp_path, "--host", "0.0.0.0", "--demo"))
    assert "oao serves http://0.0.0.0:" in said
    assert "open    http://localhost:" in said
    assert "callers who has a key or a token" in said
    assert '-H "Authorization: Bearer $OAO_KEY"' in said


def test_without_a_key_it_does_not_listen_everywhere(tmp_path: Path) -> None:
    """The refusal has the command that helps."""
    assert "oao keys create NAME --role admin" in refused(tmp_path, "--host", "0.0.0.0")


def test_a_port_in_use_is_said_at_once(tmp_path: Path) -> None:
    """Before anything is opened or made."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is in use; give another one with --port" in refused(tmp_path, "--port", str(port))
    assert not (tmp_path / ".oao").exists()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("prot = 8000", "no setting 'prot'; did you mean 'port'?"),
        ('port = "many"', "pyproject.toml: port is 'many'"),
        ('caller_rate = "lots"', "'lots' is no rate limit; write for example 600/minute"),
        ('tokens = { issuer = "i" }', "[tool.oao.server.tokens]: audience is missing"),
        ('tokens = { isuer = "i" }', "unknown key 'isuer'; did you mean 'issuer'?"),
    ],
)
def test_a_wrong_setting_says_which(settings: str, why: str, tmp_path: Path) -> None:
    """Where it is from, what is wrong, what it could be."""
    (tmp_path / "pyproject.toml").write_text(f"[tool.oao.server]\n{settings}\n")
    assert why in refused(tmp_path, **({} if "port = " in settings else {"OAO_SERVER_PORT": "0"}))


def test_a_wrong_setting_of_the_environment_says_so(tmp_path: Path) -> None:
    """Not that of the project."""
    assert "the environment: slots is 'zero'" in refused(tmp_path, "--port", "0", OAO_SERVER_SLOTS="zero")
