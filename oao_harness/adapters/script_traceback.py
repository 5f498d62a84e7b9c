"""The traceback of a script as its author knows it: without the frames of oao."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Final

__all__ = ["show_error"]

_OURS: Final = str(Path(__file__).parent.parent)


def show_error(error: BaseException) -> None:
    """Hand an error to `sys.excepthook`, as Python does with what a script raises.

    Args:
        error: Its traceback, and those of its causes, lose the frames of oao.
    """
    known: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in known:
            continue
        known.add(id(one))
        one.__traceback__ = _without_ours(one.__traceback__)
        todo += [one.__cause__, one.__context__]
    sys.excepthook(type(error), error, error.__traceback__)


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    kept: list[TracebackType] = []
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_OURS):
            kept.append(trace)
        trace = trace.tb_next
    found: TracebackType | None = None
    for one in reversed(kept):
        found = TracebackType(found, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return found
