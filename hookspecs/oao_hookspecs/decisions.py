"""Decisions: what a policy answers. Values, and the rule by which the strictest wins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

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
    verdict: Literal["deny"] = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A person must decide. Where nobody can be asked, the call is denied."""

    rule: str
    """Name of the rule that said so."""
    reason: str
    """One sentence for the person who is asked."""
    plugin: str = ""
    """Name of the plugin; filled in by oao where it is empty."""
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
        if not found or _STRICTNESS[decision.verdict] > _STRICTNESS[strictest.verdict]:
            strictest, found = decision, True
    return strictest


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
class Limits:
    """What one run may spend. None means no limit."""

    max_steps: int | None = None
    """Governed calls, or the framework's own steps, whichever are more."""
    max_model_calls: int | None = None
    max_tool_calls: int | None = None
    max_tokens: int | None = None
    """Input and output tokens together."""
    timeout_s: float | None = None
    """Wall time of EXECUTE in seconds."""
    retry: Retry | None = None
    """None: a failed call is not tried again."""
    require_governed: bool = False
    """True refuses an agent whose calls cannot be seen, and halts a run whose agent acts beside the gate."""
    process_tools: tuple[str, ...] | None = None
    """Names (globs) of the tools that may start processes; None: no opinion. Enforced with `require_governed`."""

    def tightened(self, other: Limits) -> Limits:
        """Return the stricter of both, field by field; fewer retries are stricter, and any opinion beats none."""

        def least(a: float | None, b: float | None) -> float | None:
            return a if b is None else b if a is None else min(a, b)

        def least_count(a: int | None, b: int | None) -> int | None:
            return a if b is None else b if a is None else min(a, b)

        retry = self.retry
        if other.retry is not None and (retry is None or other.retry.max_retries < retry.max_retries):
            retry = other.retry
        return Limits(
            max_steps=least_count(self.max_steps, other.max_steps),
            max_model_calls=least_count(self.max_model_calls, other.max_model_calls),
            max_tool_calls=least_count(self.max_tool_calls, other.max_tool_calls),
            max_tokens=least_count(self.max_tokens, other.max_tokens),
            timeout_s=least(self.timeout_s, other.timeout_s),
            retry=retry,
            require_governed=self.require_governed or other.require_governed,
            process_tools=_names_of_both(self.process_tools, other.process_tools),
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
