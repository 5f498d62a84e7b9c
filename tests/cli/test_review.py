"""`oao review` on a real terminal: keys without Enter."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oao_harness.journal.pending import find_pending, pending_path
from oao_harness.journal.recording import RecordedEvent, Recording

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WAIT_S = 30.0


def recording(value: str) -> Recording:
    event = RecordedEvent(n=1, kind="tool", name="find", run="", start=1, end=2, request={}, key="", value=value)
    return Recording(test="test_x.py::test", events=(event,))


class Terminal:
    """`oao review` as a child process on a pseudo terminal."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update({"TERM": "xterm", "COLUMNS": "100", **environ})
            os.execv(sys.executable, [sys.executable, "-m", "oao_harness", "review"])
        self.text = ""
        self._seen = 0

    def wait_for(self, words: str) -> None:
        """Read until the words are there, after what was waited for before."""
        until = time.monotonic() + WAIT_S
        while words not in self.text[self._seen :]:
            left = until - time.monotonic()
            assert left > 0, f"{words!r} did not come: {self.text[self._seen :]!r}"
            if not select.select([self._fd], [], [], left)[0]:
                continue
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                data = b""
            assert data, f"it ended before {words!r}: {self.text[self._seen :]!r}"
            self.text += ANSI.sub("", data.decode("utf-8", "replace"))
        self._seen = self.text.index(words, self._seen) + len(words)

    def press(self, key: str) -> None:
        """Type a key once the program waits for one: what is typed before is flushed, as every raw prompt does."""
        until = time.monotonic() + WAIT_S
        while termios.tcgetattr(self._fd)[3] & termios.ICANON:
            assert time.monotonic() < until, "it never waited for a key"
            select.select([], [], [], 0.01)
        os.write(self._fd, key.encode())

    def end(self) -> int:
        """Read to the end and return the exit code."""
        until = time.monotonic() + WAIT_S
        while True:
            assert time.monotonic() < until, self.text
            try:
                if not select.select([self._fd], [], [], 1.0)[0]:
                    continue
                data = os.read(self._fd, 65536)
            except OSError:
                break
            if not data:
                break
            self.text += ANSI.sub("", data.decode("utf-8", "replace"))
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return code

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four recordings of which something is pending."""
    for name in "abcd":
        recording("old").save(tmp_path / f"{name}.oao.json")
        recording(f"new {name}").save(pending_path(tmp_path / f"{name}.oao.json"))
    return tmp_path


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """What is closed again whatever happens."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def values(tree: Path) -> dict[str, object]:
    return {path.name[0]: Recording.load(path).events[0].value for path in sorted(tree.glob("*.oao.json"))}


def test_each_key_does_what_it_says(tree: Path, terminals: list[Terminal]) -> None:
    """Accept, reject, skip; a full diff decides nothing."""
    terminal = Terminal(tree)
    terminals.append(terminal)
    terminal.wait_for("a.oao.json")
    terminal.wait_for("1 of 4")
    terminal.wait_for('~ result: "old" -> "new a"')
    terminal.wait_for("q quit")
    terminal.press("d")
    terminal.wait_for('+   "res": "new a",')
    terminal.wait_for("q quit")
    terminal.press("a")
    terminal.wait_for("accepted a.oao.json")
    terminal.wait_for("q quit")
    terminal.press("r")
    terminal.wait_for("rejected b.oao.json")
    terminal.wait_for("q quit")
    terminal.press("s")
    terminal.wait_for("4 of 4")
    terminal.wait_for("q quit")
    terminal.press("q")

    assert terminal.end() == 0
    assert "2 recordings decided, 2 still pending" in terminal.text
    assert values(tree) == {"a": "new a", "b": "old", "c": "old", "d": "old"}
    assert [one.path.name for one in find_pending([tree])] == ["c.oao.json", "d.oao.json"]


def test_the_rest_is_accepted_with_one_key(tree: Path, terminals: list[Terminal]) -> None:
    """A damaged one stays pending, and is said."""
    pending_path(tree / "c.oao.json").write_text("{")
    terminal = Terminal(tree)
    terminals.append(terminal)
    terminal.wait_for("q quit")
    terminal.press("A")

    assert terminal.end() == 0
    assert "is truncated or not JSON" in terminal.text
    assert "3 recordings decided, 1 still pending" in terminal.text
    assert values(tree) == {"a": "new a", "b": "new b", "c": "old", "d": "new d"}


def test_what_the_editor_changes_is_shown_again(tree: Path, terminals: list[Terminal]) -> None:
    """`o` opens the pending file."""
    editor = tree / "edit.py"
    editor.write_text(
        "import pathlib, sys\np = pathlib.Path(sys.argv[1])\np.write_text(p.read_text().replace('new a', 'by hand'))\n"
    )
    terminal = Terminal(tree, EDITOR=f"{sys.executable} {editor}", VISUAL="")
    terminals.append(terminal)
    terminal.wait_for("q quit")
    terminal.press("o")
    terminal.wait_for('"old" -> "by hand"')
    terminal.wait_for("q quit")
    terminal.press("a")
    terminal.wait_for("accepted")
    terminal.wait_for("q quit")
    terminal.press("\x03")

    assert terminal.end() == 0
    assert values(tree)["a"] == "by hand"
