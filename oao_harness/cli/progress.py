"""What a run is doing right now, on one line that vanishes; only on a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.status import Status
from rich.text import Text

from oao_harness.cli.console import one_line
from oao_harness.cli.units import plural
from oao_hookspecs import CallDecided, CallFinished, RunView, StateEntered, hookimpl

__all__ = ["Progress"]


class Progress:
    """An observer that shows the newest event of a run.

    Args:
        on: Where to; nothing is shown where this is not a terminal.
    """

    name = "progress"

    def __init__(self, on: Console) -> None:
        # Not on.is_terminal: FORCE_COLOR makes a file one, and a file has no line that vanishes.
        self._status = Status(Text("starting"), console=on) if on.file.isatty() else None

    def __enter__(self) -> Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()

    @hookimpl
    def oao_state_entered(self, event: StateEntered, run: RunView) -> None:
        """Show the state."""
        self._show(event.state.lower(), run)

    @hookimpl
    def oao_call_decided(self, event: CallDecided, run: RunView) -> None:
        """Show the call that is about to happen."""
        self._show(f"#{event.n} {event.call.kind} {one_line(event.call.name)}", run)

    @hookimpl
    def oao_call_finished(self, event: CallFinished, run: RunView) -> None:
        """Show that the agent is at work between its calls."""
        self._show(f"#{event.n} {event.call.kind} {one_line(event.call.name)} done", run)

    def _show(self, what: str, run: RunView) -> None:
        if self._status is not None:
            spent = f"  {plural(run.steps, 'step')}, {plural(run.total_tokens, 'token')}"
            self._status.update(Text.assemble(what, (spent, "dim")))
