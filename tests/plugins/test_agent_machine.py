"""`AgentMachine`: it holds for what is sound, and finds plugins that are not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from oao_harness import MemoryStore
from oao_hookspecs import Decision, Deny, Record, RunView, Store, ToolCall, hookimpl
from pytest_oao.testing import AgentMachine

QUICK = settings(
    max_examples=10, stateful_step_count=6, deadline=None, database=None, derandomize=True,
    phases=[Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Generated rules fail on purpose, and each failure is logged with its traceback."""
    logger = logging.getLogger("oao")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


class Remembering:
    """At most three tools a run, kept in the run."""

    name = "remembering"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Decision | None:
        seen: list[str] = run.memory(self, list)
        if call.id and call.id not in seen:
            seen.append(call.id)
        return Deny(rule="three", reason="three are enough") if len(seen) > 3 else None


class Leaking:
    """At most three tools, kept in the policy."""

    name = "leaking"

    def __init__(self) -> None:
        self._seen: list[str] = []

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Decision | None:
        self._seen.append(call.id)
        return Deny(rule="three", reason="three are enough") if len(self._seen) > 3 else None


class Losing(MemoryStore):
    """Loses the outcomes of calls when it is read."""

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[Record]:
        return (record for record in super().read(execution_id, after=after) if record["type"] != "outcome")


class WithLeak(AgentMachine):
    def policies(self) -> Sequence[object]:
        return [Leaking()]


class WithLoss(AgentMachine):
    def store(self) -> Store:
        return Losing()


class Sound(AgentMachine):
    """With a policy and a store that are as they should be; it counts the ways that were taken."""

    def policies(self) -> Sequence[object]:
        return [Remembering()]

    def store(self) -> Store:
        return MemoryStore()

    taken: ClassVar[set[str]] = set()

    def _go(self, *arguments: Any, **more: Any) -> None:
        super()._go(*arguments, **more)
        self.taken.add("interrupted" if self.was_interrupted else "ran")
        if self.trial is not None and self.trial.reports:
            self.taken.add(self.trial.report.status)


def test_what_is_sound_holds() -> None:
    """Run, held, interrupted, taken over and replayed: every way is taken, as a machine that does nothing holds too."""
    Sound.taken.clear()
    run_state_machine_as_test(Sound, settings=settings(QUICK, max_examples=15))
    assert Sound.taken >= {"ran", "interrupted", "SUCCESS", "FAILED", "SUSPENDED"}


@pytest.mark.parametrize("machine", [WithLeak, WithLoss])
def test_what_is_not_is_found(machine: Callable[[], AgentMachine]) -> None:
    """A policy that remembers beyond the run, and a store that loses records."""
    with pytest.raises(Exception) as found:
        run_state_machine_as_test(machine, settings=settings(QUICK, max_examples=100))
    assert isinstance(found.value, AssertionError | LookupError) or "oao" in type(found.value).__module__
