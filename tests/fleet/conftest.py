"""A server for the tests of a fleet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_oao.testing import RedisServer


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests of a module; skipped where no program is installed."""
    try:
        server = RedisServer()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with server:
        yield server
