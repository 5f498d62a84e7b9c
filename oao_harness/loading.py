"""Finds the agent that `module:agent` names; what goes wrong is the user's to mend, and is said in one line."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from oao_harness.errors import AgentError, UsageError

__all__ = ["import_module", "import_policies", "is_factory", "load_agent", "prefer_working_folder"]

_SHOWN: Final = 8
# Frames in these folders are not the user's code.
_FOREIGN: Final = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parent),
)


def prefer_working_folder() -> None:
    """Put the working folder first on the import path, as `python -m` does."""
    folder = str(Path.cwd())
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


def load_agent(spec: str) -> object:
    """Return the object that `module:agent` names.

    Raises:
        UsageError: The text has another form, the module cannot be imported, it lacks the attribute, or that is
            a class or a graph that is not compiled.
    """
    module_name, _, path = spec.partition(":")
    if not path or not module_name or module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".") or "my_agents"
        raise AgentError(f"{spec!r} is not of the form module:agent; write for example {dotted}:{path or 'agent'}")
    found: object = import_module(module_name)
    for name in path.split("."):
        found = _attribute(found, name, spec)
    if isinstance(found, type):
        raise AgentError(
            f"{spec!r} is a class, and oao runs an instance of it; add a line such as "
            f"`agent = {found.__name__}(...)` to {module_name} and run {module_name}:agent"
        )
    if callable(getattr(found, "compile", None)) and not hasattr(found, "invoke"):
        raise AgentError(
            f"{spec!r} is a {type(found).__name__} that is not compiled; add a line such as "
            f"`agent = {path}.compile()` to {module_name} and run {module_name}:agent"
        )
    return found


def import_module(name: str) -> ModuleType:
    """Import a module of the user's.

    Raises:
        UsageError: There is no such module, or its own code failed; then with the user's frames of the traceback.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UsageError(_failure(name, error)) from error
        close = difflib.get_close_matches(error.name, _neighbours(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "run oao in the folder that holds it, or install it"
        raise AgentError(f"there is no module {error.name!r} in {str(Path.cwd())!r} or installed; {hint}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(_failure(name, error)) from error


def import_policies(names: Sequence[str]) -> None:
    """Import the modules of policies that `module:attribute` names, so that what goes wrong is said in one line.

    Raises:
        UsageError: See `import_module`.
    """
    for name in names:
        if ":" in name and not name.endswith(".toml"):
            import_module(name.partition(":")[0])


def is_factory(agent: object) -> bool:
    """Return True for a function that takes nothing: it cannot be asked anything, it may be what makes an agent."""
    if not inspect.isfunction(agent):
        return False
    return not inspect.signature(agent).parameters


def _neighbours() -> list[str]:
    return [found.name for found in pkgutil.iter_modules([str(Path.cwd())])]


def _attribute(owner: object, name: str, spec: str) -> object:
    try:
        return getattr(owner, name)
    except AttributeError as error:
        own = [found for found, value in vars(owner).items() if not found.startswith("_") and _may_be_agent(value)]
        close = difflib.get_close_matches(name, [n for n in vars(owner) if not n.startswith("_")], n=1)
        where = getattr(owner, "__name__", type(owner).__name__)
        if close:
            hint = f"did you mean {close[0]!r}?"
        elif own:
            hint = f"it has {', '.join(own[:_SHOWN])}"
        else:
            hint = "it holds nothing that can be run; define a function or an agent there"
        raise AgentError(f"{spec!r}: {where!r} has no {name!r}; {hint}") from error


def _may_be_agent(value: object) -> bool:
    if isinstance(value, ModuleType | type):
        return False
    return callable(value) or hasattr(value, "invoke") or hasattr(value, "ainvoke")


def _failure(name: str, error: BaseException) -> str:
    """Return what went wrong in the user's own code: the error, and below it where."""
    said = str(error.msg if isinstance(error, SyntaxError) else error)
    lines = [f"importing {name!r} failed: {type(error).__name__}{': ' if said else ''}{said}"]
    for frame in _own_frames(traceback.extract_tb(error.__traceback__)):
        lines += [f"  {_short(frame.filename)}:{frame.lineno} in {frame.name}", f"    {frame.line}"]
    if isinstance(error, SyntaxError) and error.filename:
        lines += [f"  {_short(error.filename)}:{error.lineno}", f"    {(error.text or '').strip()}"]
    return "\n".join(line.rstrip() for line in lines)


def _own_frames(frames: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    return [f for f in frames if not f.filename.startswith(("<", *_FOREIGN))]


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename
