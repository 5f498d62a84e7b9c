"""The search: runs programs under a policy until one breaks a rule, and makes that one small."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import Flaky, NoSuchExample

from oao_harness.runtime.orchestrator import Orchestrator
from pytest_oao.testing.fuzz.rules import FuzzRule
from pytest_oao.testing.fuzz.strategies import Attempt, attempts
from pytest_oao.testing.fuzz.vocabulary import Vocabulary, vocabulary_of
from pytest_oao.testing.program_rules import Rules
from pytest_oao.testing.program_trials import Trial

__all__ = ["Outcome", "search", "try_once"]

_MAX_OPS: Final = 6
_AGAIN: Final = 5
_SHRINKS_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _NoRules(Rules):
    """The policy that is searched is the only one."""

    def policies(self) -> list[object]:
        return []


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a search did, and what it found."""

    seed: int
    vocabulary: Vocabulary
    programs: int = 0
    seconds: float = 0.0
    ended: Counter[str] = field(default_factory=Counter[str])
    """How the runs of the programs ended: `SUCCESS`, `FAILED`, `SUSPENDED`."""
    attempt: Attempt | None = None
    """The program that breaks a rule; None where none was found."""
    trial: Trial | None = None
    """What it did."""
    rule: FuzzRule | None = None
    """The rule that it breaks."""
    how: str = ""
    again: int = 0
    """In how many of `tries` it broke the rule again."""
    tries: int = _AGAIN


class _TimeIsUp(BaseException):
    """Ends Hypothesis."""


def try_once(attempt: Attempt, policies: Sequence[object]) -> Trial:
    """Run a program under policies, and nothing else."""
    rules = _NoRules()
    trial = Trial(attempt.program, rules, inner_rules=rules, is_async=attempt.is_async, policies=policies)
    trial.run()
    return trial


class _Search:
    def __init__(
        self,
        policies: Sequence[object],
        rules: Sequence[FuzzRule],
        outcome: Outcome,
        seconds: float,
        tell: Callable[[int], None],
    ) -> None:
        self._policies, self._rules, self._outcome, self._tell = policies, rules, outcome, tell
        self._began = time.monotonic()
        self._until = self._began + seconds

    def broken(self, attempt: Attempt) -> tuple[FuzzRule, str, Trial] | None:
        """Return which rule a program breaks, and how."""
        trial = try_once(attempt, self._policies)
        self._outcome.ended[trial.report.status] += 1
        for rule in self._rules:
            how = rule.broken_by(trial)
            if how is not None:
                return rule, how, trial
        return None

    def condition(self, attempt: Attempt) -> bool:
        """Return True where a program breaks a rule; keep the smallest that does."""
        outcome = self._outcome
        if time.monotonic() > self._until:
            raise _TimeIsUp
        outcome.programs += 1
        self._tell(outcome.programs)
        found = self.broken(attempt)
        if found is None:
            return False
        if outcome.attempt is None:
            # From now on it is only made smaller.
            self._until = time.monotonic() + _SHRINKS_S
        if outcome.attempt is None or _size(attempt) <= _size(outcome.attempt):
            outcome.attempt = attempt
            outcome.rule, outcome.how, outcome.trial = found
        return True

    def end(self) -> None:
        """Try what was found again: what depends on chance is said to."""
        outcome = self._outcome
        if outcome.attempt is not None:
            outcome.again = sum(self.broken(outcome.attempt) is not None for _ in range(outcome.tries))
        outcome.seconds = time.monotonic() - self._began


def search(
    policies: Sequence[object | str],
    rules: Sequence[FuzzRule],
    *,
    tools: Sequence[str] = (),
    examples: int = 1000,
    seconds: float = 60.0,
    seed: int = 0,
    tell: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Search for a program that breaks a rule although policies are in force.

    Args:
        policies: As for `Orchestrator`.
        rules: What must hold.
        tools: The only tools there are; see `vocabulary_of`.
        examples: How many programs are tried at most, before one is found.
        seconds: For how long; making what is found smaller takes up to ten more.
        seed: Equal seeds try equal programs.
        tell: Hears how many were tried.

    Raises:
        ConfigError: A policy is wrong.
    """
    # Made once, as objects: a policy holds no state of a run.
    objects = Orchestrator(list(policies)).policies
    outcome = Outcome(seed=seed, vocabulary=vocabulary_of(objects, rules, tools))
    one = _Search(objects, rules, outcome, seconds, tell)
    most = max((rule.most for rule in rules), default=0)
    config = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example),
    )
    strategy = attempts(outcome.vocabulary, most=min(most, 50), max_ops=_MAX_OPS)
    # What was found is in the outcome, also where Hypothesis could not make it happen twice.
    with suppress(NoSuchExample, Flaky, _TimeIsUp):
        find(strategy, one.condition, settings=config, random=random.Random(seed))  # noqa: S311 - no secret
    one.end()
    return outcome


def _size(attempt: Attempt) -> tuple[int, bool, int]:
    return len(attempt.program.ops), attempt.is_async, len(repr(attempt.program))
