"""What an agent does beside the gate: halted where a policy wants everything governed, else said in the report."""

from __future__ import annotations

from oao_harness.runtime.context import Frame, current, frame, here, in_plugin, is_possible
from oao_harness.runtime.dispatch import drive
from oao_hookspecs import Deny

__all__ = ["governed_model_call", "is_watched", "refuse_or_note"]


def is_watched() -> bool:
    """Return True where what is done here may be done by an agent. Opens no run and notes nothing."""
    return is_possible() and not in_plugin.get()


def governed_model_call() -> Frame | None:
    """Return the governed model call whose body is running here, or None.

    A tool that was called inside of it ends it, and so does a run that was started inside of it: the model call is the
    outer run's, and what the inner agent sends was judged by nobody.
    """
    inside, run = frame.get(), here.get()
    if inside is None or inside.call.kind != "model":
        return None
    return None if run is not None and inside.run in run.lineage[1:] else inside


def refuse_or_note(rule: str, what: str, advice: str) -> None:
    """Halt the run that this code belongs to, or note what it does; nothing outside of every run.

    Args:
        rule: Of the violation.
        what: What is done, for a person; noted once for each text.
        advice: What to do about it.

    Raises:
        RunHalted: A policy of the run, or of one it is nested in, wants everything governed; or the run is over.
    """
    run = current()
    if run is None:
        return
    run.refuse_if_over()
    by = next((member for member in run.lineage if member.limits.require_governed), None)
    if by is None:
        for member in run.lineage:
            member.note_ungoverned(f"{rule}: {what}")
        return
    denial = Deny(rule=rule, plugin="oao", reason=f"{what}; {advice}")
    drive(run.refusing(denial, n=None, by=by), run.hooks.timeout_s)
    raise run.require_halt()
