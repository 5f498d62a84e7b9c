"""`oao plugins new`: what it writes works at once, and nothing is overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oao_harness.cli import main

ROOT = Path(__file__).parents[2]
KINDS = ("policy", "listener", "store", "scheduler", "adapter")


@pytest.fixture
def oao(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `oao` in a new folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="oao")


def test_the_tests_of_each_kind_pass_as_written(oao: Callable[..., Result], tmp_path: Path) -> None:
    """Without being installed; of stores and schedulers the quick ones: the rest is tested in their folders."""
    for kind in KINDS:
        done = oao("plugins", "new", f"my-{kind}", "--kind", kind)
        assert done.exit_code == 0, done.output
        assert f"cd my-{kind} && pip install -e '.[test]' && pytest" in done.output
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "hookspecs")))}
    environment.update(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTEST_ADDOPTS="")
    few = {"store": "in_order or kept or unknown", "scheduler": "it_is or arrives or url"}

    def tests(kind: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_oao.plugin", "-W", "error"]
        selected = ["-k", few[kind]] if kind in few else []
        done = subprocess.run(
            [*command, *selected], cwd=tmp_path / f"my-{kind}", env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with ThreadPoolExecutor(2) as pool:
        assert all(" passed" in said for said in pool.map(tests, KINDS))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_distribution_with_an_entry_point(oao: Callable[..., Result], tmp_path: Path, kind: str) -> None:
    """Typed, with a README, built by hatchling; every word of the templates is filled in, all code compiles."""
    assert oao("plugins", "new", "Guard.Rail-2", "--kind", kind).exit_code == 0
    folder = tmp_path / "Guard.Rail-2"
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))

    assert project["build-system"]["build-backend"] == "hatchling.build"
    assert project["project"]["entry-points"]["oao"] == {"Guard.Rail-2": "guard_rail_2.plugin"}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    source = "src/guard_rail_2"
    assert found == {
        "README.md", "pyproject.toml", "tests/test_guard_rail_2.py",
        f"{source}/__init__.py", f"{source}/py.typed", f"{source}/plugin.py", f"{source}/{kind}.py",
    }  # fmt: skip
    for name in found:
        text = (folder / name).read_text(encoding="utf-8")
        assert "${" not in text
        assert max(map(len, text.splitlines()), default=0) <= 120, name
        if name.endswith(".py"):
            compile(text, name, "exec")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("7up", "cannot be the name of a package"),
        ("a b", "for example 'a-b'"),
        ("../up", "for example 'up'"),
        ("zwölf", "cannot be the name of a package"),
        ("-x", "no such option"),
        ("class", "'class' is taken"),
        ("oao-harness", "'oao_harness' is taken"),
        ("", "for example 'my-plugin'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(oao: Callable[..., Result], tmp_path: Path, name: str, says: str) -> None:
    """One line that says what would do; nothing is written."""
    done = oao("plugins", "new", name)

    assert done.exit_code == 2
    assert says in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(oao: Callable[..., Result], tmp_path: Path) -> None:
    """Neither a folder nor a file nor a link; another folder can be named."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "README.md").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("here", "file", "link"):
        done = oao("plugins", "new", name)
        assert done.exit_code == 2
        assert "exists, and nothing is overwritten" in " ".join(done.output.split())
    assert (tmp_path / "here" / "README.md").read_text(encoding="utf-8") == "mine"

    assert oao("plugins", "new", "here", "--into", "elsewhere").exit_code == 0
    assert (tmp_path / "elsewhere" / "here" / "pyproject.toml").exists()
    done = oao("plugins", "new", "there", "--into", "file")
    assert done.exit_code == 2
    assert "cannot be written" in " ".join(done.output.split())
