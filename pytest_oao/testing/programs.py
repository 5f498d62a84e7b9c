"""Agent programs as flat lists of operations: they print as code, and a shorter list is a simpler program.

An operation that surrounds others, such as `Swallow`, counts the operations after it that it takes in; what follows
inside of it counts against it too, so that any list is a program. Values only; `program_agents` makes agents of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from oao_hookspecs import Json

__all__ = [
    "Body",
    "CallModel",
    "CallTool",
    "Fail",
    "InThread",
    "InnerRun",
    "Leave",
    "Nested",
    "Node",
    "Op",
    "Pause",
    "Program",
    "StreamModel",
    "StreamTool",
    "Swallow",
    "Together",
    "TryAgain",
    "Way",
]

Way: TypeAlias = Literal["not", "in_order", "together"]
"""What becomes of the tool calls that a model asks for: nothing, one after the other, or all at once."""


@dataclass(frozen=True, slots=True, repr=False)
class CallTool:
    """Call a tool."""

    name: str
    value: str = "a"
    """Its only argument."""
    arguments: tuple[tuple[str, Json], ...] | None = None
    """Its arguments by name, in place of `value`."""
    returns: str | None = None
    """What its body returns; by default its name and its argument."""
    fails: bool = False
    """True raises in its body."""

    @property
    def given(self) -> dict[str, Json]:
        """The arguments by name."""
        return {"value": self.value} if self.arguments is None else dict(self.arguments)

    def __repr__(self) -> str:
        """Return what differs from a plain call."""
        fields = {"value": "a", "arguments": None, "returns": None, "fails": False}
        given = [f"{key}={now!r}" for key, usual in fields.items() if (now := getattr(self, key)) != usual]
        return f"CallTool({', '.join([repr(self.name), *given])})"


@dataclass(frozen=True, slots=True)
class CallModel:
    """Call the model `think`, whose answer may ask for a batch of tool calls, and make those calls."""

    batch: tuple[CallTool, ...] = ()
    way: Way = "together"
    max_tokens: int = 4
    """What the request lets the model answer."""
    tokens: tuple[int, int] = (1, 1)
    """What the answer reports, in and out; at most 4 in and `max_tokens` out."""
    fails: bool = False
    """True raises in place of an answer."""


@dataclass(frozen=True, slots=True)
class StreamTool:
    """Call the tool `feed`, which yields three chunks."""

    value: str = "a"
    take: int = 3
    """How many chunks are taken before the stream is closed, 0 to 3."""


@dataclass(frozen=True, slots=True)
class StreamModel:
    """Call the model `talk`, which streams three chunks and reports its tokens in the last."""

    take: int = 3
    max_tokens: int = 4
    tokens: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class Nested:
    """Call the tool `delegate`, whose body does the next operations."""

    over: int = 1


@dataclass(frozen=True, slots=True)
class InnerRun:
    """Do the next operations as an agent of its own, in a run nested in this one."""

    over: int = 1


@dataclass(frozen=True, slots=True)
class Swallow:
    """Catch whatever the next operations raise, and go on."""

    over: int = 1


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Do the next operations until they do not raise, at most so many times."""

    over: int = 1
    times: int = 2


@dataclass(frozen=True, slots=True)
class Together:
    """Do the next operations at once: in threads, or in tasks of the loop."""

    over: int = 2


@dataclass(frozen=True, slots=True)
class InThread:
    """Do the next operations in a thread of its own, and never hear what it raised."""

    over: int = 1


@dataclass(frozen=True, slots=True)
class Pause:
    """Let others go on."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise an ordinary exception."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Return from the agent, or from the tool's body that this is in."""


_Block: TypeAlias = Nested | InnerRun | Swallow | TryAgain | Together | InThread
Op: TypeAlias = CallTool | CallModel | StreamTool | StreamModel | _Block | Pause | Fail | Leave

_BLOCKS: Final = (Nested, InnerRun, Swallow, TryAgain, Together, InThread)


