"""What every scheduler promises."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from oao_file_queue import FileQueue, plugin

from oao_harness import ConfigError
from oao_hookspecs import Scheduler, SchedulerSettings
from pytest_oao.testing import SchedulerCase, SchedulerConformance


def open_queue(folder: Path) -> FileQueue:
    return FileQueue(folder / "jobs.db", redelivery_s=1.0)


file_queue = SchedulerCase(make=open_queue)


class TestFileQueue(SchedulerConformance):
    """By inheritance."""

    REDELIVERY_S = 1.0

    @pytest.fixture
    def open_again(self, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Scheduler]:
        return functools.partial(open_queue, tmp_path_factory.mktemp("queue"))

    @pytest.fixture
    def scheduler(self, open_again: Callable[[], Scheduler]) -> Scheduler:
        return open_again()


def test_limits_that_it_does_not_keep_are_refused(tmp_path: Path) -> None:
    """A limit that is silently not kept is worse than none."""
    settings = SchedulerSettings(tenant_limit=2)
    assert plugin.oao_open_scheduler("other:x", settings) is None
    with pytest.raises(ConfigError, match="knows no limits"):
        plugin.oao_open_scheduler(f"queue:{tmp_path}/jobs.db", settings)
