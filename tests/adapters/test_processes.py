"""Processes that a run starts: halted where all must be governed and the tool is not named for it, else noted."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import platform
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oao_harness import ConfigError, ExecutionReport, Orchestrator, StrictPolicy, model, tool

NO_LIMITS: dict[str, Any] = {"max_tokens": None, "max_steps": None, "max_tool_calls": None, "timeout_seconds": 60}
STRICT = StrictPolicy(**NO_LIMITS, require_governed=True)


def in_a_tool(start: Callable[[], Any], *policies: Any, name: str = "work") -> ExecutionReport:
    """Run an agent whose tool starts something, and which goes on whatever happens."""

    @tool(name=name)
    def work() -> None:
        start()

    def agent(task: object) -> str:
        try:
            work()
        except BaseException:
            pass
        return "went on"

    return Orchestrator(list(policies)).run(agent, "x")


def python(path: Path) -> list[str]:
    return [sys.executable, "-c", f"open({str(path)!r}, 'w').close()"]


def by_subprocess(path: Path) -> None:
    subprocess.run(python(path), check=True, timeout=30)


def by_shell(path: Path) -> None:
    subprocess.run(f"touch {path}", shell=True, check=True, timeout=30)


def by_system(path: Path) -> None:
    assert os.system(f"touch {path}") == 0


def by_popen(path: Path) -> None:
    os.popen(f"touch {path}").close()


def by_posix_spawn(path: Path) -> None:
    command = python(path)
    os.waitpid(os.posix_spawn(command[0], command, os.environ), 0)


def by_spawnv(path: Path) -> None:
    command = python(path)
    assert os.spawnv(os.P_WAIT, command[0], command) == 0


def by_asyncio(path: Path) -> None:
    async def start() -> int:
        return await (await asyncio.create_subprocess_exec(*python(path))).wait()

    assert asyncio.run(start()) == 0


def by_multiprocessing(path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=os.mkdir, args=(path,))
    process.start()
    process.join(30)


def by_fork(path: Path) -> None:
    child = os.fork()
    if child == 0:
        os.mkdir(path)
        os._exit(0)
    os.waitpid(child, 0)


def by_forkpty(path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.mkdir(path)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(terminal)


def in_a_thread(path: Path) -> None:
    thread = threading.Thread(target=by_posix_spawn, args=(path,))
    thread.start()
    thread.join(30)


WAYS = [
    by_subprocess, by_shell, by_system, by_popen, by_posix_spawn, by_spawnv, by_asyncio, by_multiprocessing, by_fork,
    by_forkpty,
]  # fmt: skip


@pytest.mark.parametrize("start", WAYS)
def test_a_process_beside_the_gate_is_halted(start: Any, tmp_path: Path) -> None:
    """It does not start, and the run has failed although the agent went on; its arguments are not shown."""
    report = in_a_tool(lambda: start(tmp_path / "made"), STRICT)

    assert not (tmp_path / "made").exists()
    assert report.violation is not None
    assert report.violation["rule"] == "ungoverned-process"
    assert " started in tool work; name the tools that may start processes" in report.violation["reason"]
    assert str(tmp_path) not in report.violation["reason"]


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("start", WAYS)
def test_without_a_policy_that_wants_it_the_process_starts_and_is_noted(start: Any, tmp_path: Path) -> None:
    """Once, although some ways raise several events."""
    report = in_a_tool(lambda: start(tmp_path / "made"))

    assert (tmp_path / "made").exists()
    assert report.error is None
    assert len(report.ungoverned) == 1
    assert report.ungoverned[0].startswith("ungoverned-process: ")
    assert report.ungoverned[0].endswith(" started in tool work")


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("start", [*WAYS, in_a_thread])
def test_a_tool_that_is_named_for_it_may_start_processes(start: Any, tmp_path: Path) -> None:
    """Under a glob, and without a note."""
    policy = StrictPolicy(**NO_LIMITS, require_governed=True, process_tools=["run_*"])

    report = in_a_tool(lambda: start(tmp_path / "made"), policy, name="run_tests")

    assert (tmp_path / "made").exists()
    assert (report.error, report.ungoverned) == (None, [])


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        ((["work"],), True),
        ((["work"], ["w*"]), True),
        ((["work"], ["other"]), False),
        (([],), False),
        (([], None), False),
    ],
)
def test_every_policy_with_an_opinion_must_name_the_tool(names: Any, allowed: bool, tmp_path: Path) -> None:
    """One that has none gives way."""
    policies = [StrictPolicy(**NO_LIMITS, require_governed=True, process_tools=globs) for globs in names]

    report = in_a_tool(lambda: by_subprocess(tmp_path / "made"), *policies)

    assert (tmp_path / "made").exists() is allowed is (report.error is None)


def test_an_outer_run_keeps_its_opinion(tmp_path: Path) -> None:
    """A run inside of a tool is judged by both."""
    outer = StrictPolicy(**NO_LIMITS, require_governed=True, process_tools=["delegate"])
    inner = StrictPolicy(**NO_LIMITS, process_tools=["work"])

    @tool
    def delegate() -> None:
        in_a_tool(lambda: by_subprocess(tmp_path / "made"), inner)

    report = Orchestrator(outer).run(lambda task: delegate(), "x")

    assert report.violation is not None
    assert report.violation["rule"] == "ungoverned-process"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("where", ["agent", "model"])
def test_only_a_tool_can_be_named(where: str, tmp_path: Path) -> None:
    """Neither the agent between its calls, nor a model."""
    policy = StrictPolicy(**NO_LIMITS, require_governed=True, process_tools=["*"])

    @model
    def ask(prompt: str) -> str:
        if where == "model":
            by_subprocess(tmp_path / "made")
        return "x"

    def agent(task: object) -> None:
        ask("q")
        if where == "agent":
            by_subprocess(tmp_path / "made")

    report = Orchestrator(policy).run(agent, "x")

    assert str(report.error).startswith("ungoverned-process: process ")
    assert ("outside of every tool" if where == "agent" else "in model ask") in str(report.error)
    assert not (tmp_path / "made").exists()


def test_what_the_standard_library_asks_the_machine_is_let_through() -> None:
    """`openai` asks for the platform before its first request, and that runs `uname -p`."""
    seen: list[str] = []

    def ask() -> None:
        platform._uname_cache = None  # type: ignore[attr-defined]
        seen.append(platform.uname().processor)

    report = in_a_tool(ask, STRICT)

    assert (report.error, report.ungoverned, len(seen)) == (None, [], 1)


def test_outside_of_runs_processes_are_not_touched(tmp_path: Path) -> None:
    """The audit hook is there and does nothing."""
    Orchestrator(STRICT)

    by_subprocess(tmp_path / "made")

    assert (tmp_path / "made").exists()


def test_a_single_name_is_a_mistake() -> None:
    """It would be taken for a list of letters."""
    with pytest.raises(ConfigError, match=r"process_tools='git'\): give a collection of names, for example \['git'\]"):
        StrictPolicy(process_tools="git")
