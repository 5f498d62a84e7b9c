"""Policies as the service shows them: which there are, what stored runs exercised, what another would change."""

from __future__ import annotations

import logging
import threading
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from oao_harness.errors import ConfigError, RecordingError
from oao_harness.journal.histories import History, history_of_records
from oao_harness.journal.nesting import tape_of
from oao_harness.plugins.manager import make_manager
from oao_harness.policy.coverage import Coverage, coverage_of
from oao_harness.policy.diff import JudgedRun, PolicyDiff
from oao_harness.policy.file import FilePolicy
from oao_harness.runtime.preparing import prepare
from oao_harness.runtime.rejudging import NOT_JUDGED, Rejudge
from oao_harness.server.callers import Caller
from oao_harness.server.histories import Histories
from oao_harness.server.refusals import InvalidRequest, TooBusy
from oao_hookspecs import Json, Record

__all__ = ["Judgements", "PolicyInfo"]

_log: Final = logging.getLogger(__name__)

_BASES: Final = ("off", "standard", "strict")
_MOST_AT_ONCE: Final = 2
"""Judgements of many runs at once: each takes a thread and much computing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyInfo:
    """A policy that runs here may be under."""

    name: str
    agents: Sequence[str]
    """Whose runs it always holds for."""
    is_file: bool
    """True where it has rules that stored runs can be laid beside."""
    rules: int = 0


class Judgements(Histories):
    """The part of the service that is about policies."""

    _judging: threading.BoundedSemaphore | None = None

    async def policies(self, _caller: Caller) -> list[PolicyInfo]:
        """Return the policies that a request may name."""

        def read() -> list[PolicyInfo]:
            found: list[PolicyInfo] = []
            for name in self.policy_names:
                agents = [one.name for one in self.agents if name in one.policies()]
                try:
                    policy = self._resolved(name)
                except ConfigError:
                    policy = None
                is_file = isinstance(policy, FilePolicy)
                rules = len(policy.rules.items) if isinstance(policy, FilePolicy) else 0
                found.append(PolicyInfo(name=name, agents=agents, is_file=is_file, rules=rules))
            return found

        return await self.asked(read)

    def _resolved(self, name: str) -> object:
        self.require_policy(name)
        return make_manager([name])[1][0]

    async def coverage(self, caller: Caller, policy: str, limit: int = 200) -> Coverage:
        """Return what the newest stored runs have exercised of a policy file.

        Args:
            caller: Who asks.
            policy: One of the names in `policies`.
            limit: How many runs at most.

        Raises:
            InvalidRequest: There is no such policy, or it is no file with rules.
        """

        def read() -> Coverage:
            found = self._resolved(policy)
            if not isinstance(found, FilePolicy):
                raise InvalidRequest(f"policy {policy!r:.120} is no policy file: it has no rules to cover")
            with self._one_of_few():
                return coverage_of(found, self._journals(caller, limit))

        return await self.asked(read)

    def _journals(self, caller: Caller, limit: int) -> Iterator[list[Record]]:
        for row in self.store.runs(limit, query=self.query_for(caller, outer=False)):
            yield list(self.store.read(row.execution_id))

    async def policy_diff(
        self,
        caller: Caller,
        before: Sequence[str],
        after: Sequence[str] | None = None,
        document: str | None = None,
        *,
        limit: int = 200,
        agent: str = "",
    ) -> dict[str, Json]:
        """Return what other policies would change for the newest stored runs; nothing is run, no code is imported.

        Args:
            caller: Who asks.
            before: The policies as they are, by name.
            after: The policies as they would be, by name.
            document: A policy file as they would be, as text.
            limit: How many runs at most.
            agent: Only runs of this agent.

        Raises:
            InvalidRequest: A policy is unknown, or the document is wrong.
        """

        def read() -> dict[str, Json]:
            for name in (*before, *(after or ())):
                self.require_policy(name)
            then: list[object] = list(after or ())
            if document is not None:
                then.append(_policy_of(document))
            if not then or not before:
                raise InvalidRequest("name the policies as they are and as they would be, or give a document")
            judges = [Rejudge(list(before)), Rejudge(then)]
            names = [*(after or ()), *(["document"] if document is not None else [])]
            diff = PolicyDiff(" + ".join(before), " + ".join(names))
            unread: Counter[str] = Counter()
            with self._one_of_few():
                for row in self.store.runs(limit, query=self.query_for(caller, agent_name=agent, outer=True)):
                    self._judge(row.execution_id, judges, diff, unread)
            limits = [judge.limits for judge in judges]
            not_judged: list[Json] = [name for name in NOT_JUDGED if any(getattr(one, name) for one in limits)]
            return {**diff.to_json(), "not_judged": not_judged, "unread": cast("Json", dict(unread))}

        return await self.asked(read)

    def _judge(self, execution_id: str, judges: Sequence[Rejudge], diff: PolicyDiff, unread: Counter[str]) -> None:
        try:
            history = self._history(execution_id)
            prepared = prepare(history, judges)
            before, after = (judge.judge(prepared, which) for which, judge in enumerate(judges))
        except (RecordingError, RecursionError) as error:
            unread[f"{type(error).__name__}: {error}"[:200]] += 1
            return
        diff.add(
            JudgedRun(
                name=history.name,
                agent=history.agent,
                calls=history.calls,
                before=before,
                after=after,
                recording=history.recording,
            )
        )

    def _history(self, execution_id: str) -> History:
        try:
            tape = tape_of(execution_id, lambda one: list(self.store.read(one)))
        except (KeyError, TypeError, ValueError) as error:
            raise RecordingError(f"run {execution_id}: its journal is damaged: {error}") from error
        return history_of_records(tape, execution_id)

    def _one_of_few(self) -> _Few:
        found = self._judging = self._judging or threading.BoundedSemaphore(_MOST_AT_ONCE)
        return _Few(found)


class _Few:
    """One of a few places, or none."""

    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self._places = places

    def __enter__(self) -> None:
        if not self._places.acquire(blocking=False):
            raise TooBusy("other policies are being judged; come again", retry_after_s=2.0)

    def __exit__(self, *_: object) -> None:
        self._places.release()


def _policy_of(document: str) -> FilePolicy:
    """Return the policy that a text describes; it may extend a bundled policy, never a file.

    Raises:
        InvalidRequest: It is no policy.
    """
    try:
        found = tomllib.loads(document)
        if found.get("extends") not in {None, *_BASES}:
            raise InvalidRequest(f"document: extends names one of {', '.join(_BASES)} here, never a file")
        return FilePolicy.from_text(document, "document")
    except (ConfigError, tomllib.TOMLDecodeError, RecursionError, UnicodeError) as error:
        raise InvalidRequest(f"document: {error}") from error
