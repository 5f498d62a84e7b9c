"""Rules as people say them, judged over what really ran: the bodies in the order they began, none of oao's counters.

Names are compared without regard to case: who says `pay` does not mean that `Pay` may pay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from oao_harness.errors import ConfigError
from oao_harness.loading import import_module
from oao_harness.policy.globs import Names
from oao_harness.policy.sequence import SequenceRule
from oao_hookspecs import Json, Limits
from pytest_oao.testing.program_agents import Ended, Started
from pytest_oao.testing.program_rules import breaches
from pytest_oao.testing.program_trials import Trial
from pytest_oao.testing.programs import Body

__all__ = ["FuzzRule", "Kind", "parse_rule"]

Kind = Literal["never", "only", "at_most", "sums_at_most", "spends_at_most", "rule"]

_WORDS: Final = r"\s+{}\s+"
_SPENT: Final = {
    "tokens": "max_tokens",
    "input_tokens": "max_input_tokens",
    "output_tokens": "max_output_tokens",
    "model_calls": "max_model_calls",
    "tool_calls": "max_tool_calls",
    "steps": "max_steps",
}


class FuzzRule(Protocol):
    """What must not happen."""

    @property
    def text(self) -> str:
        """As a person says it."""
        ...

    @property
    def tools(self) -> tuple[str, ...]:
        """Names and globs of the tools that it is about."""
        ...

    @property
    def arguments(self) -> Mapping[str, str]:
        """Arguments that it reads, each with the text whose literals are worth a try."""
        ...

    @property
    def most(self) -> int:
        """The number that is not to be passed; 0 where there is none."""
        ...

    def broken_by(self, trial: Trial) -> str | None:
        """Return how a trial breaks it; None where it holds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    text: str
    tools: tuple[str, ...] = ()
    arguments: Mapping[str, str]
    most: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Never(_Said):
    """Tools that must not be called at all, or not with such arguments."""

    where: Callable[[Mapping[str, Json]], bool] | None = None

    def broken_by(self, trial: Trial) -> str | None:
        names = _names(self.tools)
        for body in _tools(trial):
            if body.name.casefold() in names and (self.where is None or self.where(body.arguments)):
                return f"{_shown(body)} ran"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence(_Said):
    """What may follow what: `oao_harness.policy.sequence`, counted from what ran."""

    rule: SequenceRule

    def broken_by(self, trial: Trial) -> str | None:
        count = 0
        for event in trial.events:
            if isinstance(event, Started) and event.body.kind == "tool":
                name = event.body.name.casefold()
                why = self.rule.refuses(name, count)
                if why is not None:
                    return f"{_shown(event.body)} ran: {why}"
                count += self.rule.counts_start(name)
            elif isinstance(event, Ended) and event.body.kind == "tool" and event.ok:
                count += self.rule.counts_success(event.body.name.casefold())
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum(_Said):
    """What all calls of some tools come to together."""

    argument: str
    limit: float

    def broken_by(self, trial: Trial) -> str | None:
        names = _names(self.tools)
        total: float = 0
        for body in _tools(trial):
            value = body.arguments.get(self.argument)
            if body.name.casefold() in names and isinstance(value, int | float) and not isinstance(value, bool):
                total += value
                if total > self.limit:
                    return f"{self.argument} came to {total:g} with {_shown(body)}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spending(_Said):
    """What all calls may use together."""

    limits: Limits

    def broken_by(self, trial: Trial) -> str | None:
        return next(iter(breaches(self.limits, trial.executed)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Function(_Said):
    """A function of the user's that asserts."""

    check: Callable[[Trial], object]

    def broken_by(self, trial: Trial) -> str | None:
        try:
            self.check(trial)
        except AssertionError as error:
            return str(error).partition("\n")[0] or "its assert failed"
        except Exception as error:
            raise ConfigError(f"rule {self.text}: it failed itself: {type(error).__name__}: {error}") from error
        return None


def parse_rule(kind: Kind, said: str) -> FuzzRule:
    """Return the rule that a person says.

    Args:
        kind: The option it was said with.
        said: For example `send_mail after read_inbox`, `pay where args.amount > 100`, `refund 3`.

    Raises:
        ConfigError: It is no such rule; the message says what one looks like.
    """
    said = " ".join(said.split())
    return _PARSERS[kind](said)


def _never(said: str) -> FuzzRule:
    text = f"never {said}"
    if len(parts := re.split(_WORDS.format("after"), said)) == 2:
        second, first = map(_patterns, parts)
        if first and second:
            rule = _rule(text, "never", first, second)
            return _Sequence(text=text, tools=(*first, *second), arguments={}, rule=rule)
    elif len(parts := re.split(_WORDS.format("where"), said, maxsplit=1)) == 2 and (tools := _patterns(parts[0])):
        where, arguments = _condition(parts[1], text)
        return _Never(text=text, tools=tools, arguments=arguments, where=where)
    elif tools := _patterns(said):
        return _Never(text=text, tools=tools, arguments={})
    raise _wrong("never", said, "'pay', 'pay where args.amount > 100' or 'send_mail after read_inbox'")


def _only(said: str) -> FuzzRule:
    parts = re.split(_WORDS.format("after"), said)
    if len(parts) == 2 and all(found := [_patterns(part) for part in parts]):
        text = f"only {said}"
        second, first = found
        rule = _rule(text, "only", first, second)
        return _Sequence(text=text, tools=(*second, *first), arguments={}, rule=rule)
    raise _wrong("only", said, "'pay after check_balance'")


def _at_most(said: str) -> FuzzRule:
    found = re.fullmatch(r"(.+?) (\d+)", said)
    if found is None or not (tools := _patterns(found[1])):
        raise _wrong("at-most", said, "'refund 3'")
    text = f"at most {said}"
    rule = _rule(text, "at_most", tools, (), int(found[2]))
    return _Sequence(text=text, tools=tools, arguments={}, most=int(found[2]), rule=rule)


def _sums_at_most(said: str) -> FuzzRule:
    found = re.fullmatch(r"(.+)\.(\w+) (\d+(?:\.\d+)?)", said)
    if found is None or not (tools := _patterns(found[1])):
        raise _wrong("sums-at-most", said, "'refund.amount 100'")
    argument, limit = found[2], float(found[3])
    return _Sum(
        text=f"sums at most {said}", tools=tools, arguments={argument: found[3]}, most=2, argument=argument, limit=limit
    )


def _spends_at_most(said: str) -> FuzzRule:
    found = re.fullmatch(r"(\w+) ?= ?(\d+)", said)
    if found is None or found[1] not in _SPENT:
        raise _wrong("spends-at-most", said, f"'tokens=500'; one of {', '.join(_SPENT)}")
    limits = Limits(**{_SPENT[found[1]]: int(found[2])})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    return _Spending(text=f"spends at most {said}", arguments={}, most=int(found[2]), limits=limits)


def _function(said: str) -> FuzzRule:
    module, _, name = said.partition(":")
    if not module or not name:
        raise _wrong("rule", said, "'my_rules:nothing_leaves', a function that takes the finished Trial and asserts")
    check: Any = getattr(import_module(module), name, None)
    if not callable(check):
        raise ConfigError(f"--rule {said!r}: {module!r} has no function {name!r}")
    tools: Any = getattr(check, "tools", ())
    return _Function(text=said, tools=tuple(map(str, tools)), arguments={}, check=check)


_PARSERS: Final[Mapping[Kind, Callable[[str], FuzzRule]]] = {
    "never": _never,
    "only": _only,
    "at_most": _at_most,
    "sums_at_most": _sums_at_most,
    "spends_at_most": _spends_at_most,
    "rule": _function,
}


def _wrong(option: str, said: str, example: str) -> ConfigError:
    return ConfigError(f"--{option} {said!r} is no such rule; write for example {example}")


def _patterns(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    return found if all(found) and not any(re.search(r"\s", part) for part in found) else ()


def _names(patterns: Sequence[str]) -> Names:
    return Names([pattern.casefold() for pattern in patterns])


def _rule(
    text: str,
    form: Literal["never", "only", "at_most"],
    first: Sequence[str],
    second: Sequence[str],
    limit: int = 0,
) -> SequenceRule:
    return SequenceRule(name=text, form=form, first=_names(first), second=_names(second), limit=limit)


def _condition(text: str, rule: str) -> tuple[Callable[[Mapping[str, Json]], bool], Mapping[str, str]]:
    """Return what judges the arguments of a call by the language of policy files."""
    from oao_harness.policy.ruling import ConditionError  # noqa: PLC0415 - with the extra `policy`

    try:
        from oao_harness.policy.cel_library import cel  # noqa: PLC0415
        from oao_harness.policy.conditions import Condition  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"{rule!r}: conditions need: pip install 'oao-harness[policy]'") from error
    try:
        condition = Condition(text, f"condition of {rule!r}", ("args",))
    except ValueError as error:
        raise ConfigError(f"{rule!r}: {text!r} {error}") from error

    def holds(arguments: Mapping[str, Json]) -> bool:
        context = cel.Context(variables={"args": dict(arguments)}, functions=dict(condition.functions))
        try:
            return condition.holds(context)
        except ConditionError:
            # An argument that it reads is missing, or of another type: that is not what was forbidden.
            return False

    return holds, dict.fromkeys(re.findall(r"\bargs\.(\w+)", text), text)


def _tools(trial: Trial) -> Iterator[Body]:
    return (body for body in trial.executed if body.kind == "tool")


def _shown(body: Body) -> str:
    return f"{body.name}({', '.join(f'{key}={value!r}' for key, value in body.arguments.items())})"
