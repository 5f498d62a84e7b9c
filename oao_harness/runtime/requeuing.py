"""When a run that failed is tried again: how often, after which errors, how long it waits, and what is made anew."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from oao_harness.errors import ConfigError, RunSuspended
from oao_harness.journal.codec import error_line
from oao_harness.journal.doubts import is_unsafe
from oao_harness.runtime.retry import is_transient
from oao_harness.runtime.run import Run
from oao_hookspecs import Json, Record

__all__ = ["Requeued", "Retries", "put_down", "requeued"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a run that failed is tried again. A run that a policy stopped, or that was cancelled, never is.

    Raises:
        ConfigError: A number is out of range.
    """

    times: int = 3
    """Tries after the first one, >= 0."""
    first_s: float = 1.0
    """Seconds before the second try; twice as many before each further one."""
    most_s: float = 60.0
    """Seconds at most."""
    transient_only: bool = True
    """True: only after errors that the same try may not meet a moment later, such as a lost connection or a 503."""
    then_dead: bool = False
    """True makes a run a dead letter that failed too often: it goes on when somebody says so. False: it has failed."""

    def __post_init__(self) -> None:
        if isinstance(self.times, bool) or not 0 <= self.times <= 1000:
            raise ConfigError(f"retries: times={self.times!r}: give a whole number from 0 to 1000")
        if not 0 <= self.first_s <= self.most_s <= 86400 * 365:
            raise ConfigError(
                f"retries: first_s={self.first_s!r}, most_s={self.most_s!r}: give seconds, 0 <= first_s <= most_s"
            )

    def delay_s(self, tried: int) -> float:
        """Return the seconds to wait after a number of tries: exponential, a random half of it taken off at most.

        Args:
            tried: Tries so far, >= 1.
        """
        whole = min(self.most_s, self.first_s * 2.0 ** min(tried - 1, 20))
        # Many that failed together must not come back together.
        return whole * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """That a run is tried again, as its journal says it in `run.queued`."""

    reason: str
    attempt: int | None
    """The try that comes, from 2; None where it did not fail."""
    delay_s: float = 0.0
    again: Sequence[int] = ()
    """Calls whose outcome does not count: they are made again, with the idempotency key that they had."""
    dead: bool = False
    """True where it waits until somebody says that it may be tried again."""

    def fields(self, now: float) -> dict[str, Json]:
        """Return the fields of the record.

        Args:
            now: Unix seconds.
        """
        fields: dict[str, Json] = {"reason": self.reason, "again": list(self.again)}
        if self.dead:
            return {**fields, "approvals": [], "dead": True}
        fields["not_before"] = now + self.delay_s
        return fields if self.attempt is None else {**fields, "attempt": self.attempt}


def requeued(run: Run, error: BaseException) -> Requeued | None:
    """Return how a run whose agent failed goes on, or None where it is not tried again.

    Args:
        run: The run; it says how often it may be.
        error: What the agent raised.
    """
    retries = run.retries
    is_replay = run.replay is not None and run.resumption is None
    if retries is None or not isinstance(error, Exception) or is_replay:
        return None
    if retries.transient_only and not is_transient(error):
        return None
    records = list(run.store.read(run.execution_id))
    tried = _tries(records)
    is_last = tried > retries.times
    if is_last and not retries.then_dead:
        return None
    again = _failed_at_the_end(records)
    if isinstance(again, str):
        run.note_ungoverned(f"it is not tried again: tool {again} failed and may have happened; declare its effect")
        return None
    reason = error_line(error)
    if is_last:
        return Requeued(reason=f"dead letter: tried {tried} times: {reason}", attempt=None, again=again, dead=True)
    return Requeued(reason=reason, attempt=tried + 1, delay_s=retries.delay_s(tried), again=again)


def put_down(run: Run, how: Requeued) -> None:
    """Halt a run so that it goes on later, maybe at another worker.

    Args:
        run: The run.
        how: What its journal says of that.
    """
    run.requeued = how
    run.latch(RunSuspended(how.reason, rule="stopped", plugin="oao"))


def _tries(records: Sequence[Record]) -> int:
    """Return how often a run was tried since somebody said that it may be."""
    tried = 1
    for record in records:
        if record["type"] == "run.queued":
            tried = 1 if "by" in record else tried + ("attempt" in record)
    return tried


def _failed_at_the_end(records: Sequence[Record]) -> list[int] | str:
    """Return the calls at the end of a run that failed; the name of a tool that may not be called again."""
    calls = {cast("int", record["n"]): record for record in records if record["type"] == "call"}
    ends = {cast("int", record["n"]): record for record in records if record["type"] == "outcome"}
    found: list[int] = []
    for n in sorted(calls, reverse=True):
        if n not in ends or "error" not in ends[n]:
            break
        if is_unsafe(calls[n]):
            return str(calls[n]["name"])
        found.append(n)
    return found
