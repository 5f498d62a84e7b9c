"""`--oao-store=pkg:X`: X makes a store in a folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from oao_hookspecs import Store
from pytest_oao.testing.cases import StoreCase
from pytest_oao.testing.store import StoreConformance

__all__ = ["TestStore"]


class TestStore(StoreConformance):
    """The suite of stores."""

    @pytest.fixture
    def cannot(self, oao_case: StoreCase) -> Mapping[str, str]:
        """What it declares."""
        return oao_case.cannot

    @pytest.fixture
    def store(self, oao_case: StoreCase, tmp_path: Path) -> Iterator[Store]:
        """A new store in an empty folder."""
        store = oao_case.make(tmp_path)
        yield store
        store.close()

    @pytest.fixture
    def open_again(self, oao_case: StoreCase, tmp_path: Path) -> Callable[[], Store]:
        """The same place once more."""
        return functools.partial(oao_case.make, tmp_path)
