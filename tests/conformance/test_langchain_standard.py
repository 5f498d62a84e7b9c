"""LangChain's standard suite has the same outcomes bare, while it is recorded, and replayed with its server down."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip(
    "langchain_tests",
    reason="langchain-tests is not installed: its pins (vcrpy<9, a dozen plugins) need an environment of their own",
)

ROOT = Path(__file__).parents[2]
SUITE = Path(__file__).parent / "langchain_standard"


def outcomes(folder: Path, *options: str, offline: bool = False) -> dict[str, str]:
    """Run the suite in a process of its own and return the outcome of each test."""
    report = folder / "report.xml"
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    environment = {**os.environ, "PYTHONPATH": path, **({"OAO_STANDARD_OFFLINE": "1"} if offline else {})}
    environment.pop("PYTEST_ADDOPTS", None)
    subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder),
            f"--junitxml={report}", *options, str(folder / SUITE.name),
        ],
        cwd=folder, env=environment, check=False, timeout=180, capture_output=True,
    )  # fmt: skip
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        ended = [child.tag for child in case if child.tag in {"failure", "error", "skipped"}]
        found[f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"] = ended[0] if ended else "passed"
    return found


def test_the_suite_has_the_same_outcomes_with_oao(tmp_path: Path) -> None:
    """Test by test: passed and skipped are the same sets in all three runs."""
    shutil.copytree(SUITE, tmp_path / SUITE.name, ignore=shutil.ignore_patterns("recordings", "__pycache__"))
    bare = outcomes(tmp_path, "-p", "no:oao")
    assert list(bare.values()).count("passed") >= 48
    assert set(bare.values()) == {"passed", "skipped"}
    assert outcomes(tmp_path, "--oao-policy=observe", "--oao-record=once") == bare
    assert outcomes(tmp_path, "--oao-policy=observe", offline=True) == bare
