"""Decisions: what a policy answers. Values, and the rule by which the strictest wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias

from oao_hookspecs.calls import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """The call may happen."""

    rule: str = ""
    """Name of the rule that said so, for example `tools.allow`."""
    plugin: str = ""
    """Name of the plugin; filled in by oao where it is empty."""
    reason: str = ""
    """One sentence for a person."""
    source: str = ""
    """Where the rule is written, as `file:line`; empty for a rule in code."""
    would: Literal["", "ask", "deny"] = ""
    """What the rule would have said if it did not only observe."""
    verdict: Literal["allow"] = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The call must not happen; the run is halted."""

    rule: str
    """Name of the rule that said so, for example `max_tool_calls`."""
    reason: str
    """One sentence for a person: what was wrong and what the limit is."""
    plugin: str = ""
    """Name of the plugin; filled in by oao where it is empty."""
    source: str = ""
    """Where the rule is written, as `file:line`; empty for a rule in code."""
    verdict: Literal["deny"] = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A person must decide: the call is held, and the run is suspended until somebody answers."""

    rule: str
    """Name of the rule that said so."""
    reason: str
    """One sentence for the person who is asked."""
    approvers: tuple[str, ...] = ()
    """Roles of those who may answer; empty: anybody but, where more than one is needed, the run's own principal."""
    needed: int = 1
    """How many different people must approve, >= 1; 2 is the four-eyes principle."""
    expires_s: float = 86_400.0
    """Seconds after which the question can no longer be approved, > 0."""
    plugin: str = ""
    """Name of the plugin; filled in by oao where it is empty."""
    source: str = ""
    """Where the rule is written, as `file:line`; empty for a rule in code."""
    verdict: Literal["ask"] = "ask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Modify:
    """The call may happen in another form; later policies see the new form."""

    call: Call
    """The call that replaces the one asked about; kind and name must stay the same."""
    rule: str = ""
    """Name of the rule that said so."""
    plugin: str = ""
    """Name of the plugin; filled in by oao where it is empty."""
    reason: str = ""
    """One sentence for a person."""
    source: str = ""
    """Where the rule is written, as `file:line`; empty for a rule in code."""
    verdict: Literal["modify"] = "modify"


Decision: TypeAlias = Allow | Deny | Ask | Modify

_WILD = frozenset("*?[")
_STRICTNESS = {"allow": 0, "modify": 1, "ask": 2, "deny": 3}


def combine(decisions: Iterable[Decision]) -> Decision:
    """Return the strictest decision: Deny, then Ask, then Modify, then Allow; the first of equals.

    Args:
        decisions: What the policies answered, in the order they were asked.

    Returns:
        The strictest one, `Allow()` where there is none.
    """
    strictest: Decision = Allow(rule="default", plugin="oao", reason="no policy objected")
    found = False
    for decision in decisions:
        if not found or _strictness(decision) > _strictness(strictest):
            strictest, found = decision, True
    return strictest


