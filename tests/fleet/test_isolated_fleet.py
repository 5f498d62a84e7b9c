"""A fleet whose jobs are done in processes of their own: it does not matter to anybody what one of them does."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from oao_harness import Fleet
from oao_hookspecs import Principal

AGENTS = """
import os, pathlib, signal, time

def good(task):
    return f"done {task} in {os.getpid()}"

def poison(task):
    with open("poisoned", "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)

def asleep(task):
    pathlib.Path(task).touch()
    time.sleep(60)
"""
PROJECT = "[tool.oao.agents]\n" + "".join(f"{name} = 'isolated_shop:{name}'\n" for name in ("good", "poison", "asleep"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with agents that are registered."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "isolated_shop.py").write_text(AGENTS)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    return tmp_path


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_fleet_of_processes(folder: Path) -> None:
    """Side by side: one is done, one kills its process until it is a dead letter, one is cancelled, one handed back."""
    fleet = Fleet("local:", "sqlite:runs.db", isolation="process")
    stop = asyncio.Event()
    worker = asyncio.create_task(fleet.work(slots=4, stop=stop, drain_s=0.1))
    try:
        poison = await fleet.submit("poison", "x")
        good = await fleet.submit("good", "x")
        cancelled = await fleet.submit("asleep", "cancelled")
        handed_back = await fleet.submit("asleep", "handed back")
        report = await fleet.fetch(good, 20)
        assert report is not None
        assert (report.status, str(os.getpid()) in str(report.final_output)) == ("SUCCESS", False)
        await until((folder / "cancelled").exists)
        assert (await fleet.cancel(cancelled, Principal(id="anna"))).status == "FAILED"
        assert "cancelled by" in (await fleet.status(cancelled)).reason
        dead = await fleet.fetch(poison, 20)
        assert dead is not None
        assert (await fleet.status(poison)).status == "DEAD"
        assert (folder / "poisoned").read_text() == "xxxxx"
        await until((folder / "handed back").exists)
        stop.set()
        await asyncio.wait_for(worker, 20)
        status = await fleet.status(handed_back)
        assert (status.status, status.reason) == ("QUEUED", "its worker stopped")
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        await fleet.close()
        sys.modules.pop("isolated_shop", None)
