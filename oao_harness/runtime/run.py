"""One governed run: its latch, counters, journal and lifecycle. All state of a run is here and nowhere else."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

from oao_harness.errors import OaoError, PolicyViolation, RunHalted, RunSuspended
from oao_harness.journal.questions import Questions
from oao_harness.runtime.budget import Budget
from oao_harness.runtime.dispatch import Hooks, Steps, drive, observe
from oao_harness.runtime.journaled import Journaled
from oao_harness.runtime.lifecycle import Lifecycle, State
from oao_hookspecs import (
    Allow,
    Call,
    Clock,
    Deny,
    Json,
    Limits,
    Principal,
    StateEntered,
    StepStarted,
    Store,
    ToolCall,
    ViolationFound,
)

if TYPE_CHECKING:
    from oao_harness.journal.doubts import Doubt
    from oao_harness.journal.leases import Lease
    from oao_harness.journal.playback import Playback
    from oao_harness.journal.replay import Replay, Served
    from oao_harness.journal.resumption import Resumption
    from oao_harness.runtime.catalog import Catalog
    from oao_harness.runtime.requeuing import Requeued, Retries
    from oao_harness.runtime.revisits import Revisits
    from oao_harness.runtime.shared_budget import SharedBudget

__all__ = ["Run"]

T = TypeVar("T")

_UNLIMITED: Final = Limits()


class Run(Journaled):
    """The state of one run, and what may be known of it (`RunView`).

    Args:
        execution_id: Its id.
        agent_name: Name of the agent.
        task: The task as it was given.
        hooks: Who decides and observes.
        clock: Where time is read.
        store: Where its journal is kept.
        parent: The run whose tool started this one; its policies and budget hold here too.
        principal: Who it acts for; the parent's principal by default.
    """

    # What few runs have is here. A run has no more than 30 attributes of its own, where Python 3.11 ends to store the
    # names once for all of them: one more, and each run takes a kibibyte more.
    parent: Run | None = None
    principal: Principal | None = None
    tenant: str = ""
    """Whose run it is: that of the outer run, whoever this one acts for."""
    _labels: dict[str, int] | None = None
    _wake: threading.Event | None = None
    _halting: threading.Event | None = None
    _ends_by: str = ""
    _on_halt: Callable[[], None] | None = None

    # What the orchestrator and the phases fill in
    origin: Mapping[str, Json] = MappingProxyType({})
    """Where the agent and the policy can be found again, for who resumes the run in another process."""
    replay: Replay | None = None
    playback: Playback | None = None
    """The recorded order, where another run's recording is played."""
    must_play: Replay | None = None
    """The recording that this run alone must play to its end."""
    closed: bool = False
    deadline: float | None = None
    """On the clock's monotonic scale."""
    fingerprint: str = ""
    shared: SharedBudget | None = None
    """The budget that this run's orchestrator shares with other processes."""
    tree: SharedBudget | None = None
    """What the run may spend, where parts of it are run by other workers: these draw from it too."""
    catalog: Catalog | None = None
    policy_version: str = ""
    """Digest of the policies: what an approval was given under."""
    parent_call: int | None = None
    """Number of the outer run's call whose body started this run."""
    call_timeout_s: float | None = None
    """The least limit on single calls, of this run and those it is nested in."""
    lease: Lease | None = None
    """That this process is at work on it."""
    doubts: Sequence[Doubt] = ()
    """Calls that a person must decide about before it can go on."""
    resumption: Resumption | None = None
    """What the run did before it was interrupted; None where it began in this process."""
    revisits: Revisits | None = None
    """The calls made so far, where the agent's framework can go back and make them again."""
    model_override: str | None = None
    """The model that live calls of this run, and of those nested in it, are made with; None is what the agent asks."""
    threads: int = 0
    """How many threads besides its own the agent has work in just now."""
    node: str = ""
    """What the outer run calls this one, where it is a named part of it."""
    retries: Retries | None = None
    """How often the run is tried again where its agent failed; None never."""
    requeued: Requeued | None = None
    """That it is."""
    queued_at: float | None = None
    """Unix seconds, where the run waited for a worker before it began."""
    traceparent: str = ""
    """W3C trace context of who submitted it to a queue."""
    began_in: str = ""
    """W3C trace context that it had when it began; empty where nobody traced it."""
    turned_away: bool = False
    """True where a call of it was refused, because the run, or one around it, is halted."""
    lasts: bool = False
    """True where a denied or a held call halts only the nested run that made it, and this one goes on."""
    patient: bool = False
    """True where the agent's code ends by itself when the run is suspended: what runs in it may come to an end."""

    def __init__(
        self,
        *,
        execution_id: str,
        agent_name: str,
        task: object,
        hooks: Hooks,
        clock: Clock,
        store: Store,
        parent: Run | None = None,
        principal: Principal | None = None,
    ) -> None:
        self.execution_id = execution_id
        self.agent_name = agent_name
        self.label = agent_name
        """The run's name in a recording: whoever runs several of one agent gives each another one."""
        self.task = task
        self.hooks = hooks
        self.clock = clock
        self.store = store
        if principal is not None:
            self.principal, self.tenant = principal, principal.tenant
        if parent is not None:
            self.parent, self._outer, self.tenant = parent, parent.lineage, parent.tenant
            self.principal = principal or parent.principal
            parent.nested[self] = None
        self.nested: dict[Run, None] = {}
        """The open runs that are nested in this one, without those that are nested in them."""
        self.budget = Budget(_UNLIMITED)
        self.questions = Questions()
        self.waiting: list[int] = []
        """Numbers of the calls whose bodies wait for a person."""
        self.reading: dict[int, None] = {}
        """Numbers of the calls whose streams nobody has read to the end or closed."""
        self.lifecycle = Lifecycle()
        self.ungoverned: dict[str, None] = {}
        """What could not be governed, one line each, in order; a graph of many nodes has many."""
        self.observed: list[str] = []
        self.calls: list[tuple[str, str]] = []
        """Kind and name of the calls made so far, for the execution hash."""
        self.started = clock.monotonic()
        self.started_at = clock.time()
        self._numbers = itertools.count(1)
        self._memories: dict[int, tuple[object, Any]] = {}
        self._lock = threading.Lock()

    def label_for(self, agent_name: str) -> str:
        """Return a name for a run of this tree that none of the others has: `agent`, `agent#2` ..."""
        with self._lock:
            if self._labels is None:
                self._labels = {}
            count = self._labels[agent_name] = self._labels.get(agent_name, 0) + 1
        return agent_name if count == 1 else f"{agent_name}#{count}"

    # What a policy may know

    @property
    def limits(self) -> Limits:
        """What the run may spend."""
        return self.budget.limits

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.budget.totals.steps

    @property
    def model_calls(self) -> int:
        """Model calls so far."""
        return self.budget.totals.model_calls

    @property
    def tool_calls(self) -> int:
        """Tool calls so far."""
        return self.budget.totals.tool_calls

    @property
    def tool_usage(self) -> Mapping[str, int]:
        """Calls so far by tool name."""
        return dict(self.budget.totals.tool_usage)

    @property
    def total_tokens(self) -> int:
        """Tokens so far."""
        return self.budget.totals.tokens

    @property
    def input_tokens(self) -> int:
        """Tokens sent to models so far."""
        return self.budget.totals.input_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens received from models so far."""
        return self.budget.totals.output_tokens

    @property
    def cost_usd(self) -> float:
        """Money spent so far in US dollars, as far as prices are known."""
        return self.budget.totals.cost_usd

    def memory(self, owner: object, make: Callable[[], T]) -> T:
        """Return what a policy remembers of this run; see `RunView.memory`."""
        found = self._memories.get(id(owner))
        if found is None:
            with self._lock:
                found = self._memories.setdefault(id(owner), (owner, make()))
        return cast("T", found[1])

    @property
    def replaying(self) -> bool:
        """True where outcomes come from a recording."""
        return self.replay is not None

    @functools.cached_property
    def shared_budgets(self) -> tuple[tuple[SharedBudget, Run], ...]:
        """The budgets of the lineage that other processes draw from, each once, and the run that named it."""
        both = [(budget, one) for one in self.lineage for budget in (one.shared, one.tree) if budget is not None]
        return tuple({(budget.name, id(budget.ledger)): (budget, one) for budget, one in both}.values())

    @functools.cached_property
    def redacts(self) -> bool:
        """True where somebody must see a tool's result before the agent does."""
        return any(run.hooks.heard("oao_redact_result") for run in self.lineage)

    @property
    def is_plain(self) -> bool:
        """True where a call is what the agent made it: nothing is played, nothing is declared about its tool."""
        return self.replay is None and self.revisits is None and not self._has_traits

    @functools.cached_property
    def _has_traits(self) -> bool:
        return any(run.catalog is not None and run.catalog.describes for run in self.lineage)

    # What the machine does with it

    def next_number(self, served: Served | None = None) -> int:
        """Return the number of the next call, from 1.

        Args:
            served: What answers it: the call has the number that it had when it was recorded.
        """
        number = served.n if served is not None else None
        if number is None and served is not None and served.event is not None and self.playback is not None:
            number = self.playback.number(self.execution_id, served.event)
        return next(self._numbers) if number is None else number

    def follow(self, playback: Playback) -> None:
        """Number and write the calls of this run as they were recorded; before its first record."""
        if self.writer is None:
            raise OaoError(f"run {self.execution_id!r} has no journal yet")
        nested = self.parent is not None and self.parent.playback is playback
        self.playback = playback
        self.continue_after(playback.last_number)
        self.writer.follow(playback, nested=nested)

    def continue_after(self, n: int) -> None:
        """Number the next call after those that the run's journal holds."""
        self._numbers = itertools.count(n + 1)

    def described(self, call: Call) -> Call:
        """Return a call with what is declared about its tool; what the tool's own author said is stronger."""
        if not self._has_traits or not isinstance(call, ToolCall):
            return call
        for run in self.lineage:
            traits = run.catalog.traits(call.name) if run.catalog is not None else None
            if traits is not None and (call.effect is None or call.access is None):
                call = replace(call, effect=call.effect or traits.effect, access=call.access or traits.access)
        return call

    def close(self) -> None:
        """Shut the gate for good; from now on the run cannot be halted any more."""
        with self._lock:
            self.closed = True
            self._on_halt = None
        if self.parent is not None:
            self.parent.nested.pop(self, None)
        if self.lease is not None:
            self.lease.let_go(release=self.is_lost)

    def lose(self, why: str) -> None:
        """Halt the run, because another process has it, or nobody can tell."""
        self.latch(RunHalted(f"run {self.execution_id}: {why}", rule="lease", plugin="oao"))

    def note_ungoverned(self, what: str) -> None:
        """Say in the report that something of this run could not be governed; once for each text."""
        with self._lock:
            if what in self.ungoverned:
                return
            self.ungoverned[what] = None
        self.write("ungoverned", {"what": what}, later=self.lifecycle.state == "PLAN")

    def note_observed(self, call: Call, decision: Allow) -> None:
        """Say in the report what a policy that only observes would have said."""
        with self._lock:
            self.observed.append(f"{call.kind} {call.name}: would {decision.would}: {decision.rule}: {decision.reason}")

    def entering(self, state: State) -> Steps[None]:
        """Move the lifecycle, write it, tell the observers."""
        self.lifecycle.enter(state)
        if self.resumption is not None and state in {"PLAN", "EXECUTE"}:
            return
        is_heard = self.hooks.heard("oao_state_entered")
        # Only before the agent's code begins must the store have all that was written until then.
        later = state != "EXECUTE" and not is_heard
        if state == "EXECUTE" and not is_heard:
            yield from self.writing("state", {"state": state})
            return
        write = self.write if state in {"PLAN", "EXECUTE"} else self.write_if_possible
        write("state", {"state": state}, later=later)
        if is_heard:
            event = StateEntered(execution_id=self.execution_id, state=state)
            yield from observe(self.hooks, "oao_state_entered", {"event": event, "run": self})

    def stepping(self, name: str) -> Steps[None]:
        """Count a step of the agent's own framework; the limit on steps holds for them too.

        Raises:
            RunHalted: The run is halted, or was by this step.
        """
        self.refuse_if_over()
        index = 0
        for run in self.lineage:
            counted = run.budget.step()
            if isinstance(counted, Deny):
                yield from self.refusing(counted, n=None, by=run)
                raise self.require_halt()
            index = index or counted
        is_heard = self.hooks.heard("oao_step_started")
        # What happens in the step is written before it happens, and this with it.
        self.write("step", {"index": index, "name": name}, later=not is_heard)
        if is_heard:
            event = StepStarted(execution_id=self.execution_id, index=index, name=name)
            yield from observe(self.hooks, "oao_step_started", {"event": event, "run": self})

    def refuse_if_over(self) -> None:
        """Raise where the run, or one it is nested in, was halted, is over, or is past its deadline.

        Raises:
            RunHalted: Always the first reason, however often it was caught.
        """
        run: Run | None = self
        while run is not None:
            if run.halted is not None:
                self.turned_away = True
                raise run.halted
            if run.deadline is not None and run.clock.monotonic() > run.deadline:
                run.time_out()
            if run.lease is not None and perf_counter() > run.lease.late_at:
                # Frozen, or its store is away: what it is about to do, another process may have done meanwhile.
                run.lease.renew()
            if run.closed:
                reason = f"run {run.execution_id} is over; what it left behind may do nothing more"
                raise RunHalted(reason, rule="closed")
            if run.halted is not None:
                self.turned_away = True
                raise run.halted
            run = run.parent

    def refusing(self, denial: Deny, *, n: int | None, by: Run) -> Steps[None]:
        """Halt for a denial of this run's, or an outer run's, policies; the outer run is halted with it."""
        for run in self.lineage:
            if run.lasts and run is not self:
                return
            halt = PolicyViolation(
                denial.reason,
                rule=denial.rule,
                plugin=denial.plugin,
                n=n if run is self else None,
                source=denial.source,
            )
            yield from run.halting(halt)
            if run is by:
                return

    def halting(self, halt: RunHalted) -> Steps[None]:
        """Halt the run and those in it: latch, journal, observers, cancel scope. Only the first reason counts."""
        if not self.latch(halt):
            return
        if isinstance(halt, RunSuspended):
            # What is nested in it ends its calls in peace, and stops at the next one.
            return
        yield from self._halted(halt)
        for inner in tuple(self.nested):
            yield from inner.halting(type(halt)(halt.reason, rule=halt.rule, plugin=halt.plugin, source=halt.source))

    def _halted(self, halt: RunHalted) -> Steps[None]:
        violation: dict[str, Json] = {"rule": halt.rule, "plugin": halt.plugin, "reason": halt.reason}
        if halt.source:
            violation["source"] = halt.source
        if halt.n is not None:
            violation["n"] = halt.n
        self.write_if_possible("violation", violation)
        if self.hooks.heard("oao_violation"):
            event = ViolationFound(
                execution_id=self.execution_id, rule=halt.rule, plugin=halt.plugin, reason=halt.reason, n=halt.n
            )
            yield from observe(self.hooks, "oao_violation", {"event": event, "run": self})

    def halt_now(self, halt: RunHalted) -> None:
        """Halt the run from code that is not a computation, such as a timer."""
        drive(self.halting(halt), self.hooks.timeout_s)

    def time_out(self) -> None:
        """Halt the run for its deadline, and with it the outer runs whose deadline it is."""
        # A run without a limit of its own has the deadline of the run that it is nested in.
        limit_s = min(run.limits.timeout_s for run in self.lineage if run.limits.timeout_s is not None)
        for run in self.lineage:
            if run is self or run.deadline == self.deadline:
                source = run.limits.sources.get("timeout_s", "")
                reason = f"timeout: {limit_s:g} s are over"
                run.halt_now(PolicyViolation(reason, rule="timeout", plugin="budget", source=source))

    def latch(self, halt: RunHalted) -> bool:
        """Keep the first reason to halt and start cancelling; return True where this one is the first."""
        with self._lock:
            if self.halted is not None or self.closed:
                return False
            self.halted = halt
            wakes, on_halt = [one for one in (self._wake, self._halting) if one is not None], self._on_halt
        for wake in wakes:
            wake.set()
        if on_halt is not None:
            on_halt()
        return True

    def forked(self) -> None:
        """Shut the gate in a forked child; the journal belongs to the parent process."""
        self._lock = threading.Lock()
        self.closed = False
        reason = "this process was forked from a run; what it calls cannot be governed, use threads or spawn"
        self.halted = self.halted or RunHalted(reason, rule="forked", plugin="oao")

    def ends_by(self, who: Literal["itself", "host"]) -> bool:
        """Return True for who may end the run: the one that asks first, however often it does."""
        with self._lock:
            self._ends_by = self._ends_by or who
            return self._ends_by == who

    def require_halt(self) -> RunHalted:
        """Return why the run was halted; a run that ended meanwhile refuses for that reason."""
        return self.halted or RunHalted(f"run {self.execution_id} is over", rule="closed", plugin="oao")

    def halt_event(self) -> threading.Event:
        """Return an event that is set when the run is halted, and from then on."""
        with self._lock:
            if self._halting is None:
                self._halting = threading.Event()
                if self.halted is not None:
                    self._halting.set()
        return self._halting

    def wake_event(self) -> threading.Event:
        """Return an event that is also set when the run is halted, for who waits for the agent."""
        with self._lock:
            if self._wake is None:
                self._wake = threading.Event()
        return self._wake

    def on_halt(self, told: Callable[[], None]) -> None:
        """Have a function called when the run is halted, from whatever thread; at once where it is."""
        with self._lock:
            self._on_halt = told
            halted = self.halted is not None
        if halted:
            told()
