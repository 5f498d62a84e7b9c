"""`--oao-scheduler=pkg:X`: X opens a queue in a folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from oao_hookspecs.schedulers import Scheduler
from pytest_oao.testing.cases import SchedulerCase
from pytest_oao.testing.scheduler import SchedulerConformance

__all__ = ["TestScheduler"]


class TestScheduler(SchedulerConformance):
    """The suite of schedulers."""

    @pytest.fixture
    def cannot(self, oao_case: SchedulerCase) -> Mapping[str, str]:
        """What it declares."""
        return oao_case.cannot

    @pytest.fixture
    def queue(self, tmp_path: Path) -> Path:
        """The folder of the queue; the tests write to another one."""
        folder = tmp_path / "queue"
        folder.mkdir()
        return folder

    @pytest.fixture
    def open_again(self, oao_case: SchedulerCase, queue: Path) -> Callable[[], Scheduler]:
        """The same queue once more."""
        return functools.partial(oao_case.make, queue)

    @pytest.fixture
    def scheduler(self, open_again: Callable[[], Scheduler]) -> Scheduler:
        """A new queue in an empty folder."""
        return open_again()