@dataclass(frozen=True, slots=True)
class Node:
    """An operation in its place."""

    index: int
    """In the list, from 0."""
    op: Op
    inside: tuple[Node, ...] = ()
    """What it surrounds."""


@dataclass(frozen=True, slots=True, repr=False)
class Program:
    """What an agent does. Its `repr` is the code that it stands for."""

    ops: tuple[Op, ...] = ()

    def tree(self) -> tuple[Node, ...]:
        """Return the operations, each with those that it surrounds."""
        return _tree(self.ops, 0, len(self.ops))

    @property
    def is_ordered(self) -> bool:
        """True where it starts nothing at once but batches that a model asks for: then no order is chance."""
        return not any(isinstance(op, Together) for op in self.ops)

    def __repr__(self) -> str:
        """Return the program as code, an operation a line."""
        return "\n".join(["def agent(task):", *_lines(self.tree(), "    ")])


def _tree(ops: Sequence[Op], start: int, stop: int) -> tuple[Node, ...]:
    nodes: list[Node] = []
    while start < stop:
        op = ops[start]
        end = min(stop, start + 1 + op.over) if isinstance(op, _BLOCKS) else start + 1
        nodes.append(Node(start, op, _tree(ops, start + 1, end)))
        start = end
    return tuple(nodes)


def _lines(nodes: Sequence[Node], indent: str) -> Iterator[str]:
    if not nodes:
        yield f"{indent}pass"
    for node in nodes:
        yield indent + _line(node.op)
        if isinstance(node.op, _BLOCKS):
            yield from _lines(node.inside, indent + "    ")


def _line(op: Op) -> str:
    match op:
        case CallTool():
            return _tool_line(op)
        case CallModel():
            return _model_line(op)
        case StreamTool(value, take):
            return f"feed({value!r})" + ("" if take == 3 else f"  # closed after {take} of 3 chunks")
        case StreamModel(take, most, tokens):
            closed = "" if take == 3 else f"  # closed after {take} of 3 chunks"
            return f"talk(max_tokens={most}, usage={tokens}){closed}"
        case TryAgain(_, times):
            return f"for _ in until_it_works(times={times}):"
        case _:
            return _LINES[type(op)]


_LINES: Final[dict[type[Op], str]] = {
    Nested: "with delegate():  # the body of a tool",
    InnerRun: "with inner_run():  # an agent of its own",
    Swallow: "with suppress(BaseException):",
    Together: "with at_once():  # each in its own thread or task",
    InThread: "with thread():",
    Pause: "sleep(0)",
    Fail: "raise ValueError",
    Leave: "return",
}


def _tool_line(op: CallTool) -> str:
    shown = repr(op.value) if op.arguments is None else ", ".join(f"{key}={value!r}" for key, value in op.arguments)
    returns = "" if op.returns is None else f"  # returns {op.returns!r}"
    return f"{op.name}({shown}){'  # fails' if op.fails else returns}"


def _model_line(op: CallModel) -> str:
    calls = [_tool_line(one).partition("  #")[0] for one in op.batch]
    asked = ", ".join(calls)
    what = f"max_tokens={op.max_tokens}, usage={op.tokens}" + (", fails=True" if op.fails else "")
    then = {"not": "", "in_order": "".join(f"; {call}" for call in calls), "together": f"; at_once({asked})"}[op.way]
    if not op.batch:
        return f"think({what})"
    return f"think({what}, asks=[{asked}]){then}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A body of a tool or model that really ran."""

    kind: Literal["tool", "model"]
    name: str
    value: str
    """The argument as the body saw it; a model's is its prompt."""
    runs: tuple[str, ...]
    """The run that made the call after those that it is nested in; the same in each leg of a resumed run."""
    place: str
    """Of the operation: `index`, with the number of the visit and the places around it."""
    batch: str = ""
    """Place of the model call whose answer asked for it together with others."""
    tokens: tuple[int, int] = (0, 0)
    """In and out, as the model reports them."""
    arguments: Mapping[str, Json] = field(default_factory=dict[str, Json], compare=False)
    """A tool's arguments by name, as the body saw them."""
