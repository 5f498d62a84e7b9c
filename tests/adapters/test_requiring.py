"""A framework that is too old, or has not what is patched, is refused when it is imported."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from oao_harness.adapters.requiring import require, require_version
from oao_harness.errors import FrameworkError


class Leafless:
    """A framework's class as a later release may have it."""

    field: int

    def stream(self) -> None:
        """Is there."""


def test_a_version_that_is_too_old_is_refused() -> None:
    """With what is installed, what is wanted, and what to do."""
    installed = version("pytest")
    require_version("pytest", "8.4")
    require_version("pytest", installed)
    with pytest.raises(FrameworkError, match=rf"pytest {installed} is installed.*pip install 'pytest>=999'"):
        require_version("pytest", "999")
    with pytest.raises(FrameworkError, match="of unknown version"):
        require_version("no-such-distribution", "1")


def test_a_class_without_its_leaves_is_refused() -> None:
    """It names them; a field that only instances have is one all the same."""
    require(Leafless, ("stream", "field"), "pytest")
    with pytest.raises(FrameworkError, match="Leafless has no structured_output, generate, which oao governs"):
        require(Leafless, ("stream", "structured_output", "generate"), "pytest")