def _strictness(decision: Decision) -> float:
    # What would have been denied must not be hidden behind an Allow that comes before it.
    return _STRICTNESS[decision.verdict] + (0.5 if isinstance(decision, Allow) and decision.would else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a single call that failed for a transient cause is tried again."""

    max_retries: int
    """Tries after the first, >= 0."""
    initial_delay_s: float
    """Seconds before the first retry, >= 0."""
    backoff_factor: float
    """Each delay is the one before times this, >= 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs, in US dollars for a million tokens."""

    input_per_million: float
    """>= 0."""
    output_per_million: float
    """>= 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may spend, the runs nested in it included. None means no limit."""

    max_steps: int | None = None
    """Governed calls, or the framework's own steps, whichever are more."""
    max_model_calls: int | None = None
    max_tool_calls: int | None = None
    max_tokens: int | None = None
    """Input and output tokens together."""
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    max_cost_usd: float | None = None
    """Money for model calls in US dollars, at the prices of `oao_price`."""
    unknown_price: Price | None = None
    """What a model without a known price is taken to cost; None denies it where `max_cost_usd` is set."""
    assumed_output_tokens: int | None = None
    """Reserved for the answer of a model call that names no bound of its own; None reserves nothing for it."""
    tool_limits: Mapping[str, int] = field(default_factory=dict[str, int])
    """Calls by tool name, or by a glob over tool names: all that match it count together."""
    timeout_s: float | None = None
    """Wall time of EXECUTE in seconds."""
    call_timeout_s: float | None = None
    """Wall time of one model or tool call in seconds."""
    retry: Retry | None = None
    """None: a failed call is not tried again."""
    require_governed: bool = False
    """True refuses an agent whose calls cannot be seen, and halts a run whose agent acts beside the gate."""
    process_tools: tuple[str, ...] | None = None
    """Names (globs) of the tools that may start processes; None: no opinion. Enforced with `require_governed`."""
    sources: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)
    """Where a limit is written, as `file:line`, by field; `tool_limits.NAME` for one of a tool."""

    def tightened(self, other: Limits) -> Limits:
        """Return the stricter of both, field by field; fewer retries are stricter, and any opinion beats none."""
        both = (self, other)

        def least(name: str) -> Any:
            found = [getattr(one, name) for one in both if getattr(one, name) is not None]
            return min(found, default=None)

        retries = [one.retry for one in both if one.retry is not None]
        assumed = [one.assumed_output_tokens for one in both if one.assumed_output_tokens is not None]
        strictest = Limits(
            **{name: least(name) for name in _COUNTED},
            unknown_price=_dearest([one.unknown_price for one in both if one.max_cost_usd is not None]),
            assumed_output_tokens=max(assumed, default=None),
            tool_limits={
                tool: min(one.tool_limits[tool] for one in both if tool in one.tool_limits)
                for tool in (*self.tool_limits, *other.tool_limits)
            },
            retry=min(retries, key=lambda retry: retry.max_retries, default=None),
            require_governed=self.require_governed or other.require_governed,
            process_tools=_names_of_both(self.process_tools, other.process_tools),
        )
        sources: dict[str, str] = {}
        for name in (*other.sources, *self.sources):
            # Where it is written: in the one whose limit it became.
            holder = next((one for one in both if one._limit(name) == strictest._limit(name)), None)
            if holder is not None and name in holder.sources:
                sources[name] = holder.sources[name]
        return replace(strictest, sources=sources) if sources else strictest

    def _limit(self, name: str) -> object:
        field_name, _, tool = name.partition(".")
        return self.tool_limits.get(tool) if tool else getattr(self, field_name)


_COUNTED = (
    "max_steps",
    "max_model_calls",
    "max_tool_calls",
    "max_tokens",
    "max_input_tokens",
    "max_output_tokens",
    "max_cost_usd",
    "timeout_s",
    "call_timeout_s",
)


def _dearest(prices: list[Price | None]) -> Price | None:
    known = [price for price in prices if price is not None]
    if not known or len(known) < len(prices):
        return None
    return Price(
        input_per_million=max(price.input_per_million for price in known),
        output_per_million=max(price.output_per_million for price in known),
    )


def _names_of_both(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the globs of either side that the other side covers; where that is hard to tell, the glob is dropped."""
    if one is None or other is None:
        return other if one is None else one
    kept = {glob for mine, theirs in ((one, other), (other, one)) for glob in mine if _is_covered(glob, theirs)}
    return tuple(sorted(kept))


def _is_covered(glob: str, by: tuple[str, ...]) -> bool:
    def covers(wider: str) -> bool:
        if glob == wider:
            return True
        if not _WILD.intersection(glob):
            return fnmatchcase(glob, wider)
        prefix = wider.removesuffix("*")
        return prefix != wider and not _WILD.intersection(prefix) and glob.startswith(prefix)

    return any(map(covers, by))
