"""Where in the user's code a call is made. Walks the stack: for messages, not for calls that fit."""

from __future__ import annotations

import inspect
import sysconfig
from functools import cache
from pathlib import Path
from types import FrameType

__all__ = ["caller_line"]

_OURS = frozenset({"oao_harness", "oao_hookspecs", "pytest_oao", "_pytest", "pytest", "pluggy", "importlib"})


def caller_line() -> str | None:
    """Return `called from agents/travel.py:88 in plan()`; None where no user's code is on the stack of this thread.

    That is the innermost frame that is neither ours, nor pytest's, nor of the standard library or an installed package.
    """
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        path = frame.f_code.co_filename
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _OURS and not path.startswith("<") and not _is_installed(path):
            return f"called from {_shown(path)}:{frame.f_lineno} in {frame.f_code.co_name}()"
        frame = frame.f_back
    return None


def _is_installed(path: str) -> bool:
    parts = Path(path).parts
    return "site-packages" in parts or "dist-packages" in parts or path.startswith(_library())


@cache
def _library() -> tuple[str, ...]:
    return tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib"))


def _shown(path: str) -> str:
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path
