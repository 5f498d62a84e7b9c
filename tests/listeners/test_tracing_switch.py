"""What switches tracing on and off, whose provider is used, and what it costs; in processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from oao_harness import Orchestrator
from oao_harness.listeners import registry
from tests.listeners.collector import Collector, collecting, orphans, tree

ROOT = Path(__file__).parents[2]

AGENT = """
    import oao_harness as oao

    @oao.tool
    def look(what):
        return f"saw {what}"

    def agent(task):
        return look(task)
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that listens."""
    with collecting() as made:
        yield made


def environment(**more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return {**plain, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")]), "NO_COLOR": "1", **more}


def python(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent(AGENT) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder, env=environment(**env), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_variable_alone_switches_it_on(collector: Collector, tmp_path: Path) -> None:
    """`OTEL_EXPORTER_OTLP_ENDPOINT` and `oao run`: the run is in the trace before the command has ended."""
    (tmp_path / "shop.py").write_text(textwrap.dedent(AGENT), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "oao_harness", "run", "shop:agent", "the sea"],
        cwd=tmp_path, env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert tree(collector.spans) == ["orchestrator.run", "  tool.execute look"]
    assert {span.service for span in collector.spans} == {"oao"}


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_switched_off_it_is_not_even_imported(env: dict[str, str], tmp_path: Path) -> None:
    """Nobody hears the hooks, no module of OpenTelemetry is loaded."""
    code = """
        import sys
        orchestrator = oao.Orchestrator()
        assert orchestrator.run(agent, "x").status == "SUCCESS"
        heard = [name for name in ("oao_run_started", "oao_call_decided", "oao_call_finished", "oao_traceparent")
                 if orchestrator._hooks.heard(name)]
        print(heard, [name for name in sys.modules if name.startswith("opentelemetry")])
    """
    done = python(code, tmp_path, **env)
    assert done.stdout.strip() == "[] []", done.stderr


def test_each_manager_gets_the_same_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched on, there is one for the process."""
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/v1/traces")
    (first,), (second,) = registry.oao_listeners(), registry.oao_listeners()
    assert first is second
    assert Orchestrator()._hooks.heard("oao_call_decided")


