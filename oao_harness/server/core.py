"""What all operations of the service share: where runs are, who may see them, which policies hold, where they run."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, ParamSpec, TypeVar, cast

from oao_harness.errors import AgentError, UsageError
from oao_harness.fleet.agents import Agents, Registered
from oao_harness.fleet.status import report_of, status_of
from oao_harness.listeners.metrics import Metrics
from oao_harness.plugins.manager import make_manager
from oao_harness.runtime.clock import SystemClock
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport
from oao_harness.server.admission import Admission
from oao_harness.server.callers import Caller
from oao_harness.server.feed import Feed
from oao_harness.server.hosting import Hosts
from oao_harness.server.refusals import AgentUnavailable, CutOff, InvalidRequest, NotFound, WrongState
from oao_harness.server.settings import Settings
from oao_harness.stores.observed import Appended, ObservedStore
from oao_hookspecs import Json, Record, RunSummary, tenant_of

__all__ = ["Core"]

T = TypeVar("T")
P = ParamSpec("P")

_log: Final = logging.getLogger(__name__)

_MOST_NESTED: Final = 100
_MOST_POLICIES: Final = 8


class Core:
    """The parts of a service, and what every operation needs.

    Args:
        settings: What the server is told.
        agents: The registered agents; by default those of the installed packages and of the project.
        appended: Further ears of the store.

    Raises:
        ConfigError: A URL is wrong, or an agent is registered wrongly.
        StoreError: The store cannot be opened.
    """

    def __init__(self, settings: Settings, agents: Agents | None = None, *, appended: Sequence[Appended] = ()) -> None:
        self.settings = settings
        self.agents = Agents.discover() if agents is None else agents
        self.feed = Feed(lambda: self.store.inner)
        self.metrics = Metrics()
        opened = Orchestrator(store=settings.store).store
        self.store = ObservedStore(opened, self.feed.appended, self.metrics.appended, *appended)
        self.hosts = Hosts()
        self.clock = SystemClock()
        self._admissions: dict[str, Admission] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._orchestrator = functools.lru_cache(maxsize=128)(self._make_orchestrator)
        manager, _ = make_manager(())
        self._offered: frozenset[str] = frozenset(name for found in manager.hook.oao_policies() for name in found)

    # Agents and policies

    def registered(self, name: str) -> Registered:
        """Return the agent of a name.

        Raises:
            NotFound: There is none.
        """
        try:
            return self.agents.get(name)
        except AgentError as error:
            raise NotFound(str(error)) from None

    @property
    def policy_names(self) -> list[str]:
        """The policies that a request may name: bundled and installed ones, and those of the registered agents."""
        return sorted({*self._offered, *(policy for one in self.agents for policy in one.policy)})

    def policies_for(self, registered: Registered, asked: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the policies of a run: those that its agent is registered with, and besides those asked for.

        What is asked for can only be stricter, and never imports code.

        Raises:
            InvalidRequest: A policy is none that may be named, or they are too many.
        """
        always = registered.policies()
        if not asked:
            return always
        if len(asked) > _MOST_POLICIES:
            raise InvalidRequest(f"{len(asked)} policies are asked for; name {_MOST_POLICIES} at most")
        for name in asked:
            self.require_policy(name)
        return tuple(dict.fromkeys((*always, *asked)))

    def require_policy(self, name: str) -> None:
        """Refuse a policy that a request may not name.

        Raises:
            InvalidRequest: It is a path, code, or unknown.
        """
        known = self.policy_names
        if name not in known:
            raise InvalidRequest(
                f"there is no policy {name!r:.120} here; known: {', '.join(known)}. A request names a policy, never a "
                "file or code."
            )

    def orchestrator(self, policies: tuple[str, ...]) -> Orchestrator:
        """Return what runs agents under some policies."""
        return self._orchestrator(policies)

    def _make_orchestrator(self, policies: tuple[str, ...]) -> Orchestrator:
        return Orchestrator(list(policies), self.store, [self.metrics])

    def load(self, registered: Registered) -> object:
        """Return an agent; it is imported or made where it was not yet.

        Raises:
            AgentUnavailable: It cannot be.
        """
        try:
            return registered.load()
        except UsageError as error:
            # What exactly is wrong names modules and folders.
            _log.warning("agent %s cannot be used: %s", registered.name, error)
            raise AgentUnavailable(f"agent {registered.name!r} cannot be used; the server's log says why") from error

    def admission(self, registered: Registered) -> Admission:
        """Return the slots of an agent."""
        found = self._admissions.get(registered.name)
        if found is None:
            slots = registered.max_concurrency or self.settings.slots
            found = self._admissions[registered.name] = Admission(registered.name, slots, self.settings.waiting)
        return found

    def deadline_s(self, asked: float | None) -> float:
        """Return the seconds that a run may take.

        Raises:
            InvalidRequest: More is asked for than may be.
        """
        if asked is None:
            return self.settings.deadline_s
        most = self.settings.most_deadline_s
        if not 0 < asked <= most:
            raise InvalidRequest(f"deadline_s={asked!r}: give more than 0 and at most {most:g} seconds")
        return asked

    # Runs

    async def asked(self, question: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask something that may block, such as the store, in a thread."""
        return await asyncio.to_thread(question, *args, **kwargs)

    def read_for(self, caller: Caller, execution_id: str, after: int = 0) -> list[Record]:
        """Return the journal of a run that a caller may see; blocks.

        Raises:
            NotFound: There is no such run, or it is another tenant's.
        """
        first = next(iter(self.store.read(execution_id)), None)
        if first is None or not self._is_visible(caller, first):
            raise NotFound(f"there is no run {execution_id!r:.120}")
        return list(self.store.read(execution_id, after=after))

    def _is_visible(self, caller: Caller, first: Record) -> bool:
        return not caller.tenant or tenant_of(self.outermost(first)) == caller.tenant

    def outermost(self, first: Record) -> Record:
        """Return the first record of the run that a run is nested in, at whatever depth; its own where in none."""
        for _ in range(_MOST_NESTED):
            parent = first.get("parent")
            outer = None if parent is None else next(iter(self.store.read(str(parent))), None)
            if outer is None:
                return first
            first = outer
        return first

    def sees(self, caller: Caller, row: RunSummary) -> bool:
        """Return True for a row of the list of runs that a caller may see."""
        return not caller.tenant or row.tenant == caller.tenant

    def agent_of(self, first: Record) -> tuple[Registered, tuple[str, ...]]:
        """Return the agent of a stored run and the policies that it goes on under.

        Raises:
            WrongState: It is none that is registered here, or had a policy that is not known here.
        """
        origin = cast("Mapping[str, Json]", first.get("origin") or {})
        job = cast("Mapping[str, Json]", first.get("job") or {})
        name = str(origin.get("agent") or first["agent"])
        if name not in self.agents:
            raise WrongState(
                f"run {first['execution_id']} is of agent {name!r:.120}, which is not registered here; "
                "go on with it where it is: oao resume"
            )
        registered = self.agents.get(name)
        named = origin.get("policy") or job.get("policy") or ()
        policies = tuple(str(one) for one in cast("Sequence[Json]", named))
        for policy in policies:
            if policy not in self.policy_names:
                raise WrongState(
                    f"run {first['execution_id']} is under policy {policy!r:.120}, which is not known here; "
                    "go on with it where it is: oao resume"
                )
        return registered, policies or registered.policies()

    def later(self, what: Coroutine[Any, Any, Any], name: str) -> None:
        """Do something that nobody waits for."""
        task = asyncio.create_task(what, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def driven(
        self,
        registered: Registered,
        execution_id: str,
        make: Callable[[object], Any],
        *,
        deadline_s: float | None,
    ) -> ExecutionReport:
        """Run something of an agent where that agent runs, in one of its slots; return the report.

        Args:
            registered: The agent.
            execution_id: Of the run that `make` opens.
            make: Is given the agent, in its own loop, and makes the computation.
            deadline_s: Seconds in all; see `deadline_s`.
        """
        seconds = self.deadline_s(deadline_s)

        async def drive() -> ExecutionReport:
            return cast("ExecutionReport", await make(self.load(registered)))

        async with self.admission(registered).slot(seconds):
            try:
                return await self.hosts.run(registered.name, execution_id, drive, deadline_s=seconds)
            except CutOff:
                records = await self.asked(lambda: list(self.store.read(execution_id)))
                if not records or not status_of(records).is_over:
                    raise
                return report_of(records)
