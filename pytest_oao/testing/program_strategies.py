"""Hypothesis strategies for agent programs and the rules they run under. Needs `hypothesis`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from oao_hookspecs import Limits
from pytest_oao.testing.program_rules import Rules
from pytest_oao.testing.programs import (
    CallModel,
    CallTool,
    Fail,
    InnerRun,
    InThread,
    Leave,
    Nested,
    Op,
    Pause,
    Program,
    StreamModel,
    StreamTool,
    Swallow,
    Together,
    TryAgain,
)

__all__ = ["TOOLS", "limits", "ops", "policies", "programs"]

TOOLS = ("read_mail", "read_file", "pay", "send")
"""Tools whose body does nothing but say that it ran; there are also `feed`, `delegate` and the models."""
_VALUES = ("a", "b", "bad")
_NAMES = (*TOOLS, "feed", "delegate", "think", "talk")


def _tokens(most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, 4), st.integers(0, most))


def _calls() -> st.SearchStrategy[CallTool]:
    return st.builds(CallTool, st.sampled_from(TOOLS), st.sampled_from(_VALUES))


def _models(*, may_fail: bool) -> st.SearchStrategy[CallModel]:
    return st.integers(1, 9).flatmap(
        lambda most: st.builds(
            CallModel,
            batch=st.lists(_calls(), max_size=4).map(tuple),
            way=st.sampled_from(("in_order", "together", "not")),
            max_tokens=st.just(most),
            tokens=_tokens(most),
            fails=st.booleans() if may_fail else st.just(False),
        )
    )


def ops(*, at_once: bool = True, threads: bool = True, inner_runs: bool = True) -> st.SearchStrategy[Op]:
    """Return a strategy for single operations; see `programs`."""
    over = st.integers(1, 4)
    kinds: list[st.SearchStrategy[Op]] = [
        _calls(),
        _models(may_fail=True),
        st.builds(Nested, over),
        st.builds(Swallow, over),
        st.builds(TryAgain, over, st.integers(2, 3)),
        st.builds(StreamTool, st.sampled_from(_VALUES), st.integers(0, 3)),
        st.integers(1, 9).flatmap(lambda most: st.builds(StreamModel, st.integers(0, 3), st.just(most), _tokens(most))),
        st.builds(Pause),
        st.builds(Fail),
        st.builds(Leave),
    ]
    if inner_runs:
        kinds.append(st.builds(InnerRun, over))
    if threads:
        kinds.append(st.builds(InThread, over))
    if at_once:
        kinds.append(st.builds(Together, st.integers(2, 5)))
    return st.one_of(kinds)


def programs(
    *, max_ops: int = 12, at_once: bool = True, threads: bool = True, inner_runs: bool = True
) -> st.SearchStrategy[Program]:
    """Return a strategy for programs; they shrink to few and plain operations.

    Args:
        max_ops: How many operations a program has at most.
        at_once: False leaves out what runs in an order of chance, but for the batches that models ask for.
        threads: False leaves out threads of the agent's own.
        inner_runs: False leaves out runs nested in the program's run.
    """
    one = ops(at_once=at_once, threads=threads, inner_runs=inner_runs)
    return _program(st.lists(one, min_size=1, max_size=max_ops))


# Not `map` and `builds`: what they make is printed as they made it, and these values print themselves.
@st.composite
def _program(draw: st.DrawFn, found: st.SearchStrategy[list[Op]]) -> Program:
    return Program(tuple(draw(found)))


@st.composite
def _rules(draw: st.DrawFn, given: st.SearchStrategy[dict[str, Any]]) -> Rules:
    return Rules(**draw(given))


def _maybe(values: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.one_of(st.none(), st.none(), values)


def limits(*, most: int = 8) -> st.SearchStrategy[Limits]:
    """Return a strategy for limits, most of them absent.

    Args:
        most: The highest limit on calls; those on tokens are four times as high.
    """
    calls, tokens = st.integers(0, most), st.integers(0, 4 * most)
    return st.builds(
        Limits,
        max_steps=_maybe(calls),
        max_model_calls=_maybe(calls),
        max_tool_calls=_maybe(calls),
        max_tokens=_maybe(tokens),
        max_input_tokens=_maybe(tokens),
        max_output_tokens=_maybe(tokens),
        max_cost_usd=_maybe(tokens).map(lambda cents: None if cents is None else cents / 1000),
        tool_limits=st.dictionaries(st.sampled_from((*TOOLS, "read_*", "*", "[ps]*", "feed")), calls, max_size=2),
    )


def _names(most: int, of: Sequence[str] = _NAMES) -> st.SearchStrategy[tuple[str, ...]]:
    some = st.lists(st.sampled_from(of), max_size=most, unique=True).map(lambda found: tuple(sorted(found)))
    return st.one_of(st.just(()), some)


def policies(*, holds: bool = True, breaks: bool = True, limited: bool = True) -> st.SearchStrategy[Rules]:
    """Return a strategy for the rules of a run.

    Args:
        holds: False never holds a call.
        breaks: False leaves out policies that fail.
        limited: False leaves out limits.
    """
    given: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {
            "limits": limits() if limited else st.just(Limits()),
            "deny": _names(2),
            "deny_values": st.sampled_from(((), ("bad",))),
            "hold": _names(2) if holds else st.just(()),
            "rewrite": st.lists(st.sampled_from(TOOLS), max_size=2, unique=True).map(
                lambda found: tuple(sorted(found))
            ),
            "broken": _names(1) if breaks else st.just(()),
            "fails_by": st.sampled_from(("raising", "nonsense", "halting")),
            "is_async": st.booleans(),
            "answer": st.sampled_from(("approve", "nothing", "reject", "edit")),
        }
    )
    return _rules(given)
