"""What every listener promises, as tests that the author of a listener inherits.

```python
class TestMyListener(ListenerConformance):
    @pytest.fixture
    def listener(self, tmp_path):
        return MyListener(tmp_path / "audit.jsonl")

    @pytest.fixture
    def heard(self, tmp_path):
        return lambda: read_back(tmp_path / "audit.jsonl")  # a list of Heard
```
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

import pytest

from oao_harness.plugins.manager import hook_names, make_manager
from oao_hookspecs import hookimpl
from pytest_oao.testing.capabilities import Declaring, needs
from pytest_oao.testing.cases import Heard
from pytest_oao.testing.listener_runs import (
    SCENARIOS,
    Run,
    Spy,
    complaints,
    replay_of,
    run_scenario,
    run_side_by_side,
)
from pytest_oao.testing.program_checks import shown

__all__ = ["ListenerConformance"]

_each = pytest.mark.parametrize("scenario", SCENARIOS)


class ListenerConformance(Declaring):
    """Inherit it in a class whose name starts with `Test`, and override the fixture `listener`.

    Override `heard` where the listener keeps what it heard: else the suite tests only that it does no harm.

    A listener may declare (`CANNOT`) that it cannot `forget` runs (it holds them after their end), hear `threads`
    (runs side by side), or hear `replays` (it leaves them out).
    """

    SOON_S = 0.05
    """Seconds that hearing one event may take on average."""

    @pytest.fixture
    def listener(self) -> object:
        """Override this: return a new listener."""
        raise NotImplementedError("override the fixture `listener` in your class")

    @pytest.fixture
    def heard(self) -> Callable[[], Sequence[Heard]] | None:
        """Override this where you can: return what reads back all that the listener has kept, in its order."""
        return None

    def test_it_is_a_listener(self, listener: object) -> None:
        """It has hooks that observe, and none that oao does not know."""
        assert _hooks_of(listener) & set(hook_names()["observe"]), "it has no hook that observes; see `oao hooks`"

    def test_it_decides_nothing(self, listener: object) -> None:
        """A plugin that decides is a policy, and only decides where configuration names it."""
        assert not _hooks_of(listener) & set(hook_names()["decide"])

    @_each
    @pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
    def test_runs_are_the_same_without_it(self, listener: object, scenario: str, is_async: bool) -> None:
        """The same outcome, output and totals, and the same journal, record by record."""
        with_it = run_scenario(scenario, [listener], is_async=is_async)
        without = run_scenario(scenario, [], is_async=is_async)
        assert _ends(with_it) == _ends(without)
        assert [shown(one) for one in with_it.journals()] == [shown(one) for one in without.journals()]

    @_each
    @pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
    def test_it_fails_at_no_event(self, listener: object, scenario: str, is_async: bool) -> None:
        """A listener that raises is muted from then on, and hears nothing more."""
        with complaints() as found:
            run_scenario(scenario, [listener], is_async=is_async)
        assert found == []

    @_each
    def test_every_event_is_heard_once_and_in_order(
        self, listener: object, heard: Callable[[], Sequence[Heard]] | None, scenario: str
    ) -> None:
        """As it was journaled: what it keeps of a name, it keeps for every event of that name."""
        spy = Spy()
        run_scenario(scenario, [listener, spy])
        _assert_heard(listener, heard, spy)

    @needs("threads")
    def test_runs_side_by_side_are_heard(self, listener: object, heard: Callable[[], Sequence[Heard]] | None) -> None:
        """Each in its order, none mixed up with another, and each as it is alone."""
        names = [*SCENARIOS] * 2
        spy = Spy()
        with complaints() as found:
            runs = run_side_by_side(names, [listener, spy])
        assert found == []
        for name, run in zip(names, runs, strict=True):
            assert _ends(run) == _ends(run_scenario(name, []))
        if heard is not None:
            kept = _kept(heard)
            for id_ in {event.execution_id for event in spy.heard(_hooks_of(listener))}:
                assert [one for one in kept if one.execution_id == id_] == _of(
                    [one for one in spy.heard(_hooks_of(listener)) if one.execution_id == id_], kept
                )

    def test_a_replay_is_the_same_with_it(self, listener: object) -> None:
        """It hears a replay as it hears a run, `replayed` or not; the verdict is not its own."""
        live = run_scenario("plain", [])
        with complaints() as found:
            replayed = replay_of(live, "plain", [listener])
        assert found == []
        assert _ends(replayed) == _ends(live)

    @needs("replays")
    def test_a_replay_is_heard(self, listener: object, heard: Callable[[], Sequence[Heard]] | None) -> None:
        """Every event of it: that nothing happened is for the reader to see."""
        live, spy = run_scenario("plain", []), Spy()
        replay_of(live, "plain", [listener, spy])
        _assert_heard(listener, heard, spy)

    @needs("forget")
    def test_a_run_that_is_over_is_let_go(self, listener: object) -> None:
        """It holds no run after its end: a server would grow for ever."""
        spy = Spy()
        for scenario in ("plain", "fails", "denied"):
            run_scenario(scenario, [listener, spy])
        gc.collect()
        assert len(spy.runs) == 0, f"{len(spy.runs)} of 3 runs are still held; keep their ids, not the runs"

    def test_what_a_listener_raises_stops_nothing(self, listener: object) -> None:
        """One with the same hooks that fails in each of them: the run ends as it would, and this one still hears."""
        failing = _failing(_hooks_of(listener) & set(hook_names()["observe"]))
        with complaints() as found:
            run = run_scenario("plain", [failing, listener])
        assert run.reports[-1].status == "SUCCESS"
        assert all("conformance-failing" in one for one in found), found

    def test_it_hears_soon(self, listener: object) -> None:
        """The agent waits for it, at every event."""
        spy = Spy()
        began = time.perf_counter()
        for _ in range(5):
            run_scenario("plain", [listener, spy])
        each = (time.perf_counter() - began) / max(1, len(spy.told))
        assert each < self.SOON_S, f"{each * 1000:.0f} ms an event; at most {self.SOON_S * 1000:.0f} are allowed"


def _hooks_of(listener: object) -> set[str]:
    manager, _ = make_manager([], [listener])
    return {caller.name for caller in manager.get_hookcallers(listener) or ()}


def _ends(run: Run) -> list[tuple[object, ...]]:
    last = run.reports[-1]
    rule = last.violation["rule"] if last.violation else None
    totals = (last.total_steps, last.model_calls, last.tool_usage, last.input_tokens, last.output_tokens)
    return [(last.status, last.error, last.final_output, rule, *totals)]


def _kept(heard: Callable[[], Sequence[Heard]]) -> list[Heard]:
    return [Heard(one.execution_id, one.name) for one in heard()]


def _of(told: Sequence[Heard], kept: Sequence[Heard]) -> list[Heard]:
    names = {event.name for event in kept}
    return [event for event in told if event.name in names]


def _assert_heard(listener: object, heard: Callable[[], Sequence[Heard]] | None, spy: Spy) -> None:
    if heard is None:
        pytest.skip("it does not say what it has heard; override the fixture `heard`")
    told, kept = spy.heard(_hooks_of(listener)), _kept(heard)
    assert kept or not told, f"it kept nothing of {len(told)} events"
    assert kept == _of(told, kept)


def _failing(hooks: set[str]) -> object:
    def fails(_self: object, event: object) -> None:
        raise RuntimeError("this listener fails")

    return type("Failing", (), {"name": "conformance-failing", **{hook: hookimpl(fails) for hook in hooks}})()
