"""What a run did, for asserts: which calls, in which order, with which arguments, within which budget. Pure.

Made of journal records, of a recording, or of what a store holds: any run can be asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, cast

from oao_harness.journal.codec import decode, holds_opaque
from oao_harness.journal.compiling import compiled
from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.recording import Recording
from oao_hookspecs import Json, Record, Usage

__all__ = ["Check", "MadeCall", "Trajectory"]

# A failed question is the test's failure: pytest shows the line of the test, not the lines of this module.
__tracebackhide__ = True

_MOST_SHOWN: Final = 12


class Check:
    """The answer to a question about a run, for `assert`: true or false, and says why not.

    Args:
        what: What is true.
        why_not: What is true instead; None where the answer is yes.
    """

    def __init__(self, what: str, why_not: str | None) -> None:
        self._what = what
        self._why_not = why_not

    def __bool__(self) -> bool:
        return self._why_not is None

    def __repr__(self) -> str:
        return self._what if self._why_not is None else self._why_not


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeCall:
    """One call that happened."""

    kind: str
    """`model` or `tool`."""
    name: str
    arguments: Mapping[str, Any]
    """Of a tool by parameter; of a model its request: `messages`, `tools`, parameters."""
    result: Any = None
    """What a tool returned; of a model its answer as the journal has it. None where the call failed."""
    error: str | None = None
    """Class and message of what it raised."""
    usage: Usage | None = None
    """Tokens of a model call."""

    def __str__(self) -> str:
        if self.kind == "model":
            return f"model {self.name}"
        return f"{self.name}({', '.join(f'{name}={_brief(value)}' for name, value in self.arguments.items())})"


class Trajectory:
    """The calls of a run that happened, in the order they started. Denied calls are none.

    Args:
        events: The calls.
    """

    def __init__(self, events: Iterable[RecordedEvent]) -> None:
        self._events = tuple(event for event in events if not event.denied and event.kind != "http")

    @classmethod
    def of(cls, source: Recording | Iterable[Record | tuple[str, Record]]) -> Trajectory:
        """Return the trajectory of a recording, or of a run's journal: `Trajectory.of(store.read(execution_id))`."""
        return cls(source.events if isinstance(source, Recording) else compiled(source))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {_listed(self.steps) or 'no call'}>"

    def __eq__(self, other: object) -> bool:
        return self.steps == other.steps if isinstance(other, Trajectory) else NotImplemented

    def __hash__(self) -> int:
        return id(self)

    def _made(self) -> Sequence[RecordedEvent]:
        """Return the calls; a run that goes on has more of them each time."""
        return self._events

    @property
    def steps(self) -> list[MadeCall]:
        """All calls."""
        return [_call_of(event) for event in self._made()]

    @property
    def tools(self) -> list[str]:
        """Names of the tools called."""
        return [event.name for event in self._made() if event.kind == "tool"]

    @property
    def models(self) -> list[str]:
        """Names of the models asked."""
        return [event.name for event in self._made() if event.kind == "model"]

    @property
    def tokens(self) -> int:
        """Tokens of all model calls, in and out."""
        return sum(event.usage.total_tokens for event in self._made() if event.usage is not None)

    def of_tool(self, name: str) -> list[MadeCall]:
        """Return the calls of a tool.

        Args:
            name: Its name, or a glob.
        """
        return [step for step in self.steps if step.kind == "tool" and fnmatchcase(step.name, name)]

    def called(self, tool: str, times: int | None = None, /, **arguments: object) -> Check:
        """Return whether a tool was called, with arguments that match.

        Args:
            tool: Its name, or a glob.
            times: Exactly so often; at least once by default.
            arguments: By parameter; others may be anything. A value is compared by `==`, a compiled pattern is
                searched for, a class is an `isinstance`, and a function is asked.
        """
        found = self.of_tool(tool)
        matching = [step for step in found if _match(arguments, step.arguments)]
        listed = ", ".join(f"{name}={_expected(value)}" for name, value in arguments.items())
        wanted = f"{tool}({listed})" if arguments else tool
        if times is None and matching:
            return Check(f"called {wanted}", None)
        if times is not None and len(matching) == times:
            return Check(f"called {wanted} {_times(times)}", None)
        often = "never called" if not matching else f"called {_times(len(matching))}, not {_times(cast('int', times))}"
        seen = f"it was called as {_listed(found)}" if found else f"the run called {self._summary()}"
        return Check("", f"{wanted} was {often}; {seen}")

    def never_called(self, *tools: str) -> Check:
        """Return whether none of some tools was called; names may be globs."""
        found = [step for tool in tools for step in self.of_tool(tool)]
        why = f"{', '.join(tools)} should never be called; the run called {_listed(found)}" if found else None
        return Check(f"never called {', '.join(tools)}", why)

    def called_at_most(self, tool: str, times: int, /) -> Check:
        """Return whether a tool was called so often or less; its name may be a glob."""
        found = self.of_tool(tool)
        what = f"called {tool} {_times(len(found))}"
        return Check(what, f"{what}, more than {times}: {_listed(found)}" if len(found) > times else None)

    def called_in_order(self, *tools: str) -> Check:
        """Return whether tools were called one after the other, others between them or not; names may be globs."""
        rest = iter(self.tools)
        for index, tool in enumerate(tools):
            if not any(fnmatchcase(name, tool) for name in rest):
                after = f" after {', '.join(tools[:index])}" if index else ""
                often = "not" if any(fnmatchcase(name, tool) for name in self.tools) else "never"
                return Check(
                    "", f"{tool} was {often} called{after if often == 'not' else ''}; the run called {self._summary()}"
                )
        return Check(f"called {', '.join(tools)} in this order", None)

    def called_exactly(self, *tools: str) -> Check:
        """Return whether these tools were called, in this order, and no other."""
        found = self.tools
        if len(found) == len(tools) and all(map(fnmatchcase, found, tools)):
            return Check(f"called exactly {', '.join(tools)}", None)
        return Check("", f"the run called {self._summary()}, not exactly {', '.join(tools) or 'nothing'}")

    def called_only(self, *tools: str) -> Check:
        """Return whether no other than these tools was called, in any order and number; names may be globs."""
        others = [step for step in self.steps if step.kind == "tool" and not _any_of(step.name, tools)]
        what = f"called only {', '.join(tools) or 'nothing'}"
        return Check(what, f"the run should have {what}; it called {_listed(others)} too" if others else None)

    def called_all(self, *tools: str) -> Check:
        """Return whether each of these tools was called, in any order; names may be globs."""
        missing = [tool for tool in tools if not any(fnmatchcase(name, tool) for name in self.tools)]
        why = f"never called {', '.join(missing)}; the run called {self._summary()}" if missing else None
        return Check(f"called {', '.join(tools)}", why)

    def within(
        self,
        *,
        max_steps: int | None = None,
        max_model_calls: int | None = None,
        max_tool_calls: int | None = None,
        max_tokens: int | None = None,
    ) -> Check:
        """Return whether the run kept a budget: numbers of calls, and tokens in and out together."""
        spent = (
            ("max_steps", max_steps, len(self._made())),
            ("max_model_calls", max_model_calls, len(self.models)),
            ("max_tool_calls", max_tool_calls, len(self.tools)),
            ("max_tokens", max_tokens, self.tokens),
        )
        over = [f"{name}: {used} > {limit}" for name, limit, used in spent if limit is not None and used > limit]
        return Check("within its budget", f"over its budget: {'; '.join(over)}" if over else None)

    def _summary(self) -> str:
        return ", ".join(self.tools[:_MOST_SHOWN]) + (" ..." if len(self.tools) > _MOST_SHOWN else "") or "no tool"


