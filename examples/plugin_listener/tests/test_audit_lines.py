"""What the file holds, and what every listener promises."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from oao_audit_lines import AuditLines, plugin

from oao_harness import Orchestrator, StrictPolicy, tool
from pytest_oao.testing import Heard, ListenerCase, ListenerConformance


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text(encoding="ascii").splitlines()]


def read_back(folder: Path) -> Sequence[Heard]:
    return [Heard(line["run"], line["event"]) for line in lines(folder)]


def make(folder: Path) -> AuditLines:
    return AuditLines(folder / "audit.jsonl")


audit_lines = ListenerCase(make=make, heard=read_back)


class TestAuditLines(ListenerConformance):
    """By inheritance."""

    @pytest.fixture
    def listener(self, tmp_path: Path) -> object:
        return make(tmp_path)

    @pytest.fixture
    def heard(self, tmp_path: Path) -> Callable[[], Sequence[Heard]]:
        return functools.partial(read_back, tmp_path)


def test_the_file_says_what_was_denied_and_no_secret(tmp_path: Path) -> None:
    """The rule and the policy that stopped the run; never an argument or a result."""
    login = tool(name="login")(lambda password: f"token for {password}")
    policy = StrictPolicy(max_tool_calls=1)
    Orchestrator(policy, plugins=[make(tmp_path)]).run(lambda task: [login("hunter2") for _ in range(2)], "t")

    found = lines(tmp_path)
    assert [line["event"] for line in found][-2:] == ["POLICY_VIOLATION", "EXECUTION_COMPLETE"]
    assert found[-2]["rule"] == "max_tool_calls"
    assert "hunter2" not in (tmp_path / "audit.jsonl").read_text(encoding="ascii")


def test_it_is_offered_where_the_environment_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One listener for one file, however many orchestrators ask; none at all where nothing is named."""
    monkeypatch.delenv("OAO_AUDIT_FILE", raising=False)
    assert plugin.oao_listeners() == []
    monkeypatch.setenv("OAO_AUDIT_FILE", str(tmp_path / "audit.jsonl"))
    (listener,) = plugin.oao_listeners()
    assert plugin.oao_listeners() == [listener]
