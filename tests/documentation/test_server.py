"""docs/how-to/server.md: its session with a real server, and its tables beside the code that they are about."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest

from oao_harness.fleet.agents import Agents
from oao_harness.server import Settings, create_app
from oao_harness.server.callers import ROLES
from oao_harness.server.keys import KeyFile
from tests.console_pages import ROOT, executed
from tests.server.serving import serving

PAGE = executed("how-to/server.md")
WRITTEN = "127.0.0.1:8000"
# What differs from run to run: ids of runs and keys.
_IDS = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\boao_[0-9a-f]{12}_[0-9a-f]{64}")


def here(port: int) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("OAO_", "OTEL_"))}
    return {**plain, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "OAO_SERVER_PORT": str(port)}


def fits(expected: str, actual: str, known: dict[str, str]) -> bool:
    """Compare, where `...` stands for anything, and an id that is new here for any id, which is known from then on."""
    pattern, new = "", []
    for part in re.split(rf"(\.\.\.|{_IDS.pattern})", expected.strip()):
        if part == "...":
            pattern += ".*?"
        elif not _IDS.fullmatch(part) or part in known:
            pattern += re.escape(known.get(part, part))
        elif part in new:
            pattern += f"(?P=id{new.index(part)})"
        else:
            pattern += f"(?P<id{len(new)}>{_IDS.pattern})"
            new.append(part)
    found = re.fullmatch(pattern, actual.strip(), re.S)
    if found is not None:
        known.update((written, found[f"id{i}"]) for i, written in enumerate(new))
    return found is not None


@contextmanager
def begun(folder: Path, command: str, port: int) -> Iterator[IO[str]]:
    """Serve until the end of the block; its end is in good order."""
    process = subprocess.Popen(
        [sys.executable, "-m", "oao_harness", *command.split()[1:]],
        cwd=folder, env=here(port), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.terminate()
        # What the web server does when it is done: it ends of the signal that it was sent.
        assert process.wait(30) in {0, -signal.SIGTERM}
        process.stdout.close()


def test_the_session_is_what_the_page_shows(tmp_path: Path) -> None:
    """Every file, the server, and every command to it, in order, with what it answers."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt install curl")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = f"127.0.0.1:{port}"
    blocks = re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", PAGE, re.S | re.M)
    for _, file, body in blocks:
        if file:
            (tmp_path / file).write_text(body, encoding="utf-8")
    (served,) = (body for language, _, body in blocks if language == "serve")
    command, _, expected = served.partition("\n")
    known: dict[str, str] = {}
    commands = 0
    with begun(tmp_path, command.removeprefix("$ "), port) as said:
        text = "".join(said.readline() for _ in expected.splitlines())
        assert fits(expected.replace(WRITTEN, ours), text, known), text
        for language, _, body in blocks:
            if language != "console":
                continue
            command, _, expected = body.removeprefix("$ ").partition("\n")
            for written, real in known.items():
                command = command.replace(written, real)
            line = re.sub(r"^oao ", f'"{sys.executable}" -m oao_harness ', command.replace(WRITTEN, ours))
            done = subprocess.run(
                line, shell=True, cwd=tmp_path, env=here(port), capture_output=True, text=True, timeout=60, check=False
            )
            answer = done.stdout + done.stderr
            assert fits(expected.replace(WRITTEN, ours), answer, known), f"{command}\n{answer}"
            commands += 1
    assert commands == 17


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading, without the code marks."""
    text = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


def test_every_setting_is_in_the_table_with_its_default() -> None:
    """Nobody has to read the code to know what there is."""
    shown = {row[0]: row[1] for row in table("Settings")}

    def told(value: object) -> str:
        return "none" if value in (None, (), {}) else str(value)

    assert shown == {name: told(field.get_default(call_default_factory=True)) for name, field in
                     Settings.model_fields.items()}  # fmt: skip


def test_every_role_is_in_the_table_with_its_permissions() -> None:
    """The roles of `oao keys` are those of the page."""
    shown = {row[0]: {one.strip("` ") for one in row[1].split(",")} for row in table("Who may do what")}
    assert shown == {role: set(permissions) for role, permissions in ROLES.items()}


def test_every_route_is_in_the_table_with_the_permission_that_it_needs(tmp_path: Path) -> None:
    """The routes are those of the OpenAPI document; who is let in is asked of a server, with a key of each role."""
    shown = {row[0]: row[1] for row in table("Routes")}
    keys = KeyFile(tmp_path / "keys.json")
    headers = {role: {"Authorization": f"Bearer {keys.create(role, [role]).text}"} for role in ROLES}
    settings = Settings(store="memory:", keys=str(tmp_path / "keys.json"), grace_s=0.5)
    app = create_app(settings, Agents([]))
    routes = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}
    assert set(shown) == {*routes, "WS /ws/events"}

    with serving(app) as url, httpx.Client(base_url=url, timeout=20) as client:

        def status(route: str, role: str | None) -> int:
            method, path = route.split()
            given = re.sub(r"\{\w+\}", "1", path)
            with client.stream(method, given, headers={} if role is None else headers[role]) as answer:
                return answer.status_code

        for route, permission in shown.items():
            if route.startswith("WS "):
                continue
            if permission == "-":
                assert status(route, None) == 200, route
                continue
            assert status(route, None) == 401, route
            for role, permissions in ROLES.items():
                assert (status(route, role) == 403) == (permission not in permissions), f"{route} as {role}"
