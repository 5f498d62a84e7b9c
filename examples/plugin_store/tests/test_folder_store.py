"""What every store promises, and that a process which is killed leaves a journal that goes on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from oao_folder_store import FolderStore

from oao_harness import Orchestrator, tool
from oao_hookspecs import Store
from pytest_oao.testing import StoreCase, StoreConformance

folder_store = StoreCase(make=FolderStore)


class TestFolderStore(StoreConformance):
    """By inheritance."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FolderStore(tmp_path / "journals")

    @pytest.fixture
    def open_again(self, tmp_path: Path) -> Callable[[], Store]:
        return functools.partial(FolderStore, tmp_path / "journals")


def test_what_a_killed_process_left_does_not_count(tmp_path: Path) -> None:
    """It was killed between the journal and the state: half of a batch is behind what counts."""
    store = FolderStore(tmp_path)
    report = Orchestrator(store=store).run(tool(len), "abc")
    before = list(store.read(report.execution_id))
    (journal,) = tmp_path.glob("*.jsonl")
    with journal.open("a") as file:
        file.write('{"v":1,"seq":')

    assert list(store.read(report.execution_id)) == before
    epoch = store.claim(report.execution_id)
    store.append(report.execution_id, epoch, {"v": 1, "seq": len(before) + 1, "type": "note", "at": 1.0})
    assert list(store.read(report.execution_id))[:-1] == before
