"""What the listeners' conformance suite runs: runs in which every event happens, and a spy that hears what is told."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from oao_harness.adapters.governed import model, tool
from oao_harness.journal.recording import Recording
from oao_harness.plugins.manager import hook_names
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport
from oao_harness.stores.memory import MemoryStore
from oao_hookspecs import Ask, Decision, Deny, Limits, ModelCall, Principal, Record, Retry, RunView, ToolCall, hookimpl
from pytest_oao.testing.cases import Heard

__all__ = ["SCENARIOS", "Run", "Spy", "complaints", "replay_of", "run_scenario", "run_side_by_side"]

_OBSERVE: Final = hook_names()["observe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run, and the runs nested in it."""

    reports: Sequence[ExecutionReport]
    """The newest last; several where it was suspended."""
    store: MemoryStore

    @property
    def execution_id(self) -> str:
        """Id of the outer run."""
        return self.reports[-1].execution_id

    def journals(self) -> list[list[Record]]:
        """Return the journals, in the order in which the runs began."""
        rows = sorted(self.store.runs(None), key=lambda row: row.started_at)
        return [list(self.store.read(row.execution_id)) for row in rows]


class Spy:
    """Hears every event."""

    name = "conformance-spy"

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.told: list[tuple[str, Heard]] = []
        """Hook and event, in the order in which they were told."""
        self.runs: weakref.WeakSet[Any] = weakref.WeakSet()

    def hear(self, hook: str, event: Any, run: RunView) -> None:
        """Write down one event."""
        with self.lock:
            self.told.append((hook, Heard(event.execution_id, event.NAME)))
            self.runs.add(run)

    def heard(self, hooks: Iterable[str]) -> list[Heard]:
        """Return the events that some hooks were told."""
        wanted = set(hooks)
        with self.lock:
            return [event for hook, event in self.told if hook in wanted]


def _hearing(hook: str) -> Callable[..., None]:
    def hear(self: Spy, event: object, run: RunView) -> None:
        self.hear(hook, event, run)

    return hookimpl(hear)


for _hook in _OBSERVE:
    setattr(Spy, _hook, _hearing(_hook))


class _Rules:
    """Denies, holds and retries some tools."""

    name = "conformance-rules"

    @hookimpl
    def oao_limits(self, run: RunView) -> Limits:
        return Limits(retry=Retry(max_retries=2, initial_delay_s=0.0, backoff_factor=1.0))

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision | None:
        if call.name == "forbidden":
            return Deny(rule="conformance-deny", reason="forbidden is forbidden")
        return Ask(rule="conformance-ask", reason="somebody must look") if call.name == "held" else None

    @hookimpl
    def oao_decide_model_call(self, call: ModelCall) -> None:
        return None


@tool(effect="idempotent")
def _work(value: str) -> str:
    return f"did {value}"


@tool(name="forbidden")
def _forbidden() -> str:
    return "never"


@tool(name="held")
def _held() -> str:
    return "held"


@tool(effect="idempotent", name="flaky")
def _flaky(tries: list[int]) -> str:
    _tries.value.append(1)
    if len(_tries.value) < 2:
        raise ConnectionError("not yet")
    return "did it"


class _Tries(threading.local):
    def __init__(self) -> None:
        self.value: list[int] = []


_tries: Final = _Tries()


@model(name="model")
def _think(prompt: str) -> dict[str, object]:
    return {"content": f"about {prompt}", "usage": {"input_tokens": 7, "output_tokens": 3}}


def _plain(_orchestrator: Orchestrator, task: str) -> str:
    _work(task)
    _think(task)
    return _work("the rest")


def _fails(_orchestrator: Orchestrator, task: str) -> str:
    _work(task)
    raise ValueError("the agent fails")


def _denied(_orchestrator: Orchestrator, task: str) -> str:
    _work(task)
    return _forbidden()


def _waits(_orchestrator: Orchestrator, task: str) -> str:
    _work(task)
    return _held() + _work("after it")


def _retries(_orchestrator: Orchestrator, task: str) -> str:
    _tries.value = []
    return _flaky([])


def _nests(orchestrator: Orchestrator, task: str) -> str:
    def inner(task: str) -> str:
        return _work(f"inside of {task}")

    _work(task)
    return str(orchestrator.run(inner, task, agent_name="inner").final_output)


SCENARIOS: Final[dict[str, Callable[[Orchestrator, str], str]]] = {
    "plain": _plain,
    "fails": _fails,
    "denied": _denied,
    "waits": _waits,
    "retries": _retries,
    "nests": _nests,
}
"""Agents by what happens to them."""


def run_scenario(
    name: str, plugins: Sequence[object], *, is_async: bool = False, orchestrator: Orchestrator | None = None
) -> Run:
    """Run one of the agents; one that waits for a person is approved and goes on.

    Args:
        name: One of `SCENARIOS`.
        plugins: Listeners.
        is_async: True awaits the run in a loop.
        orchestrator: One that has the plugins already; a new one by default.
    """
    used = orchestrator or _orchestrator(plugins)

    def agent(task: str) -> str:
        return SCENARIOS[name](used, task)

    if is_async:
        reports = [asyncio.run(used.run_async(agent, "the task", agent_name=name))]
    else:
        reports = [used.run(agent, "the task", agent_name=name)]
    if reports[-1].status == "SUSPENDED":
        for question in used.approvals():
            if question.execution_id == reports[-1].execution_id:
                used.approve(question.id, by=Principal(id="conformance"))
        reports.append(used.resume(reports[-1].execution_id, agent))
    store = used.store
    if not isinstance(store, MemoryStore):
        raise TypeError(f"{store!r:.80} is no MemoryStore")
    return Run(reports=reports, store=store)


def run_side_by_side(names: Sequence[str], plugins: Sequence[object]) -> list[Run]:
    """Run some of the agents at once, each in a thread, all in one orchestrator."""
    used = _orchestrator(plugins)
    found: list[Run | BaseException] = [TimeoutError("it did not end")] * len(names)

    def run(place: int, name: str) -> None:
        try:
            found[place] = run_scenario(name, (), orchestrator=used)
        except BaseException as error:  # noqa: BLE001 - raised below
            found[place] = error

    threads = [threading.Thread(target=run, args=one, daemon=True) for one in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [one for one in found if isinstance(one, Run)]


def replay_of(run: Run, name: str, plugins: Sequence[object]) -> Run:
    """Replay the recording of a run; see `run_scenario`."""
    used = _orchestrator(plugins)

    def agent(task: str) -> str:
        return SCENARIOS[name](used, task)

    id_ = run.execution_id
    recording = Recording.from_records((id_, record) for record in run.store.read(id_))
    report = used.replay(agent, "the task", recording)
    return Run(reports=[report], store=MemoryStore())


def _orchestrator(plugins: Sequence[object]) -> Orchestrator:
    return Orchestrator(_Rules(), MemoryStore(), list(plugins))


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage()
        if "listener" in text:
            self.found.append(text if error is None else f"{text}: {type(error).__name__}: {error}")


@contextmanager
def complaints() -> Generator[list[str]]:
    """Yield a list that fills with what oao says about listeners that fail."""
    handler, logger = _Complaints(), logging.getLogger("oao")
    logger.addHandler(handler)
    try:
        yield handler.found
    finally:
        logger.removeHandler(handler)
