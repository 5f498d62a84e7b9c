"""`--oao-ledger=pkg:X`: X makes a ledger in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from oao_hookspecs import Ledger
from pytest_oao.testing.cases import LedgerCase
from pytest_oao.testing.ledger import LedgerConformance

__all__ = ["TestLedger"]


class TestLedger(LedgerConformance):
    """The suite of ledgers."""

    @pytest.fixture
    def cannot(self, oao_case: LedgerCase) -> Mapping[str, str]:
        """What it declares."""
        return oao_case.cannot

    @pytest.fixture
    def ledger(self, oao_case: LedgerCase, tmp_path: Path) -> Iterator[Ledger]:
        """A new ledger in an empty folder."""
        ledger = oao_case.make(tmp_path)
        yield ledger
        ledger.close()