def test_without_the_package_there_is_one_warning(tmp_path: Path) -> None:
    """It says what to install, once, and the runs go on."""
    code = """
        import sys
        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.startswith("opentelemetry"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Missing())
        print(oao.Orchestrator().run(agent, "x").status, oao.Orchestrator().run(agent, "x").status)
    """
    done = python(code, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert done.stdout.strip() == "SUCCESS SUCCESS"
    assert done.stderr.count("install oao-harness[otel]") == 1
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http/json"])
def test_a_protocol_that_is_not_there_is_named(protocol: str, tmp_path: Path) -> None:
    """A clear message, and the run goes on."""
    if protocol == "grpc":
        try:
            import opentelemetry.exporter.otlp.proto.grpc  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("the grpc exporter is installed")
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    done = python("print(oao.Orchestrator().run(agent, 'x').status)", tmp_path, **env)
    assert done.stdout.strip() == "SUCCESS"
    assert f"OTEL_EXPORTER_OTLP_PROTOCOL is '{protocol}'" in done.stderr
    assert "runs go on without traces" in done.stderr


def test_the_users_own_provider_is_used(collector: Collector, tmp_path: Path) -> None:
    """Nothing is added to it: what it does with spans is all that happens to them, whatever the variable says."""
    code = """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        orchestrator = oao.Orchestrator()
        kept, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(kept))
        trace.set_tracer_provider(provider)
        orchestrator.run(agent, "x")
        print([span.name for span in kept.get_finished_spans()], trace.get_tracer_provider() is provider)
    """
    done = python(code, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert done.stdout.strip() == "['tool.execute', 'orchestrator.run'] True", done.stderr
    assert collector.requests == 0


@pytest.mark.parametrize("kind", ["refuses", "hangs"])
def test_a_collector_that_is_down_harms_nobody(kind: str, tmp_path: Path) -> None:
    """The run is as fast and as good as ever, and the process ends soon after it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if kind == "hangs":
            listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        code = """
            import json, time
            began = time.perf_counter()
            report = oao.Orchestrator().run(agent, "x")
            print(json.dumps([report.status, time.perf_counter() - began]), flush=True)
        """
        began = time.monotonic()
        done = python(code, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url)
        took_s = time.monotonic() - began
    status, run_s = json.loads(done.stdout)
    print(f"{kind}: run {run_s:.3f} s, process {took_s:.3f} s")
    assert (done.returncode, status) == (0, "SUCCESS")
    assert run_s < 2
    assert took_s < 3 + 3  # three to start Python and import all that


def test_what_a_call_costs_does_not_grow(tmp_path: Path, capsys: Any) -> None:
    """Per call, in one run of many: printed, flat, and nothing is kept once the run is over."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    import oao_harness as oao
    from oao_harness.listeners.tracing import Tracing

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    @oao.tool
    def look(what: int) -> int:
        return what

    times: list[float] = []

    def agent(calls: int) -> None:
        for _ in range(5):
            began = time.perf_counter()
            for i in range(calls // 5):
                look(i)
            times.append((time.perf_counter() - began) / (calls // 5) * 1e6)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=20_000))
    tracing = Tracing(provider)
    found = {}
    for name, plugins in (("without", []), ("with", [tracing]), ("without again", [])):
        times.clear()
        assert Orchestrator(plugins=plugins).run(agent, 5_000).status == "SUCCESS"
        found[name] = list(times)
    provider.shutdown()
    with capsys.disabled():
        print(*(f"\n{name}: " + " ".join(f"{one:.0f}" for one in times) + " us/call" for name, times in found.items()))
    assert tracing.open_runs == 0
    assert min(found["with"][3:]) < 3 * min(found["with"][:2])


def test_log_fields_are_added_to_all_records(tmp_path: Path) -> None:
    """Without OpenTelemetry, which a log line does not import, there is the run's id."""
    code = """
        import logging, sys
        from oao_harness.listeners.logs import install_log_fields
        logging.basicConfig(format="%(execution_id)s|%(trace_id)s|%(message)s", stream=sys.stdout)
        install_log_fields(); install_log_fields()
        def talks(task):
            logging.warning("inside")
        logging.warning("outside")
        oao.Orchestrator().run(talks, "x", execution_id="r1")
        print(any(name.startswith("opentelemetry") for name in sys.modules))
    """
    done = python(code, tmp_path)
    assert done.stdout.splitlines() == ["||outside", "r1||inside", "False"], done.stderr


def test_a_trace_goes_from_the_request_to_the_tool(collector: Collector, tmp_path: Path) -> None:
    """An ASGI application is wrapped where traces are on: the caller's trace, the request, the run, the tool."""
    code = """
        import asyncio
        from oao_harness.listeners.tracing_http import traced_app

        async def app(scope, receive, send):
            if scope["path"] == "/run":
                await oao.Orchestrator().run_async(agent, "x")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        traced = traced_app(app)
        print(traced is app)

        async def ask(path):
            scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
                     "scheme": "http", "query_string": b"", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9),
                     "root_path": "", "raw_path": path.encode(),
                     "headers": [(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")]}
            async def receive():
                return {"type": "http.request", "body": b"", "more_body": False}
            async def send(message):
                pass
            await traced(scope, receive, send)

        async def main():
            for path in ("/healthz", "/runs/1/events", "/static/a.css", "/metrics", "/readyz", "/run"):
                await ask(path)
        asyncio.run(main())
    """
    done = python(code, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert done.stdout.strip() == "False", done.stderr
    request, run, call = sorted(collector.spans, key=lambda span: span.start_ns)
    assert {span.trace_id for span in collector.spans} == {"a" * 32}
    assert (request.parent_id, run.parent_id, call.parent_id) == ("b" * 16, request.span_id, run.span_id)
    assert (run.name, call.name) == ("orchestrator.run", "tool.execute")
    assert orphans(collector.spans, frozenset({"b" * 16})) == []
    assert (
        python(
            "from oao_harness.listeners.tracing_http import traced_app; print(traced_app(agent) is agent)", tmp_path
        ).stdout.strip()
        == "True"
    )
