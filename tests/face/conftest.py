"""A small shop with an agent, and pytest runs over it as a user types them; no plugin but ours unless it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import oao_harness  # noqa: F401 - loaded before pytester takes its picture of sys.modules: patches are process-wide
import pytest_oao.session  # noqa: F401

AGENT = """
import os
import pytest
import oao_harness as oao

RAN = []

@oao.model(name="gpt-x")
def ask(messages):
    RAN.append("gpt-x")
    return {"content": "go on", "usage": {"input_tokens": 30, "output_tokens": 12}}

@oao.tool
def lookup(id):
    RAN.append("lookup")
    return {"paid": 49.99}

@oao.tool
def refund(id, amount):
    RAN.append("refund")
    return f"refunded {amount}"

def agent(task):
    messages = [{"role": "system", "content": "You are careful."}, {"role": "user", "content": task}]
    ask(messages)
    paid = lookup("123")["paid"]
    ask([*messages, {"role": "tool", "content": f"paid {paid}"}])
    return refund("123", paid)
"""
TEST = """
def test_refund():
    answer = agent("order 123")
    print("RAN", RAN)
"""


class Shop:
    """The module `test_shop.py` with an agent in it, its recording, and the ways to run it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.recording = self.path / "recordings" / "test_shop" / "test_refund.oao.json"
        self.pending = self.recording.with_name(self.recording.name + ".new")

    def write(self, *changes: tuple[str, str], test: str = TEST) -> None:
        """Write the module, with texts of it replaced."""
        source = AGENT + test
        for before, after in changes:
            assert before in source, before
            source = source.replace(before, after)
        (self.path / "test_shop.py").write_text(source)

    def run(self, *options: str) -> pytest.RunResult:
        """Run pytest in this process."""
        base = ("-p", "pytest_oao.plugin", "-p", "no:cacheprovider", "-rfE", "-s")
        return self.pytester.runpytest_inprocess(*base, *options)

    def run_alone(self, *options: str, timeout_s: float = 60) -> pytest.RunResult:
        """Run pytest in a process of its own."""
        base = ("-p", "pytest_oao.plugin", "-p", "no:cacheprovider", "-rfE", "-s")
        return self.pytester.runpytest_subprocess(*base, *options, timeout=timeout_s)

    def record(self, *options: str, **outcomes: int) -> None:
        """Record what has no recording."""
        self.run("--oao-record=once", *options).assert_outcomes(**(outcomes or {"passed": 1}))

    def events(self, file: Path | None = None) -> list[dict[str, Any]]:
        """Return the calls of a recording."""
        events: list[dict[str, Any]] = json.loads((file or self.recording).read_text())["events"]
        return events

    def names(self, file: Path | None = None) -> list[str]:
        """Return the names of the calls of a recording."""
        return [event["name"] for event in self.events(file)]

    def files(self) -> list[str]:
        """Return the files of the recordings folder."""
        folder = self.path / "recordings"
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def shop(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop without a recording."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    found = Shop(pytester)
    found.write()
    return found


@pytest.fixture
def recorded(shop: Shop) -> Shop:
    """A shop with a recording."""
    shop.record()
    return shop
