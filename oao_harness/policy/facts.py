"""What a condition may read of a call and its run, and only as much of it as the conditions ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_jsonable_python

from oao_hookspecs import Call, Json, ModelCall, Principal, RunView, ToolCall

__all__ = ["CALL_FIELDS", "NOBODY", "RUN_FIELDS", "VARIABLES", "Needs", "as_json", "as_text", "variables_of"]

VARIABLES: Final = ("args", "call", "run", "result", "result_text")
NOBODY: Final = Principal(id="")


def as_json(value: object) -> Json:
    """Return any value as JSON; what has no such form as its text."""
    if isinstance(value, str) or value is None:
        return value
    try:
        found: Json = to_jsonable_python(value, fallback=str)
    except Exception:  # noqa: BLE001 - a user's own object may resist
        found = str(type(value))
    return found


def as_text(value: object) -> str:
    """Return any value as text: a text as it is, nothing for None, else its JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(as_json(value), ensure_ascii=False)


def _principal(run: RunView) -> Json:
    who = run.principal or NOBODY
    return {"id": who.id, "roles": list(who.roles), "tenant": who.tenant}


_RUN: Final[Mapping[str, Callable[[RunView, Iterable[str]], Json]]] = {
    "agent": lambda run, _: run.agent_name,
    "task": lambda run, _: as_text(run.task),
    "steps": lambda run, _: run.steps,
    "model_calls": lambda run, _: run.model_calls,
    "tool_calls": lambda run, _: run.tool_calls,
    "tokens": lambda run, _: run.total_tokens,
    "cost_usd": lambda run, _: run.cost_usd,
    "tool_usage": lambda run, _: dict(run.tool_usage),
    "labels": lambda _, labels: sorted(labels),
    "principal": lambda run, _: _principal(run),
}
RUN_FIELDS: Final = tuple(_RUN)

_CALL: Final[Mapping[str, Callable[[Call], Json]]] = {
    "name": lambda call: call.name,
    "kind": lambda call: call.kind,
    "model": lambda call: call.name if isinstance(call, ModelCall) else "",
    "effect": lambda call: (call.effect or "") if isinstance(call, ToolCall) else "",
    "access": lambda call: (call.access or "") if isinstance(call, ToolCall) else "",
    "scope": lambda call: call.scope,
    "call_id": lambda call: call.call_id or "",
}
CALL_FIELDS: Final = tuple(_CALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What conditions read. For each variable the fields, `None` for all of it; no entry where it is not read."""

    fields: Mapping[str, frozenset[str] | None]

    @classmethod
    def together(cls, all: Iterable[Needs]) -> Needs:
        """Return what several conditions read."""
        fields: dict[str, frozenset[str] | None] = {}
        for needs in all:
            for variable, wanted in needs.fields.items():
                known = fields.get(variable, frozenset())
                fields[variable] = None if known is None or wanted is None else known | wanted
        return cls(fields=fields)


def variables_of(needs: Needs, call: Call, run: RunView, labels: Iterable[str], result: Json = None) -> dict[str, Any]:
    """Return the variables of a condition.

    Args:
        needs: What is read; the rest is left out, because converting it costs more than judging it.
        call: The call; the arguments of a model call are its parameters.
        run: Its run.
        labels: Of the run, so far.
        result: What the call returned, where it has ended.
    """
    found: dict[str, Any] = {}
    for variable, wanted in needs.fields.items():
        if variable == "args":
            args = call.params if isinstance(call, ModelCall) else call.arguments
            found["args"] = args if wanted is None else {key: args[key] for key in wanted if key in args}
        elif variable == "run":
            found["run"] = {key: _RUN[key](run, labels) for key in (RUN_FIELDS if wanted is None else wanted)}
        elif variable == "call":
            found["call"] = {key: _CALL[key](call) for key in (CALL_FIELDS if wanted is None else wanted)}
        elif variable == "result":
            found["result"] = result
        elif variable == "result_text":
            found["result_text"] = as_text(result)
    return found
