"""Whatever happens to workers, their clocks, their connections and their server: no run is lost, no call repeated."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.fleet import FLEET, valkey

# Done this often here; `python -m tests.faults fleet` does all of them more often.
_FEWER = {
    "fleet, 300 runs": 5,
    "fleet, Valkey": 2,
    "fleet, server restarted": 1,
    "fleet, server down 5 s": 1,
    "fleet, cut in an append": 4,
    "fleet, clocks apart": 1,
    "fleet, poison job": 1,
    "fleet, hostile entries": 1,
    "fleet, out of memory": 1,
    "fleet, two versions": 1,
}


@pytest.mark.parametrize("name", FLEET)
def test_no_run_is_lost_and_no_finished_call_repeated(name: str, tmp_path: Path) -> None:
    """Journals are intact, every run has one end, and what was in doubt was repeated only as its tool allows."""
    program = valkey() if "Valkey" in name else "redis-server"
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}")
    scenario, _ = FLEET[name]

    found = scenario(tmp_path, _FEWER[name])

    assert found.faults == _FEWER[name]
    assert (found.lost, found.doubled, found.wrong) == (0, 0, [])
