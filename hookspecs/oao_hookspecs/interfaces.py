"""Protocols: what a plugin implements, and what it is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from oao_hookspecs.approvals import Principal
from oao_hookspecs.calls import Json
from oao_hookspecs.decisions import Limits

T = TypeVar("T")

Record: TypeAlias = Mapping[str, Json]
"""One line of a journal: `v`, `seq` (from 1), `type`, `at` (Unix seconds), and the fields of that type."""


class RunView(Protocol):
    """What a policy may know of the run. Reading is cheap; nothing can be changed through it."""

    @property
    def execution_id(self) -> str:
        """Id of the run."""
        ...

    @property
    def agent_name(self) -> str:
        """Name of the agent."""
        ...

    @property
    def task(self) -> object:
        """The task as it was given."""
        ...

    @property
    def principal(self) -> Principal | None:
        """Who the run acts for; None where nobody said so."""
        ...

    @property
    def limits(self) -> Limits:
        """What the run may spend."""
        ...

    def memory(self, owner: object, make: Callable[[], T]) -> T:
        """Return what a policy remembers of this run; made by the first question, atomically, and gone with the run.

        A resumed run asks about its earlier calls again, in order, so that the memory grows back.

        Args:
            owner: Whose memory it is, usually the policy itself.
            make: Makes an empty one.
        """
        ...

    @property
    def steps(self) -> int:
        """Steps taken so far, the one being judged not included."""
        ...

    @property
    def model_calls(self) -> int:
        """Model calls so far."""
        ...

    @property
    def tool_calls(self) -> int:
        """Tool calls so far."""
        ...

    @property
    def tool_usage(self) -> Mapping[str, int]:
        """Calls so far by tool name."""
        ...

    @property
    def total_tokens(self) -> int:
        """Tokens so far."""
        ...

    @property
    def input_tokens(self) -> int:
        """Tokens sent to models so far."""
        ...

    @property
    def output_tokens(self) -> int:
        """Tokens received from models so far."""
        ...

    @property
    def cost_usd(self) -> float:
        """Money spent so far in US dollars, as far as prices are known."""
        ...

    @property
    def replaying(self) -> bool:
        """True where outcomes come from a recording."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One row of a list of runs."""

    execution_id: str
    agent_name: str
    status: str
    """QUEUED (waits for a worker, or to be tried again), RUNNING, SUSPENDED (waits for a person), DEAD (a dead letter:
    it ended too many workers), SUCCESS or FAILED."""
    started_at: float
    """Unix seconds."""
    finished_at: float | None = None
    """Unix seconds; None while the run is open."""
    totals: Mapping[str, Json] | None = None
    """`steps`, `model_calls`, `tool_calls`, `tokens`: those of `run.finished`, before that of the last
    `run.suspended`; None where neither was written."""
    parent: str | None = None
    """The run that this one is nested in."""
    forked_from: str | None = None
    """The run whose beginning this one has."""
    tenant: str = ""
    """Whose run it is, see `tenant_of`; empty for nobody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs are asked for; empty fields ask for all."""

    starts_with: str = ""
    """Start of the id."""
    status: str = ""
    agent_name: str = ""
    forked_from: str = ""
    """Id of the run that they are forks of."""
    started_before: float | None = None
    """Unix seconds."""
    outer: bool = False
    """True leaves out runs that are nested in another."""
    tenant: str | None = None
    """Whose runs; empty for those of nobody, None for all."""

    def matches(self, run: RunSummary) -> bool:
        """Return True for a run that is asked for."""
        return (
            run.execution_id.startswith(self.starts_with)
            and self.status in {"", run.status}
            and self.agent_name in {"", run.agent_name}
            and self.forked_from in {"", run.forked_from}
            and (self.started_before is None or run.started_at < self.started_before)
            and not (self.outer and run.parent is not None)
            and self.tenant in {None, run.tenant}
        )


