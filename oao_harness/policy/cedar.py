"""Cedar policies through `cedarpy`: who may do what. Anything but a clean Allow is a denial.

Cedar passes over a `forbid` whose condition fails and may then allow; here every diagnostic denies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cedarpy

from oao_harness.errors import ConfigError
from oao_harness.policy.facts import RUN_FIELDS, Needs, variables_of
from oao_hookspecs import Allow, Decision, Deny, Json, ModelCall, RunView, ToolCall, hookimpl

__all__ = ["CedarPolicy"]

# Its annotations are only partly known to a strict type checker.
_cedarpy: Final[Any] = cedarpy
_ACTIONS: Final = {"tool": "call_tool", "model": "call_model", "agent": "run_agent"}
_RESOURCES: Final = {"tool": "Tool", "model": "Model", "agent": "Agent"}
_RUN: Final = Needs(fields={"run": frozenset(RUN_FIELDS) - {"principal", "cost_usd", "tool_usage", "labels"}})


class CedarPolicy:
    """Judges by Cedar policies; what none of them permits is denied.

    The principal is `User::"id"` in `Role::"x"` for each of its roles, the action `Action::"call_tool"`,
    `Action::"call_model"` or `Action::"run_agent"`, the resource `Tool::"name"`, `Model::"name"` or `Agent::"name"`.
    The context is `args` (the call's arguments; null is left out, fractions are decimals, as far as Cedar has them) and
    `run` (agent, task, steps, model_calls, tool_calls, tokens, tenant). A run without a principal is denied.

    Args:
        policies: Cedar text, or the path of a file with it.
        entities: Further entities in Cedar's JSON form, for example groups of tools.
        schema: Cedar schema in its own or its JSON form; the policies are checked against it at once.
        name: How decisions call the policy.

    Raises:
        ConfigError: The policies, the entities or the schema are wrong, or the file cannot be read.
    """

    def __init__(
        self,
        policies: str | Path,
        entities: Sequence[Mapping[str, Json]] = (),
        schema: str | Mapping[str, Json] | None = None,
        *,
        name: str = "cedar",
    ) -> None:
        self.name = name
        text = _text_of(policies)
        self._given = {_identity(entity.get("uid")) for entity in entities}
        given: Any = json.dumps(schema) if isinstance(schema, Mapping) else schema
        try:
            self._policies: Any = _cedarpy.PolicySet.from_str(text)
            self._schema: Any = None if given is None else _schema_of(given)
            self._entities: Any = _cedarpy.Entities.from_json_str(json.dumps([dict(entity) for entity in entities]))
            checked: Any = None if given is None else _cedarpy.validate_policies(text, given)
        except Exception as error:
            raise ConfigError(f"policy {name!r}: no Cedar: {error}") from error
        if checked is not None and not checked.validation_passed:
            found = "; ".join(str(mistake.error) for mistake in checked.errors)
            raise ConfigError(f"policy {name!r}: it does not fit its schema: {found}")

    @hookimpl
    def oao_decide_run(self, run: RunView) -> Decision:
        """Judge whether the principal may run the agent."""
        return self._judge("agent", run.agent_name, {}, run)

    @hookimpl
    def oao_decide_model_call(self, call: ModelCall, run: RunView) -> Decision:
        """Judge a model call."""
        return self._judge("model", call.name, call.params, run)

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Decision:
        """Judge a tool call."""
        return self._judge("tool", call.name, call.arguments, run)

    def _judge(self, kind: str, name: str, arguments: Mapping[str, Json], run: RunView) -> Decision:
        who = run.principal
        what = f"{kind} {name}"
        if who is None:
            return Deny(rule="cedar", reason=f"{what}: the run has no principal, and nobody is permitted anything")
        user = {"type": "User", "id": who.id}
        roles = [{"type": "Role", "id": role} for role in who.roles]
        own: list[dict[str, Any]] = [
            {"uid": user, "attrs": {"tenant": who.tenant}, "parents": roles},
            *({"uid": role, "attrs": {}, "parents": []} for role in roles),
        ]
        about = ModelCall(name=name, messages=())
        shown = variables_of(_RUN, about, run, ())["run"]
        request: dict[str, Any] = {
            "principal": user,
            "action": {"type": "Action", "id": _ACTIONS[kind]},
            "resource": {"type": _RESOURCES[kind], "id": name},
            "context": {"args": _as_cedar(arguments), "run": {**shown, "tenant": who.tenant}},
        }
        # What the user describes himself is not described again: Cedar refuses doubles.
        missing = [one for one in own if _identity(one["uid"]) not in self._given]
        entities = self._entities.with_added_json_str(json.dumps(missing))
        answer: Any = _cedarpy.is_authorized(request, self._policies, entities, schema=self._schema)
        mistakes = [str(found) for found in answer.diagnostics.errors]
        if mistakes:
            reason = f"{what}: Cedar could not judge: {'; '.join(mistakes)}; an error is a denial"
            return Deny(rule="cedar-error", reason=reason)
        rule = ", ".join(str(found) for found in answer.diagnostics.reasons) or "cedar"
        if answer.decision == _cedarpy.Decision.Allow:
            return Allow(rule=rule)
        why = f"forbidden by {rule}" if rule != "cedar" else "nothing permits it"
        return Deny(rule=rule, reason=f"{what}, principal {who.id!r}: {why}")


def _identity(uid: object) -> str:
    return json.dumps(uid, sort_keys=True)


def _text_of(policies: str | Path) -> str:
    if isinstance(policies, str) and ("\n" in policies or ";" in policies):
        return policies
    try:
        return Path(policies).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy file {str(policies)!r} cannot be read: {error}; give a path or Cedar text"
        ) from error


def _schema_of(given: str) -> object:
    is_json = given.lstrip().startswith("{")
    return _cedarpy.Schema.from_json_str(given) if is_json else _cedarpy.Schema.from_str(given)


def _as_cedar(value: Json) -> Any:
    """Return a value as Cedar has it.

    Raises:
        ValueError: A key is one by which Cedar's JSON marks what is no record: the model must not write entities.
    """
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        written = repr(value)
        fits = re.fullmatch(r"-?\d+\.\d{1,4}", written) is not None
        return {"__extn": {"fn": "decimal", "arg": written}} if fits else written
    if isinstance(value, Mapping):
        if marks := {"__entity", "__extn", "__expr"} & value.keys():
            raise ValueError(f"argument {sorted(marks)[0]!r} has a meaning of its own in Cedar")
        return {key: _as_cedar(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_as_cedar(item) for item in value if item is not None]
    return value
