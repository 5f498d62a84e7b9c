"""Grants: the least privilege for one user task, as the text of a policy file.

An oracle: it is read off AgentDojo's own solution of the user's task, as a perfect planner would have written it
from the task before the agent saw any data. It is given nothing of the attack, so it cannot know any: the user's task,
and an environment in which no attacker wrote.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from agentdojo.base_tasks import BaseUserTask
from agentdojo.functions_runtime import FunctionCall, TaskEnvironment

__all__ = ["allow_list", "granted_calls", "least_privilege", "sink_arguments"]

# Where something goes, or whom it reaches.
SINKS: Final = frozenset({
    "recipient", "recipients", "cc", "bcc", "participants", "email", "user", "user_email", "channel", "url", "password",
})  # fmt: skip
# What a model words by itself: no oracle can say it in advance.
FREE_TEXT: Final = frozenset({"body", "content", "description", "subject"})


def granted_calls(task: BaseUserTask[Any], environment: TaskEnvironment) -> Sequence[FunctionCall]:
    """Return the calls that solve a user's task.

    Args:
        task: The user's task.
        environment: Its environment before the run, as it is where no attacker wrote.
    """
    return task.ground_truth(environment)


def allow_list(calls: Sequence[FunctionCall]) -> str:
    """Return a policy that allows the tools of these calls, and no other."""
    return _toml([("tools", {"allow": sorted({call.function for call in calls})})])


def sink_arguments(calls: Sequence[FunctionCall], parameters: Mapping[str, Sequence[str]]) -> str:
    """Return the allow-list, with every sink argument bound to the values that these calls have.

    Args:
        calls: The calls that solve the task.
        parameters: The parameters of every tool.
    """
    bound = _bound(calls, {tool: [name for name in names if name in SINKS] for tool, names in parameters.items()})
    return _toml([("tools", {"allow": sorted({call.function for call in calls})}), *bound])


def least_privilege(
    calls: Sequence[FunctionCall], parameters: Mapping[str, Sequence[str]], reading: Iterable[str], extends: str
) -> str:
    """Return what these calls need on top of a general policy.

    Reading is free. Of the tools that write only those of these calls may be called, as often as these calls do,
    with every argument but free text bound to the values that they have.

    Args:
        calls: The calls that solve the task.
        parameters: The parameters of every tool.
        reading: Names or globs of the tools that only read.
        extends: File of the general policy.
    """
    reading = list(reading)
    writes = [call for call in calls if call.function not in reading]
    counts = Counter(call.function for call in writes)
    sinks = {tool: [name for name in names if name not in FREE_TEXT] for tool, names in parameters.items()}
    return "\n".join(
        [
            f"extends = {_value(extends)}",
            "",
            _toml(
                [
                    ("tools", {"allow": [*reading, *sorted(counts)]}),
                    *(
                        ("[sequence]", {"name": f"granted-calls-of-{tool}", "at_most": count, "of": [tool]})
                        for tool, count in sorted(counts.items())
                    ),
                    *_bound(writes, sinks),
                ]
            ),
        ]
    )


def _bound(
    calls: Sequence[FunctionCall], sinks: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the tables that bind arguments. One that no call gives a value is bound to nothing."""
    tools = sorted({call.function for call in calls if sinks.get(call.function)})
    lists: dict[str, object] = {}
    for tool in tools:
        for name in sinks[tool]:
            values = [call.args.get(name) for call in calls if call.function == tool]
            lists[f"{tool}.{name}"] = list(dict.fromkeys(leaf for value in values for leaf in _leaves(value)))
    if lists:
        yield "lists", lists
    for tool in tools:
        sources = {name: [f"list:{tool}.{name}"] for name in sinks[tool]}
        yield "[rule]", {"name": f"granted-{tool}", "tools": [tool], "values_from": sources}


def _leaves(value: object) -> Iterator[str | int | float]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value


def _toml(tables: Iterable[tuple[str, Mapping[str, object]]]) -> str:
    lines: list[str] = []
    for name, table in tables:
        lines += [f"[{name}]", *(f"{_key(key)} = {_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _key(key: object) -> str:
    text = str(key)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _value(text)


def _value(value: object) -> str:
    """Write a value as TOML: its basic strings are those of JSON."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
