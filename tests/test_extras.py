"""The extras that texts and messages name exist, and ask for the versions that the adapters accept."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parent.parent
EXTRAS: Final[Mapping[str, Sequence[str]]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]
_NAMED: Final = re.compile(r"oao-harness\[([a-z, -]+)\]")
_REQUIRED: Final = re.compile(r"require_version\(\s*\"(?P<distribution>[\w-]+)\",\s*\"(?P<version>[\d.]+)\"")


def texts() -> list[Path]:
    """What a user reads: pages, and the messages in the code."""
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return [*found, *(ROOT / "oao_harness").rglob("*.py"), *(ROOT / "pytest_oao").rglob("*.py")]


def test_every_extra_that_is_named_exists() -> None:
    """In README, pages, messages, and in the extras themselves."""
    named = {
        (path.name, extra.strip())
        for path in [*texts(), ROOT / "pyproject.toml"]
        for extras in _NAMED.findall(path.read_text())
        for extra in extras.split(",")
    }
    assert len(named) > 5
    assert {(file, extra) for file, extra in named if extra not in EXTRAS} == set()


def test_an_extra_asks_for_the_oldest_version_that_its_adapter_takes() -> None:
    """Else `pip install oao-harness[x]` is content with what `import x` then refuses."""
    required = {
        (found["distribution"], found["version"])
        for path in (ROOT / "oao_harness" / "adapters").glob("*.py")
        for found in _REQUIRED.finditer(path.read_text())
    }
    assert {"google-adk", "smolagents", "strands-agents"} <= {distribution for distribution, _ in required}
    wanted = [Requirement(one) for extra in EXTRAS.values() for one in extra]
    for distribution, version in required:
        asked = [str(one.specifier) for one in wanted if one.name == distribution]
        if not asked:
            continue  # part of another one, which is asked for
        assert any(f">={version}" in one for one in asked), f"{distribution}: {asked}, and the adapter takes {version}"


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_an_extra_has_a_lowest_version(extra: str) -> None:
    """For each of its packages."""
    for one in EXTRAS[extra]:
        found = Requirement(one)
        assert found.name == "oao-harness" or ">=" in str(found.specifier), one
