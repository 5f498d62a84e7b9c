"""Traces runs with OpenTelemetry: a span for each run, step and call, and one for each decision against a call.

Hears what is journaled and changes nothing. What is replayed has happened before, and is not exported.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Final

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from oao_harness.listeners import conventions as names
from oao_harness.listeners import describing
from oao_harness.listeners.exporting import flush_where_nobody_else_does, tracer_provider
from oao_harness.listeners.spans import OpenCall, OpenRun, StandIn, living, real_span
from oao_hookspecs import (
    Allow,
    ApprovalAnswered,
    ApprovalRequested,
    Ask,
    CallDecided,
    CallFinished,
    CallRetried,
    Deny,
    ModelCall,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    RunView,
    StepStarted,
    ViolationFound,
    hookimpl,
)

__all__ = ["Tracing"]

_W3C: Final = TraceContextTextMapPropagator()
_TRACEPARENT: Final = "traceparent"


class Tracing:
    """A listener that traces every run it hears of; see docs/reference/tracing.md.

    One is switched on by `OTEL_EXPORTER_OTLP_ENDPOINT` alone. Pass one to an orchestrator where there is no such
    variable: `Orchestrator(plugins=[Tracing(provider)])`.

    Args:
        tracer_provider: Where spans go; by default OpenTelemetry's global one, asked for when the first run begins.
    """

    name = "tracing"

    def __init__(self, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._provider = tracer_provider
        self._runs: dict[str, OpenRun] = {}

    @functools.cached_property
    def _tracer(self) -> trace.Tracer:
        return (self._provider or tracer_provider()).get_tracer(names.SCOPE)

    @property
    def open_runs(self) -> int:
        """How many runs it holds spans of just now."""
        return len(self._runs)

    # Where a run belongs

    @hookimpl
    def oao_traceparent(self, run: RunView | None) -> str | None:
        """Name the context of a run, or of the code that submits a job; None for a replay, which is in no trace."""
        if run is None:
            span, _ = real_span(trace.get_current_span())
        else:
            held = self._runs.get(run.execution_id)
            if held is None or held.is_silent:
                return None
            span = held.span
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
        return carrier.get(_TRACEPARENT)

    @hookimpl
    def oao_run_started(self, event: RunStarted, run: RunView) -> None:
        """Begin the span of a run."""
        self._begin(event, run)

    @hookimpl
    def oao_run_resumed(self, event: RunResumed, run: RunView) -> None:
        """Begin a span for what comes now; it is linked to the one that the run began with."""
        self._begin(event, run)

    def _begin(self, event: RunStarted | RunResumed, run: RunView) -> None:
        around = living(trace.get_current_span())
        if isinstance(around, StandIn) and around.execution_id == event.execution_id:
            # Another listener traces it already: one that was passed to the orchestrator comes before that of the
            # environment.
            return
        outer = self._runs.get(event.parent) if event.parent is not None else None
        silent = (isinstance(event, RunStarted) and event.replayed) or (outer is not None and outer.is_silent)
        node_span: Span | None = None
        if silent:
            parent = span = _unsampled(around)
        else:
            parent, links = _place(event, around, outer)
            if event.node:
                node_span = self._start(names.NODE_SPAN, parent, attributes=describing.node(event), links=links)
                links = []
            if isinstance(event, RunResumed) and (began := _parsed(event.began_in)) is not None:
                links.append(Link(began, {names.LINK_KIND: names.BEGAN_IN}))
            named = names.workflow_span if describing.is_graph(event) else names.agent_span
            span = self._start(
                named(event.agent_name),
                parent if node_span is None else node_span,
                attributes=describing.run_began(event, run),
                links=links,
            )
        held = OpenRun(
            execution_id=event.execution_id,
            span=span,
            around=around,
            outer_id=parent.get_span_context().span_id,
            runs=self._runs,
            outer=outer,
            node_span=node_span,
            is_silent=silent,
        )
        self._runs[event.execution_id] = held
        held.make_current()

    @hookimpl
    def oao_run_paused(self, event: RunPaused, run: RunView) -> None:
        """End the span of a run that is put down."""
        self._end(event, run)

    @hookimpl
    def oao_run_finished(self, event: RunFinished, run: RunView) -> None:
        """End the span of a run."""
        self._end(event, run)

    def _end(self, event: RunPaused | RunFinished, run: RunView) -> None:
        held = self._runs.pop(event.execution_id, None)
        if held is None:
            return
        held.end()
        if held.is_silent:
            return
        attributes, failed = describing.run_ended(event, run, held.rule)
        for span in (held.span, held.node_span):
            if span is not None:
                span.set_attributes(attributes)
                if failed is not None:
                    span.set_status(Status(StatusCode.ERROR, failed))
                span.end()
        if held.outer is None:
            flush_where_nobody_else_does()

    # What a run does

    @hookimpl
    def oao_step_started(self, event: StepStarted) -> None:
        """Begin the span of a step, which ends the one before."""
        held = self._held(event.execution_id)
        if held is None:
            return
        before = held.step
        held.step = self._start(names.step_span(event.index), held.span, attributes=describing.step(event))
        if before is not None:
            before.end()

    @hookimpl
    def oao_call_decided(self, event: CallDecided) -> None:
        """Begin the span of a call; one that is denied ends at once."""
        held = self._held(event.execution_id)
        if held is None:
            return
        call, decision = event.call, event.decision
        parent, is_current = held.parent_of_call()
        is_model = isinstance(call, ModelCall)
        span = self._start(
            names.model_span(call.name) if is_model else names.tool_span(call.name),
            parent,
            kind=SpanKind.CLIENT if is_model else SpanKind.INTERNAL,
        )
        if span.is_recording():
            span.set_attributes(describing.call_asked(event))
            span.add_event(names.DECISION_EVENT, describing.decision(decision))
        guarded = not (isinstance(decision, Allow) and not decision.would)
        if isinstance(decision, Ask) and (call.name, decision.rule) in held.asked:
            held.asked.discard((call.name, decision.rule))
            guarded = False
        now = time.time_ns()
        opened = OpenCall(span=span, parent=parent, call=call, decision=decision, at_ns=now, guarded=guarded)
        if isinstance(decision, Deny):
            self._guard(opened)
            span.set_attributes(describing.call_denied(decision))
            span.set_status(Status(StatusCode.ERROR, describing.denial(decision)))
            span.end()
            for one in held.lineage:
                one.refused = (decision.rule, decision.reason)
            return
        held.calls[event.n] = opened
        if not is_current:
            around = living(trace.get_current_span())
            opened.token = otel.attach(trace.set_span_in_context(StandIn(held, event.n, around)))

    @hookimpl
    def oao_call_retried(self, event: CallRetried) -> None:
        """Say in the call's span that it is tried again."""
        held = self._held(event.execution_id)
        if held is not None:
            call = held.calls.get(event.n)
            (held.span if call is None else call.span).add_event(names.RETRY_EVENT, describing.retry(event))

    @hookimpl
    def oao_call_finished(self, event: CallFinished) -> None:
        """End the span of a call; what was only served from the past is dropped."""
        held = self._held(event.execution_id)
        opened = held.calls.pop(event.n, None) if held is not None else None
        if held is None or opened is None:
            return
        held.call_ended(opened)
        if event.outcome.replayed:
            return
        if opened.guarded:
            self._guard(opened)
        span = opened.span
        if span.is_recording():
            attributes, failed = describing.call_ended(event)
            span.set_attributes(attributes)
            if failed is not None:
                span.set_status(Status(StatusCode.ERROR, failed))
        span.end()

    def _guard(self, opened: OpenCall) -> None:
        """Tell of a decision that is more than a plain Allow by a span of its own."""
        attributes = describing.guardrail(opened.decision, f"{opened.call.kind} {opened.call.name}")
        self._guardrail(opened.parent, attributes, opened.at_ns, failed=isinstance(opened.decision, Deny))

    def _guardrail(self, parent: Span, attributes: describing.Attributes, at_ns: int, *, failed: bool) -> None:
        span = self._start(names.GUARDRAIL_SPAN, parent, attributes=attributes, at_ns=at_ns)
        if failed:
            span.set_status(Status(StatusCode.ERROR, str(attributes.get(names.REASON, ""))))
        span.end()

    # What is said about it

    @hookimpl
    def oao_approval_requested(self, event: ApprovalRequested) -> None:
        """Say that a call is held."""
        held = self._held(event.execution_id)
        if held is None:
            return
        held.span.add_event(names.ASKED_EVENT, describing.asked(event.request))
        held.asked.add((event.request.tool, event.request.rule))
        parent, _ = held.parent_of_call()
        self._guardrail(parent, describing.held_call(event.request), time.time_ns(), failed=False)

    @hookimpl
    def oao_approval_answered(self, event: ApprovalAnswered) -> None:
        """Say that a person, or a plugin, answered."""
        held = self._held(event.execution_id)
        if held is not None:
            held.span.add_event(names.ANSWERED_EVENT, describing.answered(event.request, event.answer))

    @hookimpl
    def oao_violation(self, event: ViolationFound) -> None:
        """Say why the run was stopped; by a span of its own where no denied call tells of it."""
        held = self._held(event.execution_id)
        if held is None:
            return
        held.rule = event.rule
        attributes = describing.violation(event)
        call = held.calls.get(event.n) if event.n is not None else None
        for span in {id(one): one for one in (held.span, held.span if call is None else call.span)}.values():
            span.add_event(names.VIOLATION_EVENT, attributes)
        if held.refused != (event.rule, event.reason):
            for one in held.lineage:
                one.refused = (event.rule, event.reason)
            self._guardrail(held.top, describing.stopped(event), time.time_ns(), failed=True)

    def _held(self, execution_id: str) -> OpenRun | None:
        held = self._runs.get(execution_id)
        return None if held is None or held.is_silent else held

    def _start(
        self,
        name: str,
        parent: Span,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: describing.Attributes | None = None,
        links: Sequence[Link] = (),
        at_ns: int | None = None,
    ) -> Span:
        # What else is in the context, such as baggage, is for the user's own processors.
        context = trace.set_span_in_context(parent)
        return self._tracer.start_span(name, context, kind, attributes, links, at_ns)


