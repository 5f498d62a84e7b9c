"""Every block of the README is executed: the Python ones, the shell ones, and the messages it quotes."""

from __future__ import annotations

import html
import os
import re
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


def test_the_picture_of_the_terminal_shows_what_the_tutorial_does() -> None:
    """Its session is one of the tutorial: the telling lines are printed there too."""
    drawn = html.unescape((ROOT / "docs" / "images" / "terminal.svg").read_text(encoding="utf-8")).replace("\xa0", " ")
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    for line in (
        "step 4 tool refund: amount 49.99 -> 54.99 (replay diverged)",
        "  1 other value is equal; steps 1-3 matched",
        "  called from goodwill.py:9 in goodwill()",
        "large-refunds",
        " I have refunded 49.99 EUR.",
    ):
        assert line in drawn
        assert line in tutorial
        # What the README quotes is one of them.
        assert "replay diverged" not in line or line in README


def test_the_front_page_is_one() -> None:
    """One screen before the first code, and everything else is a page of docs/."""
    assert BLOCKS[0].line <= 40
    assert len(README.splitlines()) <= 210
