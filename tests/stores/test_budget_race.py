"""The race of `benchmarks/budget_race.py`, shorter: workers are killed, and the limit holds to the unit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("store", "limit"), [("memory", 4000), ("sqlite", 1200), ("redis", 1200)])
def test_the_limit_holds_while_workers_are_killed(store: str, limit: int) -> None:
    """Never above it; what the dead held comes back; the rest can be spent to the last unit."""
    if store == "redis" and not shutil.which("redis-server"):
        pytest.skip("redis-server is not on the PATH")
    command = [
        sys.executable, str(ROOT / "benchmarks" / "budget_race.py"), "--json", "--no-micro",
        "--stores", store, "--limit", str(limit), "--kills", "6", "--workers", "4", "--ttl", "1",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'hookspecs'}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    (race,) = json.loads(done.stdout)["races"]
    assert race["wrong"] == []
    assert race["exceeded"] == 0
    assert race["kills"] == 6 + 4
    assert limit * 0.9 < race["highest"] <= limit
    assert race["settled"] > 0
