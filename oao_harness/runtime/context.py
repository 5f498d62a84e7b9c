"""Which run does this code belong to? A context variable, carried into threads, with two process-wide fallbacks.

A context variable alone is not enough: raw threads, executors and empty contexts lose it. Where it is lost, the
only open run is meant; where several are open, nobody can tell, and every one of them reports it as ungoverned.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from oao_harness.errors import RunHalted

if TYPE_CHECKING:
    from oao_harness.journal.writer import Tap
    from oao_harness.runtime.run import Run
    from oao_hookspecs import Call

__all__ = [
    "Frame",
    "Session",
    "closed",
    "current",
    "frame",
    "here",
    "in_plugin",
    "is_possible",
    "open_runs",
    "opened",
    "session",
    "set_session",
]


class Session(Protocol):
    """What surrounds runs in this process, for example a pytest test that records them."""

    def ambient(self) -> Run | None:
        """Return the run that a call outside of any run belongs to; it may be opened by this very question."""
        ...

    def adopt(self, run: Run) -> Tap | None:
        """Take part in a run that is about to start: give it a recording to replay; return who hears its records."""
        ...


_UNATTRIBUTED: Final = "a call outside of every known context, while several runs were open"

here: Final[ContextVar[Run | None]] = ContextVar("oao_run", default=None)
"""The run whose agent is running in this context."""


class Frame(Protocol):
    """A governed call whose body is running."""

    @property
    def run(self) -> Run:
        """The run that made the call."""
        ...

    @property
    def n(self) -> int:
        """Its number in that run."""
        ...

    @property
    def outer(self) -> Frame | None:
        """The call whose body made this one, of this run or of one that it is nested in."""
        ...

    @property
    def call(self) -> Call:
        """What was asked for, as the policies left it."""
        ...

    @property
    def attempts(self) -> int:
        """How often its body was started in this process, from 1."""
        ...

    @property
    def again(self) -> bool:
        """True where it began before the run was interrupted, and is made once more."""
        ...

    waits: bool
    """True where its body waits for a person."""

    carried: int
    """The attempt in which a leaf below has done just what the call asks for, as a part of it; 0 for none."""


frame: Final[ContextVar[Frame | None]] = ContextVar("oao_frame", default=None)
"""The governed call whose body is running in this context; what the body starts belongs to it."""

in_plugin: Final[ContextVar[bool]] = ContextVar("oao_in_plugin", default=False)
"""True while a policy or a listener runs: what it does by itself is not done by the agent."""


class _Registry:
    """The open runs of the process. One instance: the patches it serves are process-wide too."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: dict[str, Run] = {}
        self.session: Session | None = None

    def forked(self) -> None:
        """In a forked child: its calls would be counted and written by nobody, so the runs it inherited are shut."""
        runs, self.lock, self.open = list(self.open.values()), threading.Lock(), {}
        for run in runs:
            run.forked()


_registry: Final = _Registry()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_registry.forked)


def current() -> Run | None:
    """Return the run that a call made here belongs to, or None outside of every run.

    A run that is over still claims what it left behind: its zombies are refused by its gate.

    Raises:
        RunHalted: Several runs are open, nobody can tell which one is meant, and one of them wants all calls governed.
    """
    run = here.get()
    if run is not None and (not run.closed or run.halted is not None):
        return run
    session = _registry.session
    if session is not None:
        return session.ambient()
    with _registry.lock:
        others = list(_registry.open.values())
    if len(others) == 1:
        return others[0]
    for other in others:
        other.note_ungoverned(_UNATTRIBUTED)
    if any(other.limits.require_governed for other in others):
        raise RunHalted(f"{_UNATTRIBUTED}; a policy wants every call governed", rule="require_governed", plugin="oao")
    return run


def is_possible() -> bool:
    """Return True where a call made here may belong to a run. Unlike `current` it opens none and notes nothing."""
    return here.get() is not None or _registry.session is not None or bool(_registry.open)


def opened(run: Run) -> None:
    """Register a run that is about to start."""
    _carry_into_threads()
    with _registry.lock:
        _registry.open[run.execution_id] = run


def closed(run: Run) -> None:
    """Forget a run that is over."""
    with _registry.lock:
        _registry.open.pop(run.execution_id, None)


def open_runs(execution_ids: Collection[str]) -> list[Run]:
    """Return those of some runs that are open in this process."""
    with _registry.lock:
        return [run for id_, run in _registry.open.items() if id_ in execution_ids]


def session() -> Session | None:
    """Return what surrounds runs in this process, if anything does."""
    return _registry.session


def set_session(session: Session | None) -> None:
    """Surround all runs of this process with a session, or with none."""
    _registry.session = session


@functools.cache
def _carry_into_threads() -> None:
    """Let threads and executors that an agent starts belong to the agent's run. Inert outside of runs."""
    start = threading.Thread.start
    submit = cast("Callable[..., Any]", ThreadPoolExecutor.submit)

    @functools.wraps(start)
    def start_in_run(self: threading.Thread) -> None:
        run, inside = here.get(), frame.get()
        if run is not None or inside is not None:
            self.run = functools.partial(_in_run, run, inside, self.run)  # type: ignore[method-assign]
        start(self)

    @functools.wraps(submit)
    def submit_in_run(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        run, inside = here.get(), frame.get()
        if run is not None or inside is not None:
            return submit(self, _in_run, run, inside, fn, *args, **kwargs)
        return submit(self, fn, *args, **kwargs)

    threading.Thread.start = start_in_run  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_in_run  # type: ignore[method-assign,assignment]


def _in_run(run: Run | None, inside: Frame | None, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    run_token, frame_token = here.set(run), frame.set(inside)
    _count_thread(run, 1)
    try:
        return fn(*args, **kwargs)
    finally:
        _count_thread(run, -1)
        frame.reset(frame_token)
        here.reset(run_token)


def _count_thread(run: Run | None, change: int) -> None:
    if run is not None:
        with _registry.lock:
            run.threads += change
