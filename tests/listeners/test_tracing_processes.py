"""One trace over processes: who submits, a real queue, the worker that does the job, and the process it does it in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("docket")

from pytest_oao.testing import RedisServer
from tests import forked
from tests.listeners.collector import Collector, Sent, collecting, orphans, tree

ROOT = Path(__file__).parents[2]
AGENTS = """
    from pathlib import Path
    import oao_harness as oao

    @oao.tool(effect="idempotent")
    def look(what):
        return f"saw {what}"

    def support(task):
        return look(task)

    def flaky(task):
        look("first")
        if not Path("bank_is_up").exists():
            Path("bank_is_up").touch()
            raise ConnectionError("the bank does not answer")
        return look("second")
"""
PROJECT = "[tool.oao.agents]\nsupport = 'trace_shop:support'\nflaky = 'trace_shop:flaky'\n"
SUBMIT = """
    import asyncio, os
    from opentelemetry import trace
    from oao_harness import Fleet, Retries
    from oao_harness.listeners.exporting import tracer_provider

    async def main():
        fleet = Fleet(os.environ["OAO_SCHEDULER"], os.environ["OAO_SCHEDULER"])
        with tracer_provider().get_tracer("shop").start_as_current_span("the request"):
            id_ = await fleet.submit(os.environ["AGENT"], "x", retries=Retries(times=2, first_s=0.1))
        report = await fleet.fetch(id_, 40)
        await fleet.close()
        print(report.status)

    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis."""
    try:
        made = RedisServer("--appendonly", "yes")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with agents."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "trace_shop.py").write_text(textwrap.dedent(AGENTS), encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that listens."""
    with collecting() as made:
        yield made


@contextmanager
def working(folder: Path, env: dict[str, str], *more: str) -> Iterator[None]:
    """A worker, stopped as an operator does it."""
    process = forked.popen(["oao_harness", "worker", "--json", *more], cwd=folder, env=env, frameworks=True)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "started"
        yield
        process.terminate()
        process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate(timeout=10)


def submitted(agent: str, folder: Path, server: RedisServer, collector: Collector, *worker: str) -> list[Sent]:
    """Return what was traced of a job that another process submitted and a worker did."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env = {
        **plain,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hookspecs"), str(folder)]),
        "OAO_SCHEDULER": f"{server.url}?prefix=trace-{folder.name}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "AGENT": agent,
    }
    with working(folder, {**env, "OTEL_SERVICE_NAME": "worker"}, *worker):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(SUBMIT)],
            cwd=folder, env={**env, "OTEL_SERVICE_NAME": "shop"}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    assert done.stdout.strip() == "SUCCESS", done.stderr
    return collector.spans


def ours(spans: list[Sent]) -> list[Sent]:
    """The trace of the request, without what libraries trace of themselves."""
    (request,) = (span for span in spans if span.name == "the request")
    return [span for span in spans if span.trace_id == request.trace_id and span.scope in {"shop", "oao"}]


def test_one_trace_from_who_submits_to_the_tool_in_the_worker(
    folder: Path, server: RedisServer, collector: Collector
) -> None:
    """The request in one process, the run and its call in another, over a real queue."""
    spans = submitted("support", folder, server, collector)
    assert tree(ours(spans)) == ["the request", "  orchestrator.run", "    tool.execute look"]
    assert {span.name: span.service for span in ours(spans)} == {
        "the request": "shop",
        "orchestrator.run": "worker",
        "tool.execute": "worker",
    }
    assert orphans(spans) == []
    (run,) = (span for span in spans if span.name == "orchestrator.run")
    assert run.attributes["oao.queue.waited_s"] >= 0


def test_a_job_that_is_tried_again_stays_in_its_trace(folder: Path, server: RedisServer, collector: Collector) -> None:
    """Two spans of the run below the request; the second is linked to the first, and makes only what was not made."""
    spans = submitted("flaky", folder, server, collector)
    assert tree(ours(spans)) == [
        "the request",
        "  orchestrator.run",
        "    tool.execute look",
        "  orchestrator.run",
        "    tool.execute look",
    ]
    first, second = sorted((one for one in spans if one.name == "orchestrator.run"), key=lambda one: one.start_ns)
    assert (first.attributes["oao.status"], second.attributes["oao.status"]) == ("QUEUED", "SUCCESS")
    assert (first.trace_id, first.span_id) in second.links
    assert orphans(spans) == []


def test_a_job_in_a_process_of_its_own_is_in_the_trace(folder: Path, server: RedisServer, collector: Collector) -> None:
    """That process ends at once when the job is done; its spans are sent before."""
    spans = submitted("support", folder, server, collector, "--isolation", "process")
    assert tree(ours(spans)) == ["the request", "  orchestrator.run", "    tool.execute look"]
