"""What every policy promises, as tests that the author of a policy inherits.

```python
class TestMyPolicy(PolicyConformance):
    @pytest.fixture
    def make_policy(self):
        return MyPolicy

    @pytest.fixture
    def calls(self):
        return [ToolCall(name="send_money", arguments={"amount": 500})]
```
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from oao_harness.plugins.manager import hook_names, make_manager
from oao_harness.runtime.fingerprint import version_of_policies
from oao_harness.runtime.preparing import prepare
from oao_harness.runtime.rejudging import Rejudge
from oao_hookspecs import Call
from pytest_oao.testing.capabilities import Declaring, needs
from pytest_oao.testing.policy_trials import (
    ODD_CALLS,
    WOULD,
    Asker,
    Denier,
    Trial,
    effects_of_policies,
    in_two_legs,
    line_of,
    said,
    trial,
)

__all__ = ["PolicyConformance"]

_ALSO: Final = ("oao_limits", "oao_price", "oao_describe_tool")
"""Hooks of policies that are not of the deciding mode."""


class PolicyConformance(Declaring):
    """Inherit it in a class whose name starts with `Test`, and override the fixture `make_policy`.

    Override `calls` too: the suite makes odd calls of its own, but only the author knows what the policy looks at. An
    agent makes all of them, twice; what is denied is made all the same, so that the next ones are judged.

    A policy may declare (`CANNOT`) that it cannot be `deterministic` (it looks at a clock or asks a service), `quiet`
    (it writes or connects while it judges) or `silent` (it answers the questions of other policies).
    """

    SOON_S = 0.05
    """Seconds that one judgement may take on average."""

    @pytest.fixture
    def make_policy(self) -> Callable[[], object]:
        """Override this: return what makes a new policy."""
        raise NotImplementedError("override the fixture `make_policy` in your class")

    @pytest.fixture
    def calls(self) -> Sequence[Call]:
        """Override this where you can: return calls that the policy has rules about."""
        return ()

    @pytest.fixture
    def every_call(self, calls: Sequence[Call]) -> Sequence[Call]:
        """Return what the agent of these tests asks for."""
        return [*calls, *ODD_CALLS, *calls]

    # What it is

    def test_it_is_a_policy(self, make_policy: Callable[[], object]) -> None:
        """It has hooks that decide or limit, none that oao does not know, and can be registered beside itself."""
        policy = make_policy()
        manager, _ = make_manager([policy, make_policy()] if make_policy() is not policy else [policy])
        hooks = {caller.name for caller in manager.get_hookcallers(policy) or ()}
        assert hooks & {*hook_names()["decide"], *_ALSO}, f"it only has {sorted(hooks)}, which decide nothing"

    def test_its_version_is_that_of_its_code_and_settings(
        self, make_policy: Callable[[], object], every_call: Sequence[Call]
    ) -> None:
        """Two of them have one version, before a run and after it: else no suspended run could go on."""
        policy = make_policy()
        before = version_of_policies([policy])
        assert before == version_of_policies([make_policy()]), "a second one has another version; see its __repr__"
        trial([policy], every_call)
        assert before == version_of_policies([policy]), (
            "its version is another one after a run: it keeps what it counts in itself; use run.memory(self, ...)"
        )

    # What it answers

    def test_every_call_is_judged_without_an_error(
        self, make_policy: Callable[[], object], every_call: Sequence[Call]
    ) -> None:
        """Whatever the arguments are: an error is a denial, so a policy that raises denies what it should let pass.

        An answer that is no decision is one too, and so is changing a call, which is read-only.
        """
        for call in every_call:
            found = trial([make_policy()], [call])
            _no_error(found, call)
        _no_error(trial([make_policy()], every_call), None)

    def test_async_calls_are_judged_the_same(
        self, make_policy: Callable[[], object], every_call: Sequence[Call]
    ) -> None:
        """By a loop or without one."""
        plain, in_loop = (trial([make_policy()], every_call, is_async=is_async) for is_async in (False, True))
        assert said(in_loop) == said(plain)

    @needs("deterministic")
    def test_the_same_run_is_judged_the_same(
        self, make_policy: Callable[[], object], every_call: Sequence[Call]
    ) -> None:
        """By two of them, now and a moment later, and again where only one call of it is made."""
        first = said(trial([make_policy()], every_call))
        time.sleep(0.02)
        assert said(trial([make_policy()], every_call)) == first

    def test_it_answers_soon(self, make_policy: Callable[[], object], every_call: Sequence[Call]) -> None:
        """The agent waits for it, at every call."""
        policy = make_policy()
        began = time.perf_counter()
        found = trial([policy], every_call)
        each = (time.perf_counter() - began) / max(1, len(found.records))
        assert each < self.SOON_S, f"{each * 1000:.0f} ms for each record; at most {self.SOON_S * 1000:.0f} are allowed"

    # What it remembers

    def test_a_run_leaves_nothing_behind(self, make_policy: Callable[[], object], every_call: Sequence[Call]) -> None:
        """The third run that a policy judges is judged as the first one: what it remembers is in `run.memory`."""
        policy = make_policy()
        first = said(trial([policy], every_call))
        trial([policy], every_call)
        third = said(trial([policy], every_call))
        assert third == first, "what one run did counts in the next; use run.memory(self, ...) in place of attributes"

    def test_runs_side_by_side_do_not_mix(self, make_policy: Callable[[], object], every_call: Sequence[Call]) -> None:
        """Two runs that take turns, call by call, are judged as each of them alone."""
        alone = said(trial([make_policy()], every_call))
        policy = make_policy()
        turns = threading.Barrier(2)

        def take_turns() -> None:
            try:
                turns.wait(10)
            except threading.BrokenBarrierError:
                # The other run was halted.
                return

        def run(_: int) -> Trial:
            try:
                return trial([policy], every_call, before_each=take_turns)
            finally:
                turns.abort()

        with ThreadPoolExecutor(2) as pool:
            both = [said(found) for found in pool.map(run, range(2))]
        assert both == [alone, alone], "two runs share what it remembers; use run.memory(self, ...)"

    def test_a_resumed_run_is_judged_as_one_that_was_not_suspended(
        self, make_policy: Callable[[], object], every_call: Sequence[Call]
    ) -> None:
        """By new policies, which are asked about the earlier calls again, in order: so the memory grows back."""
        whole, resumed = (in_two_legs(make_policy, every_call, suspended=suspended) for suspended in (False, True))
        assert said(resumed) == said(whole)

    # Replay, and judging again

    @needs("deterministic")
    def test_a_replay_is_judged_the_same(self, make_policy: Callable[[], object], every_call: Sequence[Call]) -> None:
        """Every call is judged again there, and nothing runs."""
        live = trial([make_policy()], every_call)
        replayed = trial([make_policy()], every_call, replaying=live.recording)
        assert replayed.made == []
        assert said(replayed) == said(live)

    @needs("quiet")
    def test_a_replay_has_no_effects(self, make_policy: Callable[[], object], every_call: Sequence[Call]) -> None:
        """It writes no file, connects to nothing and starts nothing while it judges."""
        recording = trial([make_policy()], every_call).recording
        with effects_of_policies() as effects:
            trial([make_policy()], every_call, replaying=recording)
        assert effects == [], "a replay is to be repeated anywhere, so nothing may come of it"

    @needs("deterministic")
    def test_recorded_runs_can_be_judged_again(
        self, make_policy: Callable[[], object], every_call: Sequence[Call]
    ) -> None:
        """What `oao policy diff` says is what the gate said."""
        live = trial([make_policy()], every_call)
        judge = Rejudge([make_policy()])
        judged = judge.judge(prepare(live.history, [judge]))
        again = [
            line_of(one.call, decision) for one, decision in zip(live.history.calls, judged.decisions, strict=True)
        ]
        assert again == [line.partition(WOULD)[0] for line in said(live)[:-1]]

    # Beside others

    def test_what_another_policy_denies_stays_denied(
        self, make_policy: Callable[[], object], every_call: Sequence[Call]
    ) -> None:
        """Whichever of them is asked first."""
        for call in every_call:
            for policies in ([make_policy(), Denier()], [Denier(), make_policy()]):
                found = trial(policies, [call], lets_pass=False)
                assert found.made == [], f"{call.name} ran although another policy denies it"
                assert found.report.status == "FAILED"

    @needs("silent")
    def test_what_another_policy_asks_about_waits_for_a_person(
        self, make_policy: Callable[[], object], every_call: Sequence[Call]
    ) -> None:
        """It does not answer in a person's place."""
        for call in every_call:
            for policies in ([make_policy(), Asker()], [Asker(), make_policy()]):
                found = trial(policies, [call], lets_pass=False)
                assert found.made == [], f"{call.name} ran although another policy asks about it"
                assert found.report.status in {"SUSPENDED", "FAILED"}


def _no_error(found: Trial, call: Call | None) -> None:
    violation = found.report.violation
    if violation is not None and violation["rule"] == "policy-error":
        asked = "" if call is None else f"{call.kind} {call.name!r:.40} with {dict(call.request)!r:.300}: "
        pytest.fail(f"{asked}{violation['reason']}", pytrace=False)
    assert found.report.status in {"SUCCESS", "FAILED"}
