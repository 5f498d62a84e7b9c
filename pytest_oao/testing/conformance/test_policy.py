"""`--oao-policy=pkg:X`: X makes a policy, or is the name or file of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from oao_hookspecs import Call
from pytest_oao.testing.cases import PolicyCase
from pytest_oao.testing.policy import PolicyConformance

__all__ = ["TestPolicy"]


class TestPolicy(PolicyConformance):
    """The suite of policies."""

    @pytest.fixture
    def cannot(self, oao_case: PolicyCase) -> Mapping[str, str]:
        """What it declares."""
        return oao_case.cannot

    @pytest.fixture
    def make_policy(self, oao_case: PolicyCase) -> Callable[[], object]:
        """What makes a new policy."""
        return oao_case.make

    @pytest.fixture
    def calls(self, oao_case: PolicyCase) -> Sequence[Call]:
        """The calls that it has rules about."""
        return oao_case.calls
