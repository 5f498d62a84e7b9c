"""`--oao-adapter=pkg:X`: X is an `AdapterCase`, or a class of one."""

from __future__ import annotations

from pytest_oao.testing.adapter import AdapterConformance

__all__ = ["TestAdapter"]


class TestAdapter(AdapterConformance):
    """The suite of adapters. `conftest.py` gives it its case."""
