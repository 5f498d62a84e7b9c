"""`--oao-adapter=pkg:X`: X is an `AdapterCase`. No test where this release has no suite for adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_oao.testing.conformance.naming import adapter_suite

_suite: Any = adapter_suite()

if _suite is not None and not TYPE_CHECKING:

    class TestAdapter(_suite.AdapterConformance):
        """The suite of adapters."""

        @pytest.fixture
        def case(self, oao_case: Any) -> Any:
            """What `--oao-adapter` names."""
            return oao_case
