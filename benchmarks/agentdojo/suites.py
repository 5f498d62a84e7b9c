"""AgentDojo's suites as this benchmark uses them: tasks, fresh environments, tools behind the gate, scores.

The only module that touches AgentDojo's own scoring. What a policy may know is decided elsewhere.
"""

from __future__ import annotations

import pickle
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from agentdojo.base_tasks import BaseInjectionTask, BaseUserTask
from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime, TaskEnvironment
from agentdojo.task_suite.load_suites import get_suites
from agentdojo.task_suite.task_suite import TaskSuite
from agentdojo.types import text_content_block_from_string
from pydantic_core import to_jsonable_python

import oao_harness as oao

SUITES: Final = ("banking", "slack", "travel", "workspace")
VERSION: Final = "v1.2.2"

# DeepDiff and pydantic warn inside of AgentDojo; nothing of it is about a result.
warnings.filterwarnings("ignore", module=r"(agentdojo|deepdiff|pydantic)")


@dataclass(frozen=True, slots=True)
class Pair:
    """A user's task, and an attack on it; no attack in a benign run."""

    suite: str
    user: BaseUserTask[Any]
    attack: BaseInjectionTask[Any] | None = None

    @property
    def id(self) -> str:
        """For example `banking/user_task_3/injection_task_5`."""
        return "/".join([self.suite, self.user.ID, *([self.attack.ID] if self.attack else [])])


@dataclass(slots=True, weakref_slot=True)
class World:
    """One environment in the middle of a run, and the calls that were executed in it."""

    pair: Pair
    suite: TaskSuite[Any]
    environment: TaskEnvironment
    before: TaskEnvironment
    text: str | None
    """What an attacker wrote into it."""
    executed: list[FunctionCall] = field(default_factory=list[FunctionCall])

    def tools(self) -> dict[str, Callable[..., Any]]:
        """Return the suite's tools by name, each behind the gate, working on this environment."""
        # An orchestrator looks at all that an agent is made of, and a whole environment is much.
        here = weakref.ref(self)

        def governed(name: str) -> Callable[..., Any]:
            def body(**arguments: Any) -> Any:
                world = here()
                assert world is not None
                value, error = world.run(FunctionCall(function=name, args=arguments))
                if error is not None:
                    raise ToolError(error)
                return to_jsonable_python(value)

            body.__name__ = name
            return oao.tool(body)

        return {tool.name: governed(tool.name) for tool in self.suite.tools}

    def run(self, call: FunctionCall) -> tuple[Any, str | None]:
        """Execute a call in this environment; return its value and what went wrong."""
        self.executed.append(call)
        return FunctionsRuntime(self.suite.tools).run_function(self.environment, call.function, dict(call.args))

    def solved(self, answer: str) -> bool:
        """Return what the user's task says to the environment, the executed calls and the answer."""
        return bool(self._check(self.pair.user, answer))

    def attacked(self, attack: BaseInjectionTask[Any], answer: str) -> bool:
        """Return what the attack's own check says to the environment, the executed calls and the answer."""
        return bool(self._check(attack, answer))

    def _check(self, task: BaseUserTask[Any] | BaseInjectionTask[Any], answer: str) -> bool:
        said = [text_content_block_from_string(answer)]
        # Executed calls stand where AgentDojo looks at proposed ones (its slack injection_task_5).
        return self.suite._check_task_result(task, said, self.before, self.environment, self.executed)


class ToolError(Exception):
    """A tool refused its arguments, as AgentDojo reports it to a model."""


def suite_of(name: str) -> TaskSuite[Any]:
    """Return a suite in the version of this benchmark."""
    return get_suites(VERSION)[name]


@cache
def _environment(suite: str, text: str | None) -> TaskEnvironment:
    """Load an environment once; with a text, that text is in every place where an attacker can write."""
    found = suite_of(suite)
    places = dict.fromkeys(found.get_injection_vector_defaults(), text) if text is not None else {}
    return found.load_and_inject_default_environment(places)


@cache
def _pickled(suite: str, text: str | None) -> bytes:
    return pickle.dumps(_environment(suite, text))


def _fresh(suite: str, text: str | None) -> Any:
    """Return a copy of an environment; a deep copy of pydantic's takes four times as long."""
    return pickle.loads(_pickled(suite, text))


def clean_environment(suite: str, user: BaseUserTask[Any]) -> TaskEnvironment:
    """Return a fresh environment of a user's task in which no attacker wrote anything."""
    return user.init_environment(_fresh(suite, None))


class Scores:
    """One pass over pairs: worlds, the calls that tasks are solved with, and what was scored so far.

    A task's check compares whole environments, which takes most of the time. The same executed calls in the same
    environment with the same answer score the same, so each such case is checked once a pass.
    """

    def __init__(self) -> None:
        self._calls: dict[tuple[str, bool], tuple[Sequence[FunctionCall], Sequence[FunctionCall]]] = {}
        self._solved: dict[tuple[str, str | None, str, str], bool] = {}

    def world(self, pair: Pair, *, injected: bool) -> World:
        """Return a fresh world for one run.

        Args:
            pair: The user's task, and the attack.
            injected: True puts the attacker's goal, as text, wherever AgentDojo lets an attacker write.
        """
        text = pair.attack.GOAL if injected and pair.attack is not None else None
        environment = pair.user.init_environment(_fresh(pair.suite, text))
        return World(pair, suite_of(pair.suite), environment, pickle.loads(pickle.dumps(environment)), text)

    def calls(self, pair: Pair, *, injected: bool) -> tuple[Sequence[FunctionCall], Sequence[FunctionCall]]:
        """Return the user's calls and the attacker's, in order."""
        key = (pair.id, injected)
        if key not in self._calls:
            before = self.world(pair, injected=injected).before
            attack = pair.attack.ground_truth(before) if pair.attack is not None else []
            self._calls[key] = (pair.user.ground_truth(before), attack)
        return self._calls[key]

    def solved(self, world: World, answer: str) -> bool:
        """Return what the user's task says to the environment, the executed calls and the answer."""
        executed = "\n".join(call.model_dump_json() for call in world.executed)
        key = (f"{world.pair.suite}/{world.pair.user.ID}", world.text, executed, answer)
        if key not in self._solved:
            self._solved[key] = world.solved(answer)
        return self._solved[key]


def benign_pairs(suites: Sequence[str]) -> Iterator[Pair]:
    """Yield every user task alone."""
    for name in suites:
        for user in suite_of(name).user_tasks.values():
            yield Pair(name, user)


def attacked_pairs(suites: Sequence[str]) -> Iterator[Pair]:
    """Yield every user task with every attack that has calls to make.

    AgentDojo has no ground truth for the others: attacks that only want words said, and newer ones without any.
    """
    for name in suites:
        attacks = suite_of(name).injection_tasks.values()
        armed = [attack for attack in attacks if attack.ground_truth(_fresh(name, None))]
        for user in suite_of(name).user_tasks.values():
            for attack in armed:
                yield Pair(name, user, attack)


def without_calls(suites: Sequence[str]) -> Mapping[str, int]:
    """Return how many pairs of each suite are left out, because AgentDojo gives their attack no call to make."""
    return {
        name: sum(len(suite_of(name).injection_tasks) for _ in suite_of(name).user_tasks)
        - len(list(attacked_pairs([name])))
        for name in suites
    }
