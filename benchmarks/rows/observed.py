"""The same LangGraph agent with all that a deployment turns on: a journal in SQLite, metrics, traces."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.contending import CPU_US, WALL_US, Contender, Goal, Row
from benchmarks.rows.agent import BARE, GOVERNED, KINDS, agent_of, named, run_of
from benchmarks.timing import Measure, timed

HERE = "benchmarks.rows.observed"
FULL = "SQLite, metrics, traces"
PARTS = {
    "SQLite": ("sqlite",),
    "metrics": ("metrics",),
    "traces": ("traces",),
    FULL: ("sqlite", "metrics", "traces"),
}
PACKAGES = ("opentelemetry-sdk", "prometheus-client")


def row() -> Row:
    bare = [
        Contender(name=named(BARE, kind), make="benchmarks.rows.agent:bare", options={"kind": kind}) for kind in KINDS
    ]
    instant = named(BARE, "instant")
    parts = [
        Contender(name=f"{GOVERNED}, {name}", make=f"{HERE}:governed", options={"kind": "instant", "parts": parts})
        for name, parts in PARTS.items()
        if name != FULL
    ]
    full = [
        Contender(
            name=f"{GOVERNED}, {FULL}, {KINDS[kind]}",
            make=f"{HERE}:governed",
            options={"kind": kind, "parts": PARTS[FULL]},
            packages=PACKAGES,
        )
        for kind in KINDS
    ]
    plain = Contender(name=f"{GOVERNED}, memory", make=f"{HERE}:governed", options={"kind": "instant", "parts": ()})
    return Row(
        id="observed",
        title="the same with SQLite journal, metrics and tracing",
        how="The agent of the row before; the journal in a SQLite file (WAL, flushed to the operating system with "
        "every record), all metrics, and a span for each run, step and call, ended into an exporter that drops it in a "
        "thread of its own. Processor time of the whole process, and the wall, in which a wait for the disk counts.",
        figures=(CPU_US, WALL_US),
        contenders=(bare[0], plain, *parts, full[0], bare[1], full[1], bare[2], full[2]),
        goals=tuple(
            Goal(
                says=f"under 15 % more, {words}",
                contender=full[number].name,
                at_most=1.15,
                than=(bare[number].name,),
                figure="wall_us",
            )
            for number, words in enumerate(KINDS.values())
        ),
        beside=instant,
        rounds=11,
    )


def governed(*, kind: str, parts: tuple[str, ...]) -> Measure:
    import oao_harness as oao

    plugins: list[object] = []
    if "metrics" in parts:
        from oao_harness.listeners.metrics import Metrics

        plugins.append(Metrics())
    if "traces" in parts:
        plugins.append(traced())
    store = f"sqlite:{Path(tempfile.mkdtemp(prefix='oao-bench-')) / 'oao.db'}" if "sqlite" in parts else None
    orchestrator = oao.Orchestrator(policy=oao.StrictPolicy(timeout_seconds=None), store=store, plugins=plugins)
    return timed(run_of(orchestrator, agent_of(kind)))


def traced() -> object:
    """Return the listener for traces, with an exporter that takes spans in batches and sends them nowhere."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    from oao_harness.listeners.tracing import Tracing

    class Nowhere(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return Tracing(provider)
