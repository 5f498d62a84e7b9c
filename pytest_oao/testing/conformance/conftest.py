"""Leaves out the suites that no option names, and refuses a session in which nothing would be tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import pytest

from pytest_oao.testing.conformance.naming import KINDS, case_of, named

_HERE: Final = Path(__file__).parent
_CASES: Final[pytest.StashKey[dict[str, Any]]] = pytest.StashKey()
_USAGE: Final = (
    "oao: the conformance suites test what you name: "
    + ", ".join(f"--oao-{kind}=pkg:X" for kind in KINDS)
    + "; for example `pytest --pyargs pytest_oao.testing.conformance --oao-store=my_package:MyStore`"
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import the suites that no option asks for."""
    asked = [kind for kind in KINDS if named(config, kind)]
    name = collection_path.stem
    left_out = name.startswith("test_") and name.removeprefix("test_") not in asked
    return True if asked and left_out and collection_path.parent == _HERE else None


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Import what is tested before the first test, and keep only its suites.

    Raises:
        pytest.UsageError: No option names anything, or what it names cannot be tested.
    """
    ours = {item for item in items if item.path.is_relative_to(_HERE)}
    asked = [kind for kind in KINDS if named(config, kind)]
    if not asked:
        raise pytest.UsageError(_USAGE)
    if len(ours) < len(items):
        raise pytest.UsageError("oao: the conformance suites need a session of their own; run the other tests without")
    config.stash[_CASES] = {kind: case_of(kind, named(config, kind)) for kind in asked}
    items[:] = [item for item in items if item.path.stem.removeprefix("test_") in asked]
    for item in items:
        if isinstance(item, pytest.Function) and item.path.stem == "test_adapter":
            # That suite asks its class.
            cast("Any", item.cls).case = config.stash[_CASES]["adapter"]
    if not items:
        raise pytest.UsageError(f"oao: no suite was selected for {', '.join(f'--oao-{kind}' for kind in asked)}")


def _case(request: pytest.FixtureRequest, kind: str) -> Any:
    return request.config.stash[_CASES][kind]


@pytest.fixture
def oao_case(request: pytest.FixtureRequest) -> Any:
    """What the option of this module's kind names."""
    return _case(request, request.path.stem.removeprefix("test_"))
