"""Nothing is lost and nothing is done twice, whatever happens to the process, its clock or its store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS

# Done this often here; `python -m tests.faults` does all of them more often.
_FEWER = {
    "kill -9, SQLite": 30,
    "kill -9, Redis": 8,
    "SIGTERM": 6,
    "kill -9, clock jumps": 6,
    "two resumers": 2,
    "frozen, taken over": 1,
    "disk full": 1,
    "database locked": 1,
    "corrupt last record": 2,
    "store down in the middle": 1,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_effect_happens_exactly_once(name: str, tmp_path: Path) -> None:
    """By key, or because a person looked; a call that is declared `once` never twice."""
    if ("Redis" in name or "store down in" in name) and shutil.which("redis-server") is None:
        pytest.skip("no redis-server is on the PATH")
    scenario, faults = SCENARIOS[name]
    faults = min(faults, _FEWER.get(name, faults))

    found = scenario(tmp_path, faults)

    assert found.faults == faults
    assert (found.lost, found.doubled, found.wrong) == (0, 0, [])
