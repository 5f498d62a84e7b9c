"""What is known of runs: the list, a journal, a timeline, what two runs differ in, and what is written from now on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from typing import Final

from oao_harness.fleet.status import status_of
from oao_harness.journal.changes import Changes, changes
from oao_harness.journal.nesting import tape_of
from oao_harness.journal.recording import Recording
from oao_harness.journal.timeline import Timeline
from oao_harness.server.callers import Caller
from oao_harness.server.core import Core
from oao_harness.server.refusals import NotFound, TooBusy, WrongState
from oao_hookspecs import Record, RunQuery, RunSummary

__all__ = ["Histories"]

_MOST_SEEN: Final = 10_000


class Histories(Core):
    """The part of the service that reads."""

    async def runs(
        self,
        caller: Caller,
        *,
        limit: int = 50,
        offset: int = 0,
        status: str = "",
        agent: str = "",
        starts_with: str = "",
        outer: bool = True,
    ) -> Sequence[RunSummary]:
        """Return the newest runs that a caller may see.

        Args:
            caller: Who asks.
            limit: How many at most, >= 1.
            offset: How many of the newest to leave out, >= 0.
            status: Only those of a status.
            agent: Only those of an agent.
            starts_with: Only those whose id begins so.
            outer: False shows those too that are nested in another one.
        """
        query = self.query_for(caller, status=status, agent_name=agent, starts_with=starts_with, outer=outer)
        return await self.asked(lambda: self.store.runs(limit, offset=offset, query=query))

    def query_for(
        self, caller: Caller, *, status: str = "", agent_name: str = "", starts_with: str = "", outer: bool = True
    ) -> RunQuery:
        """Return a question for runs that a caller may see."""
        return RunQuery(
            status=status, agent_name=agent_name, starts_with=starts_with, outer=outer, tenant=caller.tenant or None
        )

    async def records(self, caller: Caller, execution_id: str, after: int = 0) -> list[Record]:
        """Return the journal of a run, from the record after one.

        Raises:
            NotFound: There is no such run, or it is another tenant's.
        """
        return await self.asked(self.read_for, caller, execution_id, after)

    async def timeline(self, caller: Caller, execution_id: str) -> Timeline:
        """Return a run as a person is shown it, with the runs nested in it.

        Raises:
            NotFound: There is no such run.
        """

        def read() -> Timeline:
            records = self.read_for(caller, execution_id)
            return Timeline.of(records, lambda nested: list(self.store.read(nested)))

        return await self.asked(read)

    async def follow(self, caller: Caller, execution_id: str, after: int = 0) -> AsyncGenerator[Sequence[Record]]:
        """Yield the records of a run after one, and those to come; ends with the run, or with the server.

        Raises:
            NotFound: There is no such run.
        """
        head = await self.records(caller, execution_id)
        if not (status_of(head).is_over and after >= len(head)):
            async for records in self.feed.follow(execution_id, after):
                yield records

    async def rows(self, caller: Caller) -> AsyncGenerator[RunSummary]:
        """Yield the rows of runs as they change; ends with the server."""
        async for row in self.feed.rows():
            if self.sees(caller, row):
                yield row

    async def events(self, caller: Caller, execution_id: str = "") -> AsyncGenerator[tuple[str, Record]]:
        """Yield what is written to runs in this process, as id and record; ends with the server.

        Args:
            caller: Who asks.
            execution_id: Only what is written to this run; empty for all.

        Raises:
            SlowConsumer: The caller does not keep up.
        """
        seen: dict[str, bool] = {}
        async for id_, record in self.feed.events():
            if execution_id and id_ != execution_id:
                continue
            if caller.tenant:
                if id_ not in seen:
                    if len(seen) >= _MOST_SEEN:
                        seen.clear()
                    seen[id_] = await self.asked(self.may_read, caller, id_)
                if not seen[id_]:
                    continue
            yield id_, record

    def may_read(self, caller: Caller, execution_id: str) -> bool:
        """Return True for a run that a caller may see; blocks."""
        try:
            self.read_for(caller, execution_id, after=2**53)
        except NotFound:
            return False
        return True

    @contextmanager
    def place_for_stream(self) -> Generator[None]:
        """Have one of the places for streams that stay open.

        Raises:
            TooBusy: All are taken.
        """
        if self._streams >= self.settings.most_streams:
            raise TooBusy(f"{self._streams} streams are open; come again", retry_after_s=5.0)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    _streams = 0

    async def diff(self, caller: Caller, execution_id: str, other: str) -> Changes:
        """Return what one run does otherwise than another.

        Args:
            caller: Who asks.
            execution_id: The older one.
            other: The newer one.

        Raises:
            NotFound: There is no such run.
        """

        def compare() -> Changes:
            return changes(self.recording_of(caller, execution_id), self.recording_of(caller, other))

        return await self.asked(compare)

    def recording_of(self, caller: Caller, execution_id: str) -> Recording:
        """Return a run, with those nested in it, as a recording; blocks.

        Raises:
            NotFound: There is no such run.
            WrongState: It is nested in another one.
        """
        first = self.read_for(caller, execution_id)[0]
        if first.get("parent") is not None:
            raise WrongState(f"run {execution_id} is nested in run {first['parent']}; ask for that one")
        tape = tape_of(execution_id, lambda one: list(self.store.read(one)))
        return Recording.from_records(tape, header={"at": "", "policy": ""})