@runtime_checkable
class Store(Protocol):
    """Where journals live. Append-only, totally ordered per run, safe to use from many threads and after `spawn`.

    Every method raises `StoreError` where the store cannot be reached or is damaged; then nothing is half-written.
    What `append` returned from has survived the death of this process.
    """

    def claim(self, execution_id: str, *, owner: str = "", ttl_s: float = 0.0, over: int | None = None) -> int:
        """Become the only writer of a run, new or not.

        Args:
            execution_id: The run.
            owner: Who claims it, for who is refused meanwhile.
            ttl_s: Seconds for which nobody else gets it, unless renewed; 0 for no lease at all. A record
                `run.finished`, `run.suspended` or `run.queued` ends the lease. Time is the store's own: a clock that
                jumps makes a lease longer or shorter, never two writers.
            over: Epoch of a holder that is known to be dead: its lease does not count.

        Returns:
            The epoch, from 1; a writer with an older epoch is refused from now on.

        Raises:
            BusyError: Somebody else's lease holds; it says whose and for how long.
        """
        ...

    def renew(self, execution_id: str, epoch: int, ttl_s: float) -> None:
        """Let a lease live for another `ttl_s` seconds from now.

        Raises:
            FencedError: Another writer has claimed the run.
        """
        ...

    def release(self, execution_id: str, epoch: int) -> None:
        """End a lease, and let the epoch still write; one that was superseded is nobody's business any more."""
        ...

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        """Append records, the first with the next `seq`; all of them or none.

        Raises:
            FencedError: Another writer has claimed the run.
            StoreError: `seq` is not the next number, or the records could not be kept.
        """
        ...

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[Record]:
        """Yield the records of a run in order, each with its `hash` as last field; nothing for an unknown id.

        See `oao_hookspecs.journals` for the hash. The lines are the same, byte for byte, from every store.

        Args:
            execution_id: The run.
            after: Number of the record behind which to begin, >= 0; what is before it is not read.
        """
        ...

    def runs(self, limit: int | None = 100, *, offset: int = 0, query: RunQuery | None = None) -> Sequence[RunSummary]:
        """Return the newest runs first, without reading their journals; of equal starts the one written later first.

        Args:
            limit: How many at most; None for all.
            offset: How many of the newest ones to leave out, >= 0.
            query: Which ones.
        """
        ...

    def rewrite(self, execution_id: str, epoch: int, replaced: Mapping[int, Record], *records: Record) -> None:
        """Put other records in place of some, by `seq`, and append those that say so; all of it or nothing.

        For redaction. The replacements keep the `hash` of what they replace and hold its digest as `redacted`.

        Raises:
            FencedError: Another writer has claimed the run.
            StoreError: There is no such record, or its `seq` is another, or as for `append`.
        """
        ...

    def delete(self, execution_id: str) -> None:
        """Forget a run and its journal; an unknown id is none already.

        Whoever writes to it is refused, also where its id is claimed anew: that epoch is higher than all before.
        """
        ...

    def close(self) -> None:
        """Release what the store holds. Calling it twice is allowed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What became of one counter of an account."""

    spent: int = 0
    """Settled, for good."""
    held: int = 0
    """Reserved by calls in flight; comes back when they settle for less, or when their time to live has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a ledger did not reserve: the first counter that would pass its limit. Nothing was taken of any."""

    counter: str
    limit: int
    spent: int
    held: int
    asked: int


@runtime_checkable
class Ledger(Protocol):
    """What many processes draw from together. Safe to use from many threads; every method is atomic.

    An account is a set of counters. A counter is named by a string such as `steps`, `tool:search`, `tokens` or
    `cost` (nano US dollars). Amounts and limits are whole numbers from 0 to 2**53 - 1, and a counter for which no
    limit is named has that as its limit. Names are 1 to 1024 bytes of UTF-8. Time is the ledger's own: a clock that
    goes back makes holds live longer, never shorter.

    Every method raises `StoreError` where the ledger cannot be reached, and `ConfigError` for an argument that is
    out of range; then nothing is half-written. All but `totals` may be repeated with the same arguments.
    """

    def reserve(
        self, account: str, hold: str, amounts: Mapping[str, int], limits: Mapping[str, int], ttl_s: float
    ) -> Refusal | None:
        """Take all amounts, or none of them.

        For each counter, what is spent, what is held by others and what is asked must be within its limit.

        Args:
            account: Who is charged.
            hold: Unique id of this reservation. The same again with equal amounts changes nothing but to renew it.
            amounts: What to take of each counter, checked in this order.
            limits: The limits that hold for this reservation; those of other counters are ignored.
            ttl_s: Seconds until the hold comes back where nobody settles or renews it, > 0, at most 600.

        Returns:
            None where all was taken, else why nothing was.

        Raises:
            StoreError: The id holds other amounts, or was settled in the last 600 seconds.
        """
        ...

    def settle(self, account: str, hold: str, spent: Mapping[str, int]) -> None:
        """Replace a hold by what was really spent.

        That may be more than was held, and it counts too where the hold has expired or never was: spending is
        a fact. No limit is asked. An id that was settled in the last 600 seconds changes nothing. A counter that
        would pass 2**53 - 1 stays there.

        Args:
            account: Who is charged.
            hold: Id of the reservation.
            spent: What was spent of each counter; empty for a refund.
        """
        ...

    def renew(self, account: str, holds: Sequence[str], ttl_s: float) -> Sequence[str]:
        """Let live holds live for another `ttl_s` seconds from now, none of them shorter than before.

        Args:
            account: Who is charged.
            holds: Ids of reservations.
            ttl_s: As in `reserve`.

        Returns:
            The ids that are held no more: expired, settled, or never reserved. They cannot be renewed.
        """
        ...

    def totals(self, account: str) -> Mapping[str, Amounts]:
        """Return what is spent and held of each counter that is not zero; nothing for an unknown account."""
        ...

    def close(self) -> None:
        """Release what the ledger holds open, not its holds. Calling it twice is allowed."""
        ...


class Clock(Protocol):
    """Where a run reads the time, so that a test can move it."""

    def time(self) -> float:
        """Return Unix seconds, for the journal."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back, for durations and deadlines."""
        ...


@runtime_checkable
class Adapter(Protocol):
    """How one kind of agent is driven."""

    name: str
    """Short name, for example `langgraph`."""

    def matches(self, agent: object) -> bool:
        """Return True where this adapter can drive the agent. Asked once per run; must not call the agent."""
        ...

    def sees(self, agent: object) -> bool:
        """Return True where the agent's model and tool calls pass the gate."""
        ...

    def is_async(self, agent: object) -> bool:
        """Return True where the agent can only be driven by `drive_async`."""
        ...

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task and return what it returned. Exceptions are the agent's own."""
        ...

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task and return what it returned. Exceptions are the agent's own."""
        ...

    def output(self, result: object) -> object:
        """Return the final output inside of what the agent returned."""
        ...
