"""`--oao-listener=pkg:X`: X makes a listener."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_oao.testing.cases import Heard, ListenerCase
from pytest_oao.testing.listener import ListenerConformance

__all__ = ["TestListener"]


class TestListener(ListenerConformance):
    """The suite of listeners."""

    @pytest.fixture
    def cannot(self, oao_case: ListenerCase) -> Mapping[str, str]:
        """What it declares."""
        return oao_case.cannot

    @pytest.fixture
    def listener(self, oao_case: ListenerCase, tmp_path: Path) -> object:
        """A new listener with an empty folder."""
        return oao_case.make(tmp_path)

    @pytest.fixture
    def heard(self, oao_case: ListenerCase, tmp_path: Path) -> Callable[[], Sequence[Heard]] | None:
        """What it kept."""
        return None if oao_case.heard is None else functools.partial(oao_case.heard, tmp_path)
