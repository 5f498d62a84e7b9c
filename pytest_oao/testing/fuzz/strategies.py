"""Hypothesis strategies for the programs that a search tries; they shrink to one plain call of a wanted tool."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from pytest_oao.testing.fuzz.vocabulary import Vocabulary
from pytest_oao.testing.programs import (
    CallModel,
    CallTool,
    InnerRun,
    InThread,
    Nested,
    Op,
    Program,
    StreamModel,
    Swallow,
    Together,
    TryAgain,
    Way,
)

__all__ = ["OPERATIONS", "Attempt", "attempts"]

OPERATIONS = (
    "tool calls",
    "batches of a model",
    "streams",
    "nested tools",
    "nested runs",
    "threads",
    "tasks",
    "caught errors",
    "retries",
)
"""What programs are made of, for a person."""
_INPUT = 4
_MOST_TOKENS = 5000


@dataclass(frozen=True, slots=True)
class Attempt:
    """A program, and how it is run."""

    program: Program
    is_async: bool = False


def attempts(vocabulary: Vocabulary, *, most: int, max_ops: int) -> st.SearchStrategy[Attempt]:
    """Return a strategy for programs.

    Args:
        vocabulary: What they may say.
        most: How often a call may have to be repeated to pass a limit.
        max_ops: How many operations a program has at most, without repetitions.
    """
    calls = _calls(vocabulary)
    repeated = st.tuples(calls, st.integers(2, max(3, most + 1))).map(_repeated)
    one = st.one_of(
        calls.map(_alone), calls.map(_alone), repeated, _models(vocabulary, calls).map(_alone), _around().map(_alone)
    )
    return _attempts(st.lists(one, min_size=1, max_size=max_ops))


@st.composite
def _attempts(draw: st.DrawFn, found: st.SearchStrategy[list[list[Op]]]) -> Attempt:
    ops = tuple(op for some in draw(found) for op in some)
    return Attempt(Program(ops), draw(st.booleans()))


def _alone(op: Op) -> list[Op]:
    return [op]


def _repeated(call: tuple[CallTool, int]) -> list[Op]:
    return [call[0]] * call[1]


@st.composite
def _calls(draw: st.DrawFn, vocabulary: Vocabulary) -> CallTool:
    some = vocabulary.wanted or vocabulary.others
    is_wanted = not vocabulary.others or draw(st.integers(0, 3)) < 3
    name = draw(st.sampled_from(some if is_wanted else vocabulary.others))
    given = [
        (argument, draw(st.sampled_from(vocabulary.values[argument])))
        for argument in vocabulary.arguments_of(name)
        if draw(st.integers(0, 7)) < 7
    ]
    returns = draw(st.sampled_from((None, *vocabulary.results))) if vocabulary.results else None
    return CallTool(name, arguments=tuple(given), returns=returns, fails=draw(st.integers(0, 9)) == 9)


@st.composite
def _models(draw: st.DrawFn, vocabulary: Vocabulary, calls: st.SearchStrategy[CallTool]) -> CallModel | StreamModel:
    bounds = {n for limit in vocabulary.numbers for n in (limit // 4, limit // 2, limit - _INPUT, limit)}
    most = draw(st.sampled_from(sorted({4, *(n for n in bounds if 0 < n <= _MOST_TOKENS)})))
    tokens = draw(st.integers(0, _INPUT)), draw(st.sampled_from((most, 0, most // 2)))
    if draw(st.integers(0, 3)) == 3:
        return StreamModel(draw(st.integers(0, 3)), most, tokens)
    batch = tuple(draw(st.lists(calls, max_size=3)))
    way: Way = draw(st.sampled_from(("in_order", "together")))
    return CallModel(batch, way, most, tokens)


def _around() -> st.SearchStrategy[Op]:
    over = st.integers(1, 4)
    return st.one_of(
        st.builds(Swallow, over),
        st.builds(InnerRun, over),
        st.builds(InThread, over),
        st.builds(Nested, over),
        st.builds(Together, st.integers(2, 5)),
        st.builds(TryAgain, over, st.integers(2, 3)),
    )
