"""Fixtures that every test may use: real parts, no patches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oao_harness import MemoryStore, SQLiteStore
from oao_hookspecs import Store

pytest_plugins = ["pytester"]

# Under a CI system pytest prints whole messages in its summary; the sessions of tests shall print the same anywhere.
for _name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(_name, None)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Every bundled store, one after the other."""
    opened: Store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "oao.db")
    yield opened
    opened.close()
