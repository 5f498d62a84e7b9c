"""One trace from a client of the server to the tool call in a worker: real processes, queue and collector."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("docket")

from pytest_oao.testing import RedisServer
from tests.listeners.collector import Collector, Sent, collecting, orphans, tree, wait_for

ROOT = Path(__file__).parents[2]
AGENTS = '''
"""Agents that are traced."""
import asyncio
import logging

from oao_harness import TaskGraph, TaskNode, tool

log = logging.getLogger("shop")


@tool(effect="pure")
def look(what: str) -> str:
    log.warning("looks for %s", what)
    return f"saw {what}"


@tool(effect="once")
def pay(amount: int) -> str:
    return f"paid {amount}"


async def support(task):
    await asyncio.sleep(0)
    return look(task)


def support_sync(task):
    return look(task)


def payer(task):
    look("the order")
    return pay(task)


def second(task):
    return look("second")


both = TaskGraph([TaskNode("a", support_sync, "first"), TaskNode("b", second, lambda outputs: "", {"a"})], name="both")
'''
PROJECT = """
[tool.oao.agents]
support = "traced_shop:support"
support-sync = "traced_shop:support_sync"
both = "traced_shop:both"

[tool.oao.agents.payer]
agent = "traced_shop:payer"
policy = "desk.toml"
"""
DESK = """
[tools]
allow = ["look"]
ask = ["pay"]
"""


class Shop:
    """A server and a worker that send their traces to a collector, and a client with a trace of its own."""

    def __init__(self, folder: Path, url: str, collector: Collector) -> None:
        self.folder = folder
        self.collector = collector
        self.client = httpx.Client(base_url=url, timeout=30)

    def ask(self, path: str, body: object = None) -> tuple[Any, str, str]:
        """Post something as a part of a new trace; return the answer, the trace and the client's span in it."""
        trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
        answer = self.client.post(path, json=body, headers={"traceparent": f"00-{trace_id}-{span_id}-01"})
        assert answer.is_success, answer.text
        return answer.json(), trace_id, span_id

    def report(self, execution_id: str, status: str = "SUCCESS") -> dict[str, Any]:
        """Wait for what becomes of a run."""
        found: dict[str, Any] = {}

        def is_there() -> bool:
            found.update(self.client.get(f"/runs/{execution_id}").json())
            return bool(found["status"] == status)

        wait_for(is_there, 30)
        return found

    def trace(self, trace_id: str, spans: int) -> list[Sent]:
        """Return what was sent of a trace by oao's listener and by the server, as soon as that much has come."""

        def ours() -> list[Sent]:
            return [one for one in self.collector.spans if one.trace_id == trace_id and one.scope in {"fastapi", "oao"}]

        self.collector.until(lambda _: len(ours()) >= spans)
        return ours()

    def logs(self, process: str) -> list[dict[str, str]]:
        """Return what a process has logged until now."""
        text = (self.folder / f"{process}.log").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """All of it, until the end of the module."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / ".git").mkdir()
    for name, text in (("traced_shop.py", AGENTS), ("pyproject.toml", PROJECT), ("desk.toml", DESK)):
        (folder / name).write_text(text, encoding="utf-8")
    with ExitStack() as open_:
        try:
            redis = open_.enter_context(RedisServer("--appendonly", "yes"))
        except FileNotFoundError as error:
            pytest.skip(str(error))
        collector = open_.enter_context(collecting())
        plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        environ = {
            **plain,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")]),
            "OAO_SCHEDULER": redis.url,
            "OAO_STORE": redis.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

        def begun(name: str, *options: str) -> dict[str, Any]:
            with (folder / f"{name}.log").open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "oao_harness", *options, "--json", "--log-format", "json"],
                    cwd=folder,
                    env={**environ, "OTEL_SERVICE_NAME": name},
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            open_.callback(_ended, process)
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (folder / f"{name}.log").read_text()
            said: dict[str, Any] = json.loads(line)
            return said

        begun("worker", "worker", "--store", redis.url)
        made = Shop(folder, begun("server", "serve", "--port", "0", "--grace", "1")["url"], collector)
        open_.callback(made.client.close)
        yield made


def _ended(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate(timeout=10)


def services(spans: list[Sent]) -> dict[str, str]:
    return {span.name: span.service for span in spans}


def test_a_job_is_one_trace_from_the_client_to_the_tool_in_the_worker(shop: Shop) -> None:
    """Its spans hang together over HTTP, the queue and two processes."""
    asked, trace_id, span_id = shop.ask("/jobs", {"agent": "support", "task": "x"})
    shop.report(asked["execution_id"])
    spans = shop.trace(trace_id, 3)
    assert tree(spans, span_id) == ["POST /jobs", "  orchestrator.run", "    tool.execute look"]
    assert services(spans) == {"POST /jobs": "server", "orchestrator.run": "worker", "tool.execute": "worker"}
    assert orphans(spans, frozenset({span_id})) == []


@pytest.mark.parametrize("agent", ["support", "support-sync"])
def test_a_run_in_the_server_is_in_the_clients_trace(shop: Shop, agent: str) -> None:
    """Although the agent runs in an event loop and a thread of its own."""
    asked, trace_id, span_id = shop.ask("/run", {"agent": agent, "task": "x"})
    assert asked["status"] == "SUCCESS"
    spans = shop.trace(trace_id, 3)
    assert tree(spans, span_id) == ["POST /run", "  orchestrator.run", "    tool.execute look"]
    assert services(spans) == dict.fromkeys(services(spans), "server")


GRAPH = [
    "  dag.execute",
    "    dag.schedule_task a",
    "      orchestrator.run a",
    "        tool.execute look",
    "    dag.schedule_task b",
    "      orchestrator.run b",
    "        tool.execute look",
]


@pytest.mark.parametrize("path", ["/run", "/jobs"])
def test_a_graph_is_in_the_clients_trace(shop: Shop, path: str) -> None:
    """With its nodes, in the server as in a worker."""
    asked, trace_id, span_id = shop.ask(path, {"agent": "both", "task": "x"})
    shop.report(asked["execution_id"])
    spans = shop.trace(trace_id, 8)
    assert tree(spans, span_id) == [f"POST {path}", *GRAPH]
    assert orphans(spans, frozenset({span_id})) == []


def test_several_runs_of_one_request_are_in_its_trace(shop: Shop) -> None:
    """Each below the request."""
    _, trace_id, span_id = shop.ask("/run-multi", {"agents": ["support", "support-sync"], "task": "x"})
    spans = shop.trace(trace_id, 5)
    run = ["  orchestrator.run", "    tool.execute look"]
    assert tree(spans, span_id) == ["POST /run-multi", *run, *run]


def asked_and_approved(shop: Shop, path: str) -> tuple[Sent, Sent, list[Sent], str]:
    """Return the two parts of a run that a person approved, what was sent of the approval, and its client's span."""
    asked, first_id, _ = shop.ask(path, {"agent": "payer", "task": 5})
    id_ = asked["execution_id"]
    shop.report(id_, "SUSPENDED")
    (question,) = (one for one in shop.client.get("/approvals").json() if one["execution_id"] == id_)
    _, second_id, span_id = shop.ask(f"/approvals/{question['id']}/approve")
    shop.report(id_)

    def parts(_: Collector) -> list[Sent]:
        runs = [one for one in shop.collector.spans if one.attributes.get("oao.execution_id") == id_]
        return [one for one in runs if one.name == "orchestrator.run"]

    shop.collector.until(lambda one: len(parts(one)) == 2)
    first, second = sorted(parts(shop.collector), key=lambda one: one.start_ns)
    assert first.trace_id == first_id
    assert (first.trace_id, first.span_id) in second.links
    assert [one.attributes["oao.status"] for one in (first, second)] == ["SUSPENDED", "SUCCESS"]
    below = [one for one in shop.collector.spans if one.parent_id == second.span_id]
    # What was made before the person was asked is not sent again.
    assert [one.attributes.get("gen_ai.tool.name") for one in below if one.name == "tool.execute"] == ["pay"]
    return first, second, [one for one in shop.collector.spans if one.trace_id == second_id], span_id


