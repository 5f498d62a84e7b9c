"""Plugins found by entry point: they observe and provide; they decide only where they are named. Real distributions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

PLUGIN = """
from oao_hookspecs import Deny, Limits, hookimpl

HEARD = []

class Guard:
    name = "guard"

    @hookimpl
    def oao_decide_tool_call(self, call):
        return Deny(rule="guard", reason="the guard says no")

    @hookimpl
    def oao_run_finished(self, event):
        HEARD.append(event.status)

    @hookimpl
    def oao_policies(self):
        return {"tiny": lambda: Tiny()}

class Tiny:
    @hookimpl
    def oao_limits(self, run):
        return Limits(max_tool_calls=1)

guard = Guard()
"""
SCRIPT = """
import json, sys
import oao_harness as oao

@oao.tool
def act():
    return 1

options = json.loads(sys.argv[1])
try:
    report = oao.Orchestrator(**options).run(lambda task: [act(), act()], "x")
    import shop_guard
    print(json.dumps({"status": report.status, "error": report.error, "heard": shop_guard.HEARD}))
except oao.OaoError as error:
    print(json.dumps({"refused": str(error)}))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an installed distribution that has an entry point in the group `oao`."""
    (tmp_path / "shop_guard.py").write_text(PLUGIN)
    info = tmp_path / "shop_guard-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-guard\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[oao]\nguard = shop_guard:guard\n")
    return tmp_path


def run(site: Path, **options: Any) -> dict[str, Any]:
    path = os.pathsep.join([str(site), str(ROOT), str(ROOT / "hookspecs")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(options)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_an_installed_plugin_observes_and_provides_but_does_not_decide(site: Path) -> None:
    """Else installing a package could change what is allowed."""
    assert run(site) == {"status": "SUCCESS", "error": None, "heard": ["SUCCESS"]}
    assert run(site, policy="tiny")["error"] == "max_tool_calls: tool act: call 2, the limit is 1"


def test_a_plugin_that_is_named_decides(site: Path) -> None:
    """`plugins=["guard"]` says that its denials, and allows, count."""
    assert run(site, plugins=["guard"])["error"] == "guard: the guard says no"


def test_a_plugin_that_is_not_installed_is_an_error(site: Path) -> None:
    """The message lists what is."""
    refused = run(site, plugins=["gard"])["refused"]
    assert refused == "unknown plugin 'gard'; did you mean 'guard'? installed in the entry-point group 'oao': guard"


def test_a_plugin_that_cannot_be_loaded_stops_the_start(site: Path) -> None:
    """A guard that is broken must not be a guard that is absent."""
    (site / "shop_guard.py").write_text("import no_such_module\n")

    assert (
        "plugin 'guard' (shop_guard:guard) cannot be loaded: No module named 'no_such_module'" in run(site)["refused"]
    )
