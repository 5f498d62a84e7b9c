"""The open spans of a run, and which of them is current where.

OpenTelemetry's context holds one stand-in for a run, put there when the run begins. It answers for the span that is
meant where it is asked: the call whose body runs there (`runtime.context.frame`), else the current step, else the
run. So nothing must be put there and taken away around every call, and between the chunks of a stream the
consumer's code finds its own span again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextvars import Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, Status, StatusCode
from opentelemetry.util import types

from oao_harness.runtime.context import frame
from oao_hookspecs import Call, Decision

if TYPE_CHECKING:
    from oao_harness.runtime.context import Frame

__all__ = ["OpenCall", "OpenRun", "StandIn", "living", "real_span"]


@dataclass(slots=True, kw_only=True)
class OpenCall:
    """A call that was decided and has not ended."""

    span: Span
    parent: Span
    call: Call
    decision: Decision
    at_ns: int
    """When it was decided, Unix nanoseconds."""
    guarded: bool = False
    """True where its decision becomes a span of its own, once the call has really been made."""
    token: Token[Context] | None = None
    """Of the stand-in that was put into the context for it alone."""


@dataclass(slots=True, kw_only=True, eq=False)
class OpenRun:
    """A run that began, or went on, in this process and has not ended."""

    execution_id: str
    span: Span
    around: Span
    """What was current where it began."""
    outer_id: int
    """Id of its parent span; 0 for none."""
    runs: Mapping[str, OpenRun]
    """All open runs of the same listener."""
    outer: OpenRun | None = None
    """The open run that it is nested in."""
    node_span: Span | None = None
    """Around its span, where it is a part of a graph."""
    is_silent: bool = False
    """True where nothing of it is exported: it is a replay."""
    step: Span | None = None
    calls: MutableMapping[int, OpenCall] = field(default_factory=dict[int, OpenCall])
    asked: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """Tool and rule of the questions that a span tells of already."""
    refused: tuple[str, str] | None = None
    """Rule and reason of the denial that a span tells of already."""
    rule: str = ""
    """The rule that stopped it."""
    is_over: bool = False
    token: Token[Context] | None = None

    @property
    def top(self) -> Span:
        """The span of what is not in a call: the current step's, else the run's."""
        return self.step if self.step is not None else self.span

    @property
    def lineage(self) -> Iterator[OpenRun]:
        """The run, and those that it is nested in."""
        one: OpenRun | None = self
        while one is not None:
            yield one
            one = one.outer

    def inside(self) -> Span:
        """Return the span of the code that asks, which is of this run or of one that is nested in it."""
        held = frame.get()
        if held is None:
            return self.top
        owner = self.runs.get(held.run.execution_id)
        if owner is None or self not in owner.lineage:
            return self.top
        call = owner.calls.get(held.n)
        return owner.top if call is None else call.span

    def parent_of_call(self) -> tuple[Span, bool]:
        """Return the parent for the span of a call that the code which asks makes, and whether that is current.

        A span of the user's own is the parent where it was started in this run; one that is not of this trace, or
        that the run itself began in, only shows that the context was lost on the way.
        """
        expected = self.inside()
        found, is_ours = real_span(trace.get_current_span())
        if is_ours:
            return expected, found is expected
        said = found.get_span_context()
        lost = not said.is_valid or said.span_id == self.outer_id
        if lost or said.trace_id != self.span.get_span_context().trace_id:
            return expected, False
        return found, False

    def make_current(self) -> None:
        """Let the code that runs in this context, and what it starts, find the run's spans."""
        self.token = otel.attach(trace.set_span_in_context(StandIn(self)))

    def end(self) -> None:
        """End what is still open of the run, but for its own span, and take it out of the context."""
        self.is_over = True
        for call in self.calls.values():
            call.span.set_status(Status(StatusCode.ERROR, "it never ended: the run was over before"))
            call.span.end()
        self.calls.clear()
        if self.step is not None:
            self.step.end()
            self.step = None
        _reset(self.token)

    def call_ended(self, call: OpenCall) -> None:
        """Take what was put into the context for a call out of it."""
        _reset(call.token)


class StandIn(Span):
    """Stands in OpenTelemetry's context for the span that is meant where it is asked.

    Args:
        run: The run.
        call: The number of its call, for a stand-in that is only good in that call's body; else in all of the run.
        before: What is current elsewhere.
    """

    def __init__(self, run: OpenRun, call: int | None = None, before: Span | None = None) -> None:
        self._run = run
        self._call = call
        self._before = run.around if before is None else before

    def found(self) -> tuple[Span, bool]:
        """Return the span that is meant here, and whether it is one of the run's."""
        if self._run.is_over or (self._call is not None and not self._is_in(frame.get())):
            return real_span(self._before)
        return self._run.inside(), True

    def _is_in(self, held: Frame | None) -> bool:
        while held is not None:
            if held.n == self._call and held.run.execution_id == self._run.execution_id:
                return True
            held = held.outer
        return False

    @property
    def execution_id(self) -> str:
        """Id of the run that it stands for."""
        return self._run.execution_id

    @property
    def outlived(self) -> Span | None:
        """What it stood in front of, once it will never stand for anything again; None before."""
        ended = self._run.is_over or (self._call is not None and self._call not in self._run.calls)
        return self._before if ended else None

    @property
    def _span(self) -> Span:
        return self.found()[0]

    def get_span_context(self) -> SpanContext:
        """Return that of the span that is meant."""
        return self._span.get_span_context()

    def is_recording(self) -> bool:
        """Return that of the span that is meant."""
        return self._span.is_recording()

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: the span is ended by who started it."""

    def set_attributes(self, attributes: Mapping[str, types.AnyValue]) -> None:
        """Set attributes of the span that is meant."""
        self._span.set_attributes(attributes)

    def set_attribute(self, key: str, value: types.AnyValue) -> None:
        """Set an attribute of the span that is meant."""
        self._span.set_attribute(key, value)

    def add_event(self, name: str, attributes: types.Attributes = None, timestamp: int | None = None) -> None:
        """Add an event to the span that is meant."""
        self._span.add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: types.Attributes = None) -> None:
        """Add a link to the span that is meant."""
        self._span.add_link(context, attributes)

    def update_name(self, name: str) -> None:
        """Rename the span that is meant."""
        self._span.update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status of the span that is meant."""
        self._span.set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: types.Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Record an exception in the span that is meant."""
        self._span.record_exception(exception, attributes, timestamp, escaped)


def real_span(span: Span) -> tuple[Span, bool]:
    """Return the span that is meant by a current one, and whether it is one of a run's."""
    return span.found() if isinstance(span, StandIn) else (span, False)


def living(span: Span) -> Span:
    """Return a current span without the stand-ins in front of it that were left behind, so that none pile up."""
    while isinstance(span, StandIn) and (behind := span.outlived) is not None:
        span = behind
    return span


def _reset(token: Token[Context] | None) -> None:
    """Put back what was current before. In another context there is nothing to put back: the stand-in steps aside."""
    if token is None:
        return
    try:
        token.var.reset(token)
    except (ValueError, RuntimeError):
        return
