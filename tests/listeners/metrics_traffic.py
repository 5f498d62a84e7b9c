"""Runs that do everything a metric is about, and how the tests read an exposition."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from oao_harness import Orchestrator, Retries, SQLiteStore, model, tool
from oao_harness.fleet.agents import Agents
from oao_harness.fleet.worker import Fleet
from oao_harness.journal.recording import Recording
from oao_harness.listeners.metrics import Metrics
from oao_harness.listeners.metrics_exposition import Exposition, asked_of_loop
from oao_harness.stores.observed import ObservedStore
from oao_hookspecs import Ask, Deny, Limits, Price, Principal, Retry, ToolCall, hookimpl

if TYPE_CHECKING:
    from oao_hookspecs import ModelCall, RunView

__all__ = ["Policy", "ask", "busy_page", "find", "samples", "value"]

ME = Principal(id="me")


@tool(effect="pure")
def find(query: str) -> str:
    if query == "nothing":
        raise LookupError("nothing found")
    if query == "once" and not find.failed:  # type: ignore[attr-defined]
        find.failed = True  # type: ignore[attr-defined]
        raise ConnectionError("away")
    return f"found {query}"


find.failed = False  # type: ignore[attr-defined]


@tool
def pay(amount: int) -> str:
    return f"paid {amount}"


@tool
def erase(what: str) -> str:
    return f"erased {what}"


@model(name="model-x")
def ask(prompt: str) -> dict[str, Any]:
    return {"content": f"about {prompt}", "usage": {"input_tokens": 100, "output_tokens": 20}}


class Policy:
    """Asks about `pay`, refuses `erase`, limits much, knows prices."""

    @hookimpl
    def oao_limits(self, run: RunView) -> Limits:
        retry = Retry(max_retries=2, initial_delay_s=0.0, backoff_factor=1.0)
        return Limits(max_steps=10, max_tokens=1000, max_cost_usd=10.0, timeout_s=60.0, retry=retry)

    @hookimpl
    def oao_price(self, call: ModelCall) -> Price:
        return Price(input_per_million=10_000.0, output_per_million=10_000.0)

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Ask | Deny | None:
        if call.name == "erase":
            return Deny(rule="no-erasing", reason="never")
        return Ask(rule="paying", reason="pays") if call.name == "pay" else None


def desk(task: str) -> str:
    find.failed = False  # type: ignore[attr-defined]
    find("once")
    try:
        find("nothing")
    except LookupError:
        pass
    return str(ask(task)["content"])


def payer(task: str) -> str:
    return str(pay(5))


def eraser(task: str) -> str:
    return str(erase(task))


async def busy_page(folder: Path, accept: str = "") -> str:
    """Return the page of a process in which everything has happened that a metric is about."""
    metrics = Metrics()
    store = ObservedStore(SQLiteStore(folder / "busy.db"), metrics.appended)
    orchestrator = Orchestrator(Policy(), store, [metrics])
    done = orchestrator.run(desk, "a")
    assert done.status == "SUCCESS", done.error
    assert orchestrator.run(eraser, "all").status == "FAILED"
    held = orchestrator.run(payer, "go")
    assert held.status == "SUSPENDED"
    orchestrator.reject(held.execution_id, by=ME, note="no")
    orchestrator.run(payer, "waits")
    recording = Recording.from_records(list(store.read(done.execution_id)))
    assert orchestrator.replay(desk, "a", recording).status == "SUCCESS"

    fails = [ConnectionError("away")]

    def flaky(task: str) -> str:
        if fails:
            raise fails.pop()
        return "done"

    fleet = Fleet("local:", store, Agents.of({"flaky": flaky}), plugins=[metrics])
    stop = asyncio.Event()
    working = asyncio.create_task(fleet.work(1, stop))
    job = await fleet.submit("flaky", "x", retries=Retries(times=2, first_s=0.01))
    report = await fleet.fetch(job, 20)
    assert report is not None
    assert report.status == "SUCCESS"
    page = Exposition(metrics, store=store, stats=asked_of_loop(asyncio.get_running_loop(), fleet.stats))
    body, _ = await asyncio.to_thread(page.answer, accept)
    stop.set()
    await working
    await fleet.close()
    return body.decode()


def samples(page: str) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return all series of a page in the text format."""
    families = text_string_to_metric_families(page)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(page: str, name: str, /, **labels: str) -> float | None:
    """Return one series, None where it is not there."""
    return samples(page).get((name, frozenset(labels.items())))
