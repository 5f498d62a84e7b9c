"""Every block of the README is executed: the Python ones, the shell ones, and the messages it quotes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_oao.testing import OpenAIServer, TextReply, ToolCall, ToolCallReply
from tests import forked

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    line: int
    language: str
    file: str
    code: str


def blocks() -> Iterator[Block]:
    for found in re.finditer(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", README, re.S | re.M):
        line = README[: found.start()].count("\n") + 1
        yield Block(line, found[1], found[2] or "", found[3])


BLOCKS = list(blocks())
PYTHON = [block for block in BLOCKS if block.language == "python" and not block.file]
FILES = {block.file: block.code for block in BLOCKS if block.file}
SHELL = [line for block in BLOCKS if block.language == "bash" for line in block.code.splitlines()]


def here(**more: str) -> dict[str, str]:
    """The environment of a user who works in another folder."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    return {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **more}


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"line {block.line}")
def test_python_blocks_run(block: Block, tmp_path: Path) -> None:
    """Copied into a file and run, in an empty folder, with warnings as errors."""
    (tmp_path / "snippet.py").write_text(block.code, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-W", "error", "snippet.py"],
        cwd=tmp_path, env=here(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    if "report.json(" in block.code:
        assert '"status": "SUCCESS"' in done.stdout


def pytest_in(folder: Path, command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a `pytest ...` line of the README."""
    assert command in SHELL
    options = ["-p", "pytest_oao.plugin", "-p", "no:cacheprovider", *command.split()[1:]]
    return forked.run(["pytest", *options], cwd=folder, env=here(**more), frameworks=True)


def test_the_tutorial_records_replays_and_fails_as_it_says(tmp_path: Path) -> None:
    """The unedited LangGraph agent: recorded over real HTTP, replayed with the server down, and each quoted failure."""
    pytest.importorskip("langchain_openai", reason="the tutorial needs langchain and langchain-openai")
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    replies = [
        ToolCallReply(calls=(ToolCall(name="lookup_order", arguments={"order_id": "123"}),)),
        ToolCallReply(calls=(ToolCall(name="refund", arguments={"order_id": "123", "amount": 49.99}),)),
        TextReply(text="I have refunded 49.99 EUR."),
    ]
    server = OpenAIServer(replies=replies)
    with server:
        recorded = pytest_in(tmp_path, "pytest --oao-record=once", MODEL_URL=server.url)
        assert recorded.returncode == 0, recorded.stdout
        assert len(server.requests) == 3
    recording = tmp_path / "recordings" / "test_shop" / "test_refund.oao.json"
    assert recording.exists()

    replayed = pytest_in(tmp_path, "pytest --oao-policy=strict")
    assert replayed.returncode == 0, replayed.stdout
    assert "saved by replay" in replayed.stdout
    assert len(server.requests) == 3

    original = FILES["shop.py"]
    quoted = next(block for block in BLOCKS if "system prompt changed" in block.code).code.splitlines()

    def fails_with(line: str, **edits: str) -> None:
        assert line in quoted
        changed = original
        for before, after in edits.values():  # type: ignore[misc]
            assert before in changed
            changed = changed.replace(before, after)
        (tmp_path / "shop.py").write_text(changed, encoding="utf-8")
        failed = pytest_in(tmp_path, "pytest --oao-policy=strict", MODEL_URL=server.url)
        assert failed.returncode == 1, failed.stdout
        assert line in failed.stdout.splitlines(), failed.stdout

    fails_with(
        "step 1 model gpt-4o-mini: system prompt changed (replay diverged)", edit=("Never twice", "Never thrice")
    )  # type: ignore[arg-type]

    again = OpenAIServer(replies=replies)
    with again:
        kept = pytest_in(tmp_path, "pytest --oao-record=new", MODEL_URL=again.url)
        assert kept.returncode == 0, kept.stdout
        assert len(again.requests) == 3
    for command in ("oao pending", "oao accept --all"):
        assert command in SHELL
        done = forked.run(["oao_harness", *command.split()[1:]], cwd=tmp_path, env=here())
        assert done.returncode == 0, done.stderr
        assert "test_refund.oao.json" in done.stdout
    assert pytest_in(tmp_path, "pytest --oao-policy=strict").returncode == 0

    marked = FILES["test_shop.py"].replace("def test_refund", '@pytest.mark.oao(deny=["refund"])\ndef test_refund')
    (tmp_path / "test_shop.py").write_text(f"import pytest\n{marked}", encoding="utf-8")
    denied = pytest_in(tmp_path, "pytest --oao-policy=strict")
    assert denied.returncode == 1
    assert "policy violation: tools.deny: tool refund is denied" in quoted
    assert "policy violation: tools.deny: tool refund is denied" in denied.stdout.splitlines(), denied.stdout
    assert len(server.requests) == 3


def test_the_limits_of_the_named_policies_are_those_of_the_readme() -> None:
    """The sentence under the options is made of the numbers that hold."""
    from oao_harness.policy.named import oao_policies

    text = " ".join(README.split())
    for name, verb in (("standard", "stops after"), ("strict", "after")):
        limits = vars(oao_policies()[name]())
        seconds = limits["timeout_seconds"]
        time = f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} seconds"
        spent = f"{limits['max_steps']} steps, {limits['max_tool_calls']} tool calls, {limits['max_tokens']:,} tokens"
        assert f"`{name}` {verb} {spent} or {time}" in text


def test_the_command_line_of_the_readme_works(tmp_path: Path) -> None:
    """Each `oao` line, one after the other, in a folder with an agent."""
    (tmp_path / "assistant.py").write_text(
        "import oao_harness as oao\n@oao.tool\ndef weather(city): return f'sunny in {city}'\n"
        "def agent(task): return weather('Rome')\n"
    )
    # The server does not end; it has a test of its own.
    commands = [line for line in SHELL if line.startswith("oao ") and not line.startswith("oao serve")]
    assert commands
    for command in commands:
        done = subprocess.run(
            f'"{sys.executable}" -m oao_harness {command.removeprefix("oao ")}',
            shell=True, cwd=tmp_path, env=here(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip()


def test_the_server_of_the_readme_is_asked_as_it_says(tmp_path: Path) -> None:
    """The demo waits for a person, a key is made and shown, and from then on nobody is let in without one."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt install curl")
    (command,) = (line for line in SHELL if line.startswith("oao serve"))
    (asked,) = (block.code for block in BLOCKS if block.language == "bash" and "curl" in block.code)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ours = f"127.0.0.1:{free.getsockname()[1]}"
    server = subprocess.Popen(
        [sys.executable, "-m", "oao_harness", *command.split()[1:]],
        cwd=tmp_path, env=here(OAO_SERVER_PORT=ours.partition(":")[2], PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        # It listens when it says so.
        assert ours in server.stdout.readline()
        lines = asked.replace("127.0.0.1:8000", ours).splitlines()
        script = "\n".join([f'oao() {{ "{sys.executable}" -m oao_harness "$@"; }}', "set -e", *lines])
        done = subprocess.run(
            ["bash", "-c", script.replace("curl ", "curl -sS --fail-with-body ")],
            cwd=tmp_path, env=here(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        assert '"status":"SUSPENDED"' in done.stdout
        assert '{"runs":[{' in done.stdout
        refused = subprocess.run(["curl", "-s", f"http://{ours}/runs"], capture_output=True, timeout=30, check=True)
        assert b'"status": 401' in refused.stdout
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_pages_and_pictures_of_the_readme_are_there() -> None:
    """A link that leads nowhere is a red test."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_two_commands_are_what_ci_and_the_install_test_run() -> None:
    """Nobody runs another line than the reader of the README."""
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    one, two = (line for line in SHELL if line.startswith("python3 -m venv"))

    assert one.endswith("pip install . && oao demo")
    assert two in ci


def test_every_hook_is_in_the_readme() -> None:
    """An undocumented hook is a red test."""
    from oao_harness.plugins.manager import hook_names

    for mode, names in hook_names().items():
        row = next(line for line in README.splitlines() if line.startswith(f"| {mode} |"))
        assert re.findall(r"`(oao_\w+)`", row) == list(names)
