"""The public names of `oao_harness`: imported when asked for, all of them there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import oao_harness


def test_every_public_name_can_be_imported() -> None:
    """`__all__` is sorted, complete, and each name is the object of the module it lives in."""
    assert oao_harness.__all__ == sorted(oao_harness.__all__)
    assert set(oao_harness.__all__) == set(oao_harness._HOMES)
    for name in oao_harness.__all__:
        assert getattr(oao_harness, name) is getattr(sys.modules[oao_harness._HOMES[name]], name)
    assert set(oao_harness.__all__) <= set(dir(oao_harness))


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    """A typing error is reported as by any module."""
    with pytest.raises(AttributeError, match="has no attribute 'Orchestra'"):
        oao_harness.Orchestra  # noqa: B018
    with pytest.raises(ImportError):
        from oao_harness import Orchestra  # noqa: F401


def test_importing_the_package_is_cheap() -> None:
    """Nothing is imported before a name is asked for; an error class does not cost pydantic."""
    code = "import sys, oao_harness; oao_harness.UsageError; sys.exit('pydantic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
