"""The rows of the table: for each configuration, which policies judge a run of a user's task.

Policies are made from the user's task and from files; nothing here is handed an attack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from agentdojo.base_tasks import BaseUserTask

from oao_harness.policy.file import FilePolicy, load_policy

from . import grants
from .suites import clean_environment, suite_of

FOLDER: Final = Path(__file__).parent / "policies"


@dataclass(frozen=True, slots=True)
class Configuration:
    """One row."""

    name: str
    says: str
    policies: Callable[[str, BaseUserTask[Any]], Sequence[object]]
    """Suite and user task to policies."""
    asks: bool = False
    """True holds what the policies refuse for a person, who knows what they asked the agent to do."""
    reads: bool = False
    """True where the policies look at what tools return, so that the attacker's text can matter to them."""


@cache
def general_policy(suite: str) -> FilePolicy:
    """Return the hand-written policy of a suite."""
    return load_policy(FOLDER / f"{suite}.toml")


@cache
def _parameters(suite: str) -> Mapping[str, Sequence[str]]:
    return {tool.name: list(tool.parameters.model_fields) for tool in suite_of(suite).tools}


@cache
def reading_tools(suite: str) -> Sequence[str]:
    """Return the tools that the policy of a suite says only read."""
    policy = general_policy(suite)
    return [tool.name for tool in suite_of(suite).tools if policy.rules.fact(tool.name, "access") == "read"]


def grant_text(suite: str, task: BaseUserTask[Any]) -> str:
    """Return the grant of a user's task as the text of a policy file."""
    calls = grants.granted_calls(task, clean_environment(suite, task))
    return grants.least_privilege(calls, _parameters(suite), reading_tools(suite), f"{suite}.toml")


def _none(_suite: str, _task: BaseUserTask[Any]) -> Sequence[object]:
    return []


@cache
def _allow_list(suite: str, task: BaseUserTask[Any]) -> Sequence[object]:
    return [FilePolicy.from_text(grants.allow_list(grants.granted_calls(task, clean_environment(suite, task))))]


@cache
def _sinks(suite: str, task: BaseUserTask[Any]) -> Sequence[object]:
    calls = grants.granted_calls(task, clean_environment(suite, task))
    return [FilePolicy.from_text(grants.sink_arguments(calls, _parameters(suite)))]


def _general(suite: str, _task: BaseUserTask[Any]) -> Sequence[object]:
    return [general_policy(suite)]


@cache
def _ours(suite: str, task: BaseUserTask[Any]) -> Sequence[object]:
    return [FilePolicy.from_text(grant_text(suite, task), str(FOLDER / "grant.toml"))]


CONFIGURATIONS: Final = (
    Configuration("none", "no policy", _none),
    Configuration("allow-list", "the tools of the task (oracle)", _allow_list),
    Configuration("+ sink arguments", "and where things go (oracle)", _sinks),
    Configuration("general rules", "one file per suite, no oracle", _general, reads=True),
    Configuration("general rules, ask", "the same, but a person is asked", _general, asks=True, reads=True),
    Configuration("ours", "general rules and the task's grant (oracle)", _ours, reads=True),
    Configuration("ours, ask", "the same, but a person is asked", _ours, asks=True, reads=True),
)