def _call_of(event: RecordedEvent) -> MadeCall:
    arguments = {name: _decoded(value) for name, value in event.request.items()} if event.kind == "tool" else None
    return MadeCall(
        kind=event.kind,
        name=event.name,
        arguments=event.request if arguments is None else arguments,
        result=_decoded(event.value) if event.kind == "tool" else event.value,
        error=None if event.error is None else f"{event.error.type.rpartition(':')[2]}: {event.error.message}",
        usage=event.usage,
    )


def _decoded(value: Json) -> object:
    """Return a value as the agent had it; as the journal has it where it cannot be read back."""
    return value if holds_opaque(value) is not None else decode(value)


def _match(expected: Mapping[str, object], found: Mapping[str, object]) -> bool:
    return all(name in found and _fits(value, found[name]) for name, value in expected.items())


def _fits(expected: object, found: object) -> bool:
    if isinstance(expected, re.Pattern):
        pattern = cast("re.Pattern[str]", expected)
        return isinstance(found, str) and pattern.search(found) is not None
    if isinstance(expected, type):
        return isinstance(found, expected)
    if callable(expected):
        return bool(cast("Callable[[object], object]", expected)(found))
    return bool(expected == found)


def _any_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _expected(value: object) -> str:
    if isinstance(value, re.Pattern):
        return f"/{cast('re.Pattern[str]', value).pattern}/"
    return (
        value.__name__ if isinstance(value, type) or (callable(value) and hasattr(value, "__name__")) else _brief(value)
    )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _listed(steps: Sequence[MadeCall]) -> str:
    more = f" and {len(steps) - _MOST_SHOWN} more" if len(steps) > _MOST_SHOWN else ""
    return ", ".join(map(str, steps[:_MOST_SHOWN])) + more


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
