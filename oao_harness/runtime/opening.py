"""Makes the `Run` that an agent is driven in: a new one, one that goes on, or a named part of the run around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pluggy

from oao_harness.errors import ConfigError, FencedError
from oao_harness.journal.branching import new_id
from oao_harness.journal.doubts import doubts_of, is_said, is_suspended
from oao_harness.journal.leases import keep, take
from oao_harness.journal.questions import Questions, principal_from_json
from oao_harness.journal.writer import Tap, Writer
from oao_harness.runtime import context
from oao_harness.runtime.budget import Budget
from oao_harness.runtime.catalog import Catalog
from oao_harness.runtime.dispatch import Hooks
from oao_harness.runtime.fingerprint import version_of_policies
from oao_harness.runtime.limits import NamedLimits
from oao_harness.runtime.nesting import call_of, open_parent
from oao_harness.runtime.plain import as_json
from oao_harness.runtime.requeuing import Retries
from oao_harness.runtime.resuming import decode_task, reopen, reopen_nested, require_same_code, resumable
from oao_harness.runtime.run import Run
from oao_harness.runtime.shared_budget import SharedBudget
from oao_hookspecs import Clock, Json, Principal, Record, Store, tenant_of

__all__ = ["Opener", "Place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A named part of a run, for example a node of a graph: a nested run that its outer one knows by name."""

    node: str
    """Its name, unique in the outer run."""
    execution_id: str
    begun: bool = False
    """True where the part has a journal already, and goes on with it."""
    retries: Retries | None = None
    """How often it is tried again; None never."""


class Opener:
    """The part of the orchestrator that makes runs."""

    store: Store
    _clock: Clock
    _lease_s: float
    _manager: pluggy.PluginManager
    _policies: list[object]
    _hooks: Hooks
    _catalog: Catalog
    _limits: NamedLimits
    _budget: SharedBudget | None
    _has_store: bool

    def _open_store(self, url: str | None) -> Store:
        opened = self._manager.hook.oao_open_store(url=url or "memory:")
        if opened is None:
            raise ConfigError(f"no plugin opens the store {url!r}; known: memory:, sqlite:PATH, redis://HOST:PORT/DB")
        return cast("Store", opened)

    def _make_run(
        self,
        agent_name: str,
        task: object,
        execution_id: str | None,
        *,
        ambient: bool = False,
        principal: Principal | None = None,
        origin: Mapping[str, Json] | None = None,
    ) -> Run:
        parent = None if ambient else open_parent()
        parent_call = call_of(parent)
        earlier: str | None = None
        if parent is not None and parent.resumption is not None:
            earlier = parent.resumption.child(parent_call, agent_name, as_json(task))
        if execution_id is None and parent is not None and parent.playback is not None:
            execution_id = parent.playback.nested_id(parent.execution_id, [parent_call, agent_name, as_json(task)])
        run = self._bare_run(earlier or execution_id or new_id(), agent_name, task, parent, principal)
        if parent_call is not None:
            run.parent_call = parent_call
        if origin:
            run.origin = dict(origin)
        self._begin(run, begun=earlier is not None)
        return run

    def _make_part(self, place: Place, agent_name: str, task: object) -> Run:
        """Return the run of a named part of the run that this code belongs to."""
        run = self._bare_run(place.execution_id, agent_name, task, open_parent(), None)
        run.node, run.retries = place.node, place.retries
        self._begin(run, begun=place.begun)
        return run

    def _begin(self, run: Run, *, begun: bool) -> None:
        """Claim a run's journal, and go on with it where it has begun."""
        parent = run.parent
        if parent is not None and parent.resumption is None:
            run.replay, run.playback = parent.replay, parent.playback
        session = context.session()
        if session is None:
            run.label = run.lineage[-1].label_for(run.agent_name)
        tap = session.adopt(run) if session is not None else None
        self._claim(run, tap)
        if "request" in run.origin:
            _require_new(run)
        if run.playback is not None:
            run.follow(run.playback)
        if begun:
            reopen_nested(run)

    def _claim(
        self, run: Run, tap: Tap | None = None, *, read: bool = False, epoch: int = 0
    ) -> Sequence[Record] | None:
        """Become the one who writes a run's journal, until the run is closed; with an epoch it was claimed just now.

        Returns:
            Its records, where they are asked for and the store returns them with the claim.
        """
        # Whoever has the outer run has those nested in it: another lease on one of them is what a dead process left.
        is_ours = run.parent is not None and run.parent.resumption is not None
        at, ttl_s = (run.store, run.execution_id), self._lease_s
        records: Sequence[Record] | None = None
        if epoch:
            lease = keep(*at, epoch, run.lose, ttl_s=ttl_s)
        else:
            lease, records = take(*at, run.lose, ttl_s=ttl_s, by_force=is_ours, read=read)
        run.lease, run.writer = lease, Writer(*at, self._clock, tap, epoch=lease.epoch)
        return records

    def _bare_run(
        self, execution_id: str, agent_name: str, task: object, parent: Run | None, principal: Principal | None
    ) -> Run:
        # A nested run whose orchestrator has no store of its own is kept beside the run that it belongs to.
        store = parent.store if parent is not None and not self._has_store else self.store
        run = Run(
            execution_id=execution_id,
            agent_name=agent_name,
            task=task,
            hooks=self._hooks,
            clock=self._clock,
            store=store,
            parent=parent,
            principal=principal,
        )
        run.catalog = self._catalog
        if self._budget is not None:
            run.shared = self._budget
        run.budget = Budget(self._limits.of(run), self._catalog.price)
        return run

    def _resumed_run(
        self,
        execution_id: str,
        agent: object,
        tools: Sequence[object],
        task: object,
        *,
        allow_changes: bool,
        part: bool = False,
        known: Sequence[Record] | None = None,
        epoch: int = 0,
    ) -> Run:
        """Return a run as its journal has it; reopened, unless a question of it is open.

        With an epoch the run was claimed before its records were read, which are the known ones then.
        """
        records = resumable(self.store, execution_id, part=part, records=known)
        started = records[0]
        principal = principal_from_json(started.get("principal"))
        run = self._bare_run(execution_id, str(started["agent"]), decode_task(started, task), None, principal)
        run.tenant = tenant_of(started)
        forked = cast("Mapping[str, Json]", started.get("forked") or {})
        run.model_override = cast("str | None", forked.get("model"))
        run.questions, run.doubts = Questions(records), doubts_of(records)
        is_held = bool(run.questions.pending(self._clock.time())) and is_suspended(records)
        if is_held or is_said(records, run.doubts):
            return run
        if not allow_changes:
            require_same_code(records, agent, tools, policy=version_of_policies(self._policies))
        claimed = self._claim(run, read=True, epoch=epoch)
        try:
            # Read again: who answered or wrote until now has been heard, and who comes later is refused.
            reopen(run, records if epoch else resumable(self.store, execution_id, part=part, records=claimed))
        except BaseException:
            # Nobody closes a run that was never opened, and its lease would be renewed for ever.
            _let_go(run)
            raise
        return run


def _require_new(run: Run) -> None:
    """Refuse a run whose id has a journal: somebody else has done, or is doing, the same request.

    Looked for only where the id is made of a request. Without it the agent's code would run until its first record is
    refused.

    Raises:
        FencedError: It has one.
    """
    try:
        known = next(iter(run.store.read(run.execution_id)), None)
        if known is not None:
            raise FencedError(f"run {run.execution_id!r} was begun by another writer")
    except BaseException:
        _let_go(run)
        raise


def _let_go(run: Run) -> None:
    if run.lease is not None:
        run.lease.let_go(release=True)
