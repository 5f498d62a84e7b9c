"""Every block of docs/how-to/ci.md (`console`, `shell`, `bash`), in order; its workflow runs what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import forked
from tests.console_pages import executed
from tests.terminal_pages import BLOCK, environment, follow

PAGE = executed("how-to/ci.md")


def here(folder: Path) -> dict[str, str]:
    """A reader with pytest-xdist."""
    env = environment(folder)
    return {**env, "PYTEST_ADDOPTS": f"{env['PYTEST_ADDOPTS']} -p xdist.plugin"}


def test_the_session_is_what_the_page_shows(tmp_path: Path) -> None:
    """Recorded, checked, replayed in parallel, reported, and a stricter policy noticed."""
    pytest.importorskip("xdist", reason="the page replays in parallel (pytest-xdist)")
    pytest.importorskip("genai_prices", reason="the page shows costs (extra prices)")
    folder = tmp_path / "desk"
    folder.mkdir()
    env = here(tmp_path / "bin")

    assert follow(PAGE, folder, env) == 5

    # The nightly job: nothing changed.
    nightly = next(body for language, _, _, body in BLOCK.findall(PAGE) if language == "bash").splitlines()
    for line in nightly:
        program, *words = line.split()
        module = {"pytest": "pytest", "oao": "oao_harness"}[program]
        (folder / "policy.toml").write_text('[tools]\nallow = ["look_up", "refund"]\n', encoding="utf-8")
        done = forked.run([module, *words], cwd=folder, env=env)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_runs_the_commands_of_the_page() -> None:
    """It is YAML, and whoever reads the page has seen every command of it."""
    yaml = pytest.importorskip("yaml")
    (text,) = (body for language, _, name, body in BLOCK.findall(PAGE) if name == "agents.yml")
    steps = yaml.safe_load(text)["jobs"]["test"]["steps"]
    lines = [line for step in steps for line in step.get("run", "").splitlines()]
    shown = re.findall(r"^\$ (.*)$", PAGE, re.M)

    ours = [line for line in lines if line.startswith(("oao ", "pytest "))]
    assert len(ours) == 3
    assert set(ours) <= set(shown)
