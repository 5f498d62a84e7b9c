"""The first command of the README on a bare environment, and the wheel that an sdist makes."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def bare() -> dict[str, str]:
    """An environment without the paths of this test session."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "PYTEST"))}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with `pip install .` and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / ".venv", with_pip=True)
    pip = [str(folder / ".venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", str(ROOT)]
    done = subprocess.run(pip, env=bare(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def demo(installed: Path) -> subprocess.CompletedProcess[str]:
    """The demo as the newcomer sees it; whatever test comes first, before any of them installs more."""
    command = [str(installed / ".venv" / "bin" / "oao"), "demo"]
    return subprocess.run(command, cwd=installed, env=bare(), capture_output=True, text=True, timeout=60, check=False)


def test_the_demo_runs_with_nothing_but_python(demo: subprocess.CompletedProcess[str]) -> None:
    """A runaway agent is stopped, a good run is recorded, replayed and shown; no framework is installed."""
    assert demo.returncode == 0, demo.stderr
    for word in ("max_tool_calls", "SUCCESS", "replay diverged"):
        assert word in demo.stdout
    # What it says to type next must exist.
    assert demo.stdout.index("pip install pytest") < demo.stdout.index("pytest --oao-record=once")


def test_the_installed_packages_are_the_three(installed: Path) -> None:
    """The contract, the machine and the pytest face, typed; and no folder `hookspecs`."""
    site = next((installed / ".venv" / "lib").glob("python*/site-packages"))

    for package in ("oao_hookspecs", "oao_harness", "pytest_oao"):
        assert (site / package / "py.typed").exists()
    assert not (site / "hookspecs").exists()
    assert not list(site.glob("langchain*"))


@pytest.mark.usefixtures("demo")
def test_pytest_without_the_machine_in_use_is_not_disturbed(installed: Path) -> None:
    """The plugin is found by its entry point and stays out of the way."""
    python = str(installed / ".venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "pytest"]
    subprocess.run(pip, env=bare(), check=True, timeout=300)
    (installed / "test_plain.py").write_text("def test_plain(): pass\n")

    done = subprocess.run(
        [python, "-m", "pytest", "-q", "test_plain.py"],
        cwd=installed,
        env=bare(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 passed" in done.stdout


def test_a_wheel_made_from_the_sdist_holds_the_same(tmp_path: Path) -> None:
    """`build` goes by way of the sdist: nothing is missing there."""
    pytest.importorskip("build", reason="the package `build` is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--quiet", "--outdir", str(tmp_path), str(ROOT)],
        env=bare(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"oao_hookspecs", "oao_harness", "pytest_oao"}
    expected = {
        str(path.relative_to(ROOT)) for path in (ROOT / "oao_harness").rglob("*") if path.suffix in {".py", ".lua"}
    }
    assert expected <= set(names)
