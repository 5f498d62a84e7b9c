"""The conformance suite on the bundled schedulers that are for many machines."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial

import pytest

from oao_harness.schedulers.redis import RedisScheduler
from oao_hookspecs.schedulers import Scheduler
from pytest_oao.testing import RedisServer, SchedulerConformance


class TestRedis(SchedulerConformance):
    """Redis as Debian has it, with its append-only file on."""

    REDELIVERY_S = 1.0

    @pytest.fixture
    def open_again(self, url: str) -> Callable[[], Scheduler]:
        return partial(RedisScheduler, url, redelivery_s=self.REDELIVERY_S)

    @pytest.fixture
    def scheduler(self, open_again: Callable[[], Scheduler]) -> Scheduler:
        return open_again()


class TestValkey(TestRedis):
    """The newest Valkey."""

    @pytest.fixture
    def url(self, valkey_server: RedisServer) -> str:
        return f"{valkey_server.url}?prefix=test-{uuid.uuid4().hex}"
