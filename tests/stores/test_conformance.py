"""The conformance suite on the bundled stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from oao_harness import MemoryStore, SQLiteStore
from oao_harness.stores.redis import RedisStore
from oao_hookspecs import Store
from pytest_oao.testing import RedisServer, StoreConformance


class TestMemory(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestSQLite(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = SQLiteStore(tmp_path / "oao.db")
        yield store
        store.close()

    @pytest.fixture
    def open_again(self, tmp_path: Path) -> Callable[[], Store]:
        return partial(SQLiteStore, tmp_path / "oao.db")


class TestRedis(StoreConformance):
    """Redis as Debian has it."""

    @pytest.fixture
    def store(self, redis_server: RedisServer) -> Iterator[Store]:
        store = RedisStore(redis_server.url)
        yield store
        store.close()

    @pytest.fixture
    def open_again(self, redis_server: RedisServer) -> Callable[[], Store]:
        return partial(RedisStore, redis_server.url)


class TestValkey(StoreConformance):
    """The newest Valkey."""

    @pytest.fixture
    def store(self, valkey_server: RedisServer) -> Iterator[Store]:
        store = RedisStore(valkey_server.url)
        yield store
        store.close()

    @pytest.fixture
    def open_again(self, valkey_server: RedisServer) -> Callable[[], Store]:
        return partial(RedisStore, valkey_server.url)


class TestRedisCluster(StoreConformance):
    """A server in cluster mode refuses a script whose keys are not in one slot."""

    @pytest.fixture
    def store(self, cluster: RedisServer) -> Iterator[Store]:
        store = RedisStore(cluster.url)
        yield store
        store.close()

    @pytest.fixture
    def open_again(self, cluster: RedisServer) -> Callable[[], Store]:
        return partial(RedisStore, cluster.url)
