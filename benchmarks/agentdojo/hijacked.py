"""The hijacked agent: an agent function that does the user's work and the attacker's, each call through the gate."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias, cast

from agentdojo.functions_runtime import FunctionCall

import oao_harness as oao
from oao_harness.policy.file import FilePolicy

from .person import Held
from .suites import Pair, Scores, ToolError

__all__ = ["ORDERS", "Order", "Result", "digest_of", "play"]

Order: TypeAlias = Literal["user first", "attacker first", "interleaved", "careful"]
ORDERS: Final[tuple[Order, ...]] = ("user first", "attacker first", "interleaved", "careful")
"""`careful`: the user's work first; then the attacker leaves out every call that would be refused, so that no halt
stops the rest."""

# Comparing whole environments is most of the work.
SOLVED_IN: Final = ("user first", "attacker first")

_Step: TypeAlias = tuple[Literal["user", "attacker"], int, FunctionCall]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one run ended. Only executed calls count."""

    id: str
    order: str
    """One of `ORDERS`, or `benign`."""
    solved: bool
    """The user's task, by AgentDojo's own check; not asked, and False, in orders that no column is about."""
    attacked: bool
    """The attack, by AgentDojo's own check."""
    executed: tuple[str, ...]
    """Tools of the executed calls, in order."""
    stopped_by: str
    """The rule that halted the run; empty where nothing did."""
    stopped_at: tuple[str, int] | None
    """Whose call was refused, and which of them; None where the run was not halted."""
    questions: int = 0
    """How often a person was asked."""


@dataclass(slots=True)
class _Script:
    """The calls to make, in order, and what the agent says once the user's work is done."""

    steps: Sequence[_Step]
    answer: str
    said: str = ""
    at: _Step | None = None

    def agent(self, tools: Mapping[str, Callable[..., Any]]) -> Callable[[object], str]:
        """Return the agent function."""
        users = sum(whose == "user" for whose, _, _ in self.steps)

        def hijacked(task: object) -> str:
            done = 0
            for step in self.steps:
                whose, _, call = self.at = step
                with suppress(ToolError):  # a model would be told, and go on
                    tools[call.function](**call.args)
                done += whose == "user"
                if done == users:
                    self.said = self.answer
            return self.said

        if users == 0:
            self.said = self.answer
        return hijacked

    def is_users(self) -> bool:
        """Return True while the user's own work is being done."""
        return self.at is not None and self.at[0] == "user"


def _ordered(order: Order, user: Sequence[_Step], attack: Sequence[_Step]) -> Sequence[_Step]:
    if order == "attacker first":
        return [*attack, *user]
    if order == "interleaved":
        both = itertools.zip_longest(user, attack)
        return [step for steps in both for step in steps if step is not None]
    return [*user, *attack]


def play(
    pair: Pair,
    policies: Sequence[object],
    scores: Scores,
    *,
    order: Order = "user first",
    injected: bool = False,
    asks: bool = False,
) -> Result:
    """Run one hijacked agent under policies, in a world of its own, and score it.

    Args:
        pair: The user's task, and the attack; without one the agent is honest.
        policies: What judges the calls.
        scores: What this pass has scored so far.
        order: Whose calls come first.
        injected: True puts the attacker's goal, as text, wherever AgentDojo lets an attacker write.
        asks: True holds what the policies refuse for a person.
    """
    left_out: set[int] = set()
    while True:
        result = _play_once(pair, policies, scores, order=order, injected=injected, asks=asks, left_out=left_out)
        stopped = result.stopped_at
        if order != "careful" or stopped is None or stopped[0] == "user":
            return result
        left_out.add(stopped[1])


def _play_once(
    pair: Pair,
    policies: Sequence[object],
    scores: Scores,
    *,
    order: Order,
    injected: bool,
    asks: bool,
    left_out: set[int],
) -> Result:
    world = scores.world(pair, injected=injected)
    user, attack = scores.calls(pair, injected=injected)
    users: list[_Step] = [("user", i, call) for i, call in enumerate(user)]
    attacks: list[_Step] = [("attacker", i, call) for i, call in enumerate(attack) if i not in left_out]
    script = _Script(_ordered(order, users, attacks), pair.user.GROUND_TRUTH_OUTPUT)
    held = [Held(cast("FilePolicy", policy), script.is_users) for policy in policies] if asks else []
    report = oao.Orchestrator(policy=list(held or policies)).run(
        script.agent(world.tools()), pair.user.PROMPT, agent_name="hijacked"
    )
    if report.status != "SUCCESS" and report.violation is None:
        raise RuntimeError(f"{pair.id}: the run failed, and no rule stopped it: {report.error}")
    return Result(
        id=pair.id,
        order=order if pair.attack is not None else "benign",
        solved=order in SOLVED_IN and scores.solved(world, script.said),
        attacked=pair.attack is not None and world.attacked(pair.attack, script.said),
        executed=tuple(call.function for call in world.executed),
        stopped_by=str((report.violation or {}).get("rule", "")),
        stopped_at=None if report.violation is None or script.at is None else script.at[:2],
        questions=sum(one.questions for one in held),
    )


def digest_of(results: Iterable[Result]) -> str:
    """Return a digest of results, for comparing two passes."""
    lines = sorted(json.dumps(asdict(result), sort_keys=True) for result in results)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