def test_a_run_goes_on_in_the_trace_of_who_approves(shop: Shop) -> None:
    """In the background of that request, and linked to the part before."""
    _, second, spans, span_id = asked_and_approved(shop, "/run")
    assert second.service == "server"
    assert orphans(spans, frozenset({span_id})) == []
    (request,) = (one for one in spans if one.parent_id == span_id)
    assert second.parent_id == request.span_id


def test_a_job_goes_on_in_the_trace_that_it_was_submitted_in(shop: Shop) -> None:
    """In a worker, linked to the part before."""
    first, second, _, _ = asked_and_approved(shop, "/jobs")
    assert second.service == "worker"
    assert (second.trace_id, second.parent_id) == (first.trace_id, first.parent_id)


def test_a_replay_sends_nothing_but_the_request(shop: Shop) -> None:
    """What happened once is told once."""
    ran, _, _ = shop.ask("/run", {"agent": "both", "task": "x"})
    played, trace_id, span_id = shop.ask(f"/runs/{ran['execution_id']}/replay")
    assert played["status"] == "SUCCESS"
    # What comes later was made later: when this has come, the replay's would have come too.
    _, later_id, _ = shop.ask("/run", {"agent": "support", "task": "x"})
    shop.trace(later_id, 3)
    spans = shop.trace(trace_id, 1)
    assert tree(spans, span_id) == ["POST /runs/{execution_id}/replay"]
    assert len(spans) == 1


@pytest.mark.parametrize(("path", "process"), [("/run", "server"), ("/jobs", "worker")])
def test_log_records_say_run_and_trace(shop: Shop, path: str, process: str) -> None:
    """Those of the agent's own code, in whatever process it runs."""
    asked, trace_id, _ = shop.ask(path, {"agent": "support", "task": "what is logged"})
    id_ = asked["execution_id"]
    shop.report(id_)
    (line,) = (one for one in shop.logs(process) if one["execution_id"] == id_)
    assert (line["message"], line["logger"], line["trace_id"]) == ("looks for what is logged", "shop", trace_id)
    (call,) = (one for one in shop.trace(trace_id, 3) if one.name == "tool.execute")
    assert line["span_id"] == call.span_id


STREAMS = (
    "/events",
    "/runs/{id}/events",
    "/ui/live",
    "/ui/runs/{id}/live",
    "/ui/approvals/live",
    "/ui/fleet/live",
)


def test_streams_are_in_no_trace(shop: Shop) -> None:
    """They are open for hours and tell nothing; nor are health checks and metrics."""
    ran, _, _ = shop.ask("/run", {"agent": "support", "task": "x"})
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    for path in STREAMS:
        with shop.client.stream("GET", path.format(id=ran["execution_id"]), headers=headers) as stream:
            assert stream.status_code == 200
            next(stream.iter_lines())
    for name in ("/healthz", "/readyz", "/metrics"):
        assert shop.client.get(name, headers=headers).status_code == 200
    assert shop.client.get("/runs", headers=headers).status_code == 200
    assert [one.name for one in shop.trace(trace_id, 1)] == ["GET /runs"]
