"""Rules that a generated program runs under: as a value that prints, as a policy, and as what they must come to.

`breaches` and `forbidden` count and judge by themselves, from the bodies that ran: they ask oao nothing.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, cast

from oao_hookspecs import (
    Allow,
    ApprovalRequest,
    Approve,
    Ask,
    Decision,
    Deny,
    Limits,
    ModelCall,
    Modify,
    Price,
    Principal,
    Reject,
    RunView,
    ToolCall,
    hookimpl,
)
from pytest_oao.testing.programs import Body

__all__ = ["PRICE", "Rules", "RulesPolicy", "breaches", "forbidden"]

PRICE: Final = Price(input_per_million=1000.0, output_per_million=2000.0)
"""Of both models: a tenth of a cent a token in, twice that out."""
_NANO: Final = 1_000_000_000
_PERSON: Final = Principal(id="tester", roles=("reviewer",))

Answer = Literal["approve", "edit", "reject", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Rules:
    """What a run may do. Names are those of tools and models."""

    limits: Limits = field(default_factory=Limits)
    deny: tuple[str, ...] = ()
    deny_values: tuple[str, ...] = ()
    """Arguments that no tool may get."""
    hold: tuple[str, ...] = ()
    """Held until somebody answers."""
    rewrite: tuple[str, ...] = ()
    """Tools whose argument becomes `safe`, by a policy that is asked after this one."""
    broken: tuple[str, ...] = ()
    """For these the policy fails, which must be a denial."""
    fails_by: Literal["raising", "nonsense", "halting"] = "raising"
    is_async: bool = False
    """True makes the policy answer by an awaitable."""
    answer: Answer = "nothing"
    """What the approver says at once; nothing suspends the run."""

    def __repr__(self) -> str:
        """Return what differs from rules that allow all."""
        given = [f"{one.name}={_shown(getattr(self, one.name))}" for one in fields(self) if _is_given(self, one)]
        return f"Rules({', '.join(given)})"

    def denies(self, kind: str, name: str, value: str) -> bool:
        """Return True where such a call must never happen, whoever is asked.

        Args:
            kind: `tool` or `model`.
            name: Of the tool or model.
            value: The tool's argument.
        """
        return name in (*self.deny, *self.broken) or (kind == "tool" and value in self.deny_values)

    def policies(self) -> list[object]:
        """Return new policy objects that say so."""
        found: list[object] = [RulesPolicy(self)]
        return [*found, _Rewriter(self)] if self.rewrite else found

    def approver(self, request: ApprovalRequest) -> Approve | Reject | None:
        """Answer a held call."""
        if self.answer == "approve":
            return Approve(by=_PERSON)
        if self.answer == "edit":
            return Approve(by=_PERSON, arguments={"value": "edited"} if request.kind == "tool" else None)
        return Reject(by=_PERSON) if self.answer == "reject" else None


def _is_given(value: object, one: Field[Any]) -> bool:
    default = one.default_factory() if one.default_factory is not MISSING else one.default
    return bool(getattr(value, one.name) != default)


def _shown(value: object) -> str:
    if not isinstance(value, Limits):
        return repr(value)
    given = [f"{one.name}={getattr(value, one.name)!r}" for one in fields(value) if _is_given(value, one)]
    return f"Limits({', '.join(given)})"


class RulesPolicy:
    """`Rules` as a policy.

    Args:
        rules: What it says.
    """

    name = "rules"

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def __repr__(self) -> str:
        """Return what the policy is made of: it is a part of the policy version."""
        return repr(self.rules)

    @hookimpl
    def oao_limits(self, run: RunView) -> Limits:
        """Name the limits."""
        return self.rules.limits

    @hookimpl
    def oao_price(self, call: ModelCall) -> Price:
        """Name the price of both models."""
        return PRICE

    @hookimpl
    def oao_decide_model_call(self, call: ModelCall, run: RunView) -> Decision | None | Awaitable[Decision | None]:
        """Judge a model call."""
        return self._answer(call.name, None)

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Decision | None | Awaitable[Decision | None]:
        """Judge a tool call."""
        return self._answer(call.name, call.arguments.get("value"))

    def _answer(self, name: str, value: object) -> Decision | None | Awaitable[Decision | None]:
        return self._later(name, value) if self.rules.is_async else self.decide(name, value)

    async def _later(self, name: str, value: object) -> Decision | None:
        return self.decide(name, value)

    def decide(self, name: str, value: object) -> Decision | None:
        """Judge a call by its name and, for a tool, its argument; None is no opinion."""
        rules = self.rules
        if name in rules.broken:
            return self._break(name)
        if name in rules.deny:
            return Deny(rule="deny", reason=f"{name} is not allowed")
        if value is not None and value in rules.deny_values:
            return Deny(rule="deny_values", reason=f"{value!r} is not allowed")
        if name in rules.hold:
            return Ask(rule="hold", reason=f"somebody must look at {name}")
        return Allow(rule="rules") if name.startswith("read_") else None

    def _break(self, name: str) -> Decision:
        if self.rules.fails_by == "raising":
            raise RuntimeError(f"the policy does not know {name}")
        if self.rules.fails_by == "halting":
            raise BaseException(name)  # noqa: TRY002 - what nobody catches by accident
        return cast("Decision", "perhaps")


class _Rewriter:
    """Changes the argument of some tools."""

    name = "rewriter"

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def __repr__(self) -> str:
        return f"_Rewriter({self._rules.rewrite})"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision | None:
        if call.name not in self._rules.rewrite or call.arguments.get("value") == "safe":
            return None
        return Modify(call=replace(call, arguments={"value": "safe"}), rule="rewrite")


def forbidden(rules: Sequence[Rules], kind: str, name: str, value: str) -> bool:
    """Return True where a call must not happen before a person who is not there has answered, or not at all.

    Args:
        rules: Those of the run and of the runs that it is nested in.
        kind: `tool` or `model`.
        name: Of the tool or model.
        value: The tool's argument.
    """
    if any(one.denies(kind, name, value) for one in rules):
        return True
    if not any(name in one.hold for one in rules):
        return False
    answers = {one.answer for one in rules}
    return "reject" in answers or not answers & {"approve", "edit"}


def breaches(limits: Limits, bodies: Iterable[Body]) -> list[str]:
    """Return which limits the bodies that ran have passed, one line each.

    Args:
        limits: Of one run.
        bodies: All that ran in it and in the runs nested in it.
    """
    ran = list(bodies)
    models = [body for body in ran if body.kind == "model"]
    tools = [body for body in ran if body.kind == "tool"]
    sent, received = sum(body.tokens[0] for body in models), sum(body.tokens[1] for body in models)
    cost = math.ceil((sent * PRICE.input_per_million + received * PRICE.output_per_million) * 1000)
    counted: list[tuple[str, Any, int]] = [
        ("max_steps", limits.max_steps, len(ran)),
        ("max_model_calls", limits.max_model_calls, len(models)),
        ("max_tool_calls", limits.max_tool_calls, len(tools)),
        ("max_input_tokens", limits.max_input_tokens, sent),
        ("max_output_tokens", limits.max_output_tokens, received),
        ("max_tokens", limits.max_tokens, sent + received),
        ("max_cost_usd", None if limits.max_cost_usd is None else round(limits.max_cost_usd * _NANO), cost),
    ]
    for pattern, limit in limits.tool_limits.items():
        counted.append((f"tool_limits.{pattern}", limit, sum(fnmatchcase(body.name, pattern) for body in tools)))
    return [f"{name}: {used} > {limit}" for name, limit, used in counted if limit is not None and used > limit]