def _place(event: RunStarted | RunResumed, around: Span, outer: OpenRun | None) -> tuple[Span, list[Link]]:
    """Return the parent of a run's span, and what else it is linked to.

    That is what was current where the run began. But a nested run stays in the trace of the run around it, and a job
    in that of who submitted it: what a worker traces of its own is only linked.
    """
    found, _ = real_span(around)
    here = found.get_span_context()
    if outer is not None:
        same = here.is_valid and here.trace_id == outer.span.get_span_context().trace_id
        return (found if same else outer.inside()), []
    submitter = _parsed(event.traceparent)
    if submitter is None or (here.is_valid and here.trace_id == submitter.trace_id):
        return found, []
    links = [Link(here, {names.LINK_KIND: names.AROUND})] if here.is_valid else []
    return NonRecordingSpan(submitter), links


def _parsed(traceparent: str) -> SpanContext | None:
    """Return a W3C trace context, or None where there is none that can be read."""
    if not traceparent:
        return None
    found = trace.get_current_span(_W3C.extract({_TRACEPARENT: traceparent}, Context())).get_span_context()
    return found if found.is_valid else None


def _unsampled(around: Span) -> Span:
    """Return a span that is never exported, and neither is what the agent's own code starts in it."""
    said = real_span(around)[0].get_span_context()
    ids = RandomIdGenerator()
    return NonRecordingSpan(
        SpanContext(
            said.trace_id if said.is_valid else ids.generate_trace_id(),
            said.span_id if said.is_valid else ids.generate_span_id(),
            is_remote=False,
            trace_flags=TraceFlags(TraceFlags.DEFAULT),
        )
    )
