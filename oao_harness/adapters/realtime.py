"""Realtime models of frameworks: their answers come over a connection that the gate does not see, and that is said."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Final

from oao_harness.adapters.families import Wrapped, patch_family
from oao_harness.runtime.context import is_possible
from oao_harness.runtime.outside import refuse_or_note

__all__ = ["install"]

_OPENING: Final = ("connect", "connect_webrtc")


def install(module: str) -> None:
    """Note, or refuse, what opens a connection to a realtime model; once. The tools it asks for are governed.

    Args:
        module: Of the framework, with its base class `RealtimeModel`.
    """
    patch_family(sys.modules[module].RealtimeModel, [Wrapped(name=name, wrap=_noted) for name in _OPENING])


def _noted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def opens(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_possible():
            what = f"{type(self).__name__} was connected: what is said over a realtime connection is not governed"
            refuse_or_note("realtime", what, "ask a model that answers requests")
        return function(self, *args, **kwargs)

    return opens
