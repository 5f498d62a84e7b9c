"""The part of a run that writes its journal; a journal that cannot be written halts it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

from oao_harness.errors import FencedError, OaoError, RunHalted
from oao_harness.journal.codec import error_line
from oao_harness.runtime.dispatch import Steps, Unhurried
from oao_hookspecs import Json

if TYPE_CHECKING:
    from oao_harness.journal.grouping import Group
    from oao_harness.journal.playback import Playback
    from oao_harness.journal.resumption import Resumption
    from oao_harness.journal.writer import Writer
    from oao_harness.runtime.run import Run

__all__ = ["Journaled"]


class Journaled:
    """What of a run its journal needs to know."""

    execution_id: str
    resumption: Resumption | None
    playback: Playback | None
    writer: Writer | None = None
    group: Group | None = None
    """The runs of the same loop, where they write together."""
    halted: RunHalted | None = None
    unwritten: RunHalted | None = None
    """Why the journal lacks a record."""
    _outer: tuple[Run, ...] = ()
    """Its lineage without itself: a run that refers to itself is freed late, by the collector."""
    muted: bool = False
    """True where the journal is complete already, or another process has it: nothing is written to it again."""

    @property
    def lineage(self) -> tuple[Run, ...]:
        """The run, the one around it, and so on to the outermost."""
        return (cast("Run", self), *self._outer)

    def latch(self, halt: RunHalted) -> bool:
        """Keep the first reason to halt and start cancelling; return True where this one is the first."""
        raise NotImplementedError

    def write(self, type: str, fields: dict[str, Json], event: int | None = None, *, later: bool = False) -> None:
        """Append a record to the run's journal; a journal that fails halts the run.

        Args:
            type: Record type, see `records`.
            fields: The record's own fields.
            event: Number of the recorded event, for the records of a served call.
            later: True where nothing happens because of it: it is written together with the next record.
        """
        if self.muted:
            return
        if self.writer is None:
            raise OaoError(f"run {self.execution_id!r} has no journal yet")
        try:
            self.writer.append(type, fields, event, later=later)
        except Exception as error:
            raise self._not_written(error) from error

    def writing(self, type: str, fields: dict[str, Json]) -> Steps[None]:
        """Append a record as `write` does, in one round trip with those of other runs where there is a group."""
        group = self.group
        if group is None or self.playback is not None or self.writer is None or self.muted or not group.is_here:
            self.write(type, fields)
            return
        self.write(type, fields, later=True)
        try:
            yield Unhurried(group.commit(self.writer))
        except Exception as error:
            raise self._not_written(error) from error

    def flush(self) -> None:
        """Write what waits for the next record: observers are told of nothing that the store has not."""
        if self.writer is not None and not self.muted:
            try:
                self.writer.flush()
            except Exception as error:
                raise self._not_written(error) from error

    def _not_written(self, error: Exception) -> RunHalted:
        halt = RunHalted(f"the journal failed: {error_line(error)}", rule="journal", plugin="oao")
        self.unwritten = halt
        self.latch(halt)
        if isinstance(error, FencedError):
            for outer in self.lineage[1:]:
                # Another process goes on with a part of this run: how it ends is not known here.
                outer.muted, outer.unwritten = True, halt
                outer.latch(halt)
        return halt

    def write_if_possible(self, type: str, fields: dict[str, Json], *, later: bool = False) -> None:
        """Append a record that nothing depends on, unless journal or lease is lost: who goes on must find no end."""
        if not self.is_lost:
            with suppress(RunHalted):
                self.write(type, fields, later=later)

    def writing_if_possible(self, type: str, fields: dict[str, Json]) -> Steps[None]:
        """Append a record that nothing depends on; see `write_if_possible` and `writing`."""
        if not self.is_lost:
            with suppress(RunHalted):
                yield from self.writing(type, fields)

    @property
    def is_served(self) -> bool:
        """True for a nested run that had ended before the one around it was interrupted: it only hands out its past."""
        return self.resumption is not None and self.resumption.is_over

    @property
    def is_lost(self) -> bool:
        """True where its journal or its lease is lost: how it ends is not known here."""
        halt = self.halted
        return halt is not None and halt.plugin == "oao" and halt.rule in {"journal", "lease"}
