"""Processes that an agent starts: what runs there passes no gate, so only tools that are named for it may start one."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Final

from oao_harness.runtime import context
from oao_harness.runtime.audit import listen
from oao_harness.runtime.outside import is_watched, refuse_or_note
from oao_harness.runtime.run import Run

__all__ = ["RULE", "install", "install_multiprocessing"]

RULE: Final = "ungoverned-process"
_ADVICE: Final = (
    "name the tools that may start processes: StrictPolicy(require_governed=True, process_tools=[...]), "
    "or Limits.process_tools"
)
_EVENTS: Final = (
    "subprocess.Popen",
    "os.system",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.exec",
    "os.fork",
    "os.forkpty",
)
_NAMED: Final = frozenset({"subprocess.Popen", "os.posix_spawn", "os.exec", "os.startfile"})
"""Events whose first argument is the program."""
# What lies between who wants a process and the audit event.
_BETWEEN: Final = frozenset({"subprocess", "os", "multiprocessing.util", __name__, "oao_harness.runtime.audit"})
# They ask the machine what it is, with fixed commands: `openai` lets `platform` run `uname -p` before its first
# request, tracing lets LangSmith run `git` and `docker --version`. The resource tracker belongs to multiprocessing.
_PROBES: Final = frozenset(
    {
        "platform",
        "uuid",
        "ctypes.util",
        "distro.distro",
        "langsmith.env._git",
        "langsmith.env._runtime_env",
        "multiprocessing.resource_tracker",
    }
)


def install() -> None:
    """Watch the ways to start a process; once."""
    listen(_EVENTS, _starting)


def install_multiprocessing() -> None:
    """Watch the one way that raises no audit event: how `multiprocessing` spawns; once."""
    util = sys.modules["multiprocessing.util"]
    if not hasattr(util.spawnv_passfds, "__wrapped__"):
        util.spawnv_passfds = _spawning(util.spawnv_passfds)  # type: ignore[attr-defined]


def _spawning(function: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(function)
    def spawnv_passfds(path: Any, args: Any, passfds: Any) -> int:
        _starting("multiprocessing", (path,))
        return function(path, args, passfds)

    return spawnv_passfds


def _starting(event: str, args: tuple[Any, ...]) -> None:
    """Judge the start of a process.

    Raises:
        RunHalted: It must not be started.
    """
    if not is_watched():
        return
    run = _run_of_agent()
    if run is None or (run.halted is not None and run.halted.rule == "forked"):
        # In a forked child the fork was judged; that it now becomes another program is no second process.
        return
    if _may_start(run) or _is_probe():
        return
    inside = context.frame.get()
    where = f"in {inside.call.kind} {inside.call.name}" if inside is not None else "outside of every tool"
    refuse_or_note(RULE, f"{_shown(event, args)} started {where}", _ADVICE)


def _run_of_agent() -> Run | None:
    """Return the run whose agent starts it. What the body of a pytest test starts by itself is no agent's."""
    run = context.here.get()
    if run is not None and (not run.closed or run.halted is not None):
        return run
    if context.session() is not None and context.frame.get() is None:
        return None
    return context.current()


def _may_start(run: Run) -> bool:
    """Return True where the innermost call is of a tool that every policy with an opinion lets start processes."""
    inside = context.frame.get()
    if inside is None or inside.call.kind != "tool":
        return False
    opinions = [member.limits.process_tools for member in run.lineage if member.limits.process_tools is not None]
    name = inside.call.name
    return bool(opinions) and all(any(fnmatchcase(name, glob) for glob in globs) for globs in opinions)


def _is_probe() -> bool:
    """Return True where a library asks the machine what it is."""
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name not in _BETWEEN:
            return name in _PROBES and frame.f_globals is vars(sys.modules[name])
        frame = frame.f_back
    return False


def _shown(event: str, args: tuple[Any, ...]) -> str:
    """Return the program, without its arguments: they may hold secrets."""
    if event not in _NAMED or not args:
        return f"a process ({event})"
    program: Any = args[0]
    if not isinstance(program, str):
        program = os.fsdecode(program)
    return f"process {os.path.basename(program)!r:.100}"
