"""Plugins that a project names decide in its tests too, wherever a test goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness import tool
from pytest_oao.settings import Settings

if TYPE_CHECKING:
    from tests.plugins.conftest import Site


def test_a_test_that_goes_elsewhere_keeps_the_plugins_of_its_session(
    site: Site, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of the folder in which pytest was started; under the strict policy only verified ones."""
    site.install()
    (pytester.path / ".git").mkdir()
    (pytester.path / "pyproject.toml").write_text('[tool.oao]\nplugins = ["guard"]\n')
    monkeypatch.chdir(pytester.path)
    with pytest.raises(pytest.UsageError, match=r"'guard' .* is refused: nobody signed it, and policy 'strict' admits"):
        Settings.of(pytester.parseconfig("--oao-policy=strict"))
    assert not site.ran

    settings = Settings.of(pytester.parseconfig("--oao-policy=standard"))
    monkeypatch.chdir(tmp_path)
    act = tool(lambda: 1, name="act")

    assert settings.orchestrator([]).run(lambda task: act(), "x").error == "guard: the guard says no"
