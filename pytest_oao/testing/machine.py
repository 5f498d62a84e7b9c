"""A ready state machine for Hypothesis: agents that are run, held, interrupted, taken over and replayed, at random.

```python
class MyMachine(AgentMachine):
    def policies(self):
        return [MyPolicy()]

    def store(self):
        return MyStore(tempfile.mkdtemp())


TestMyMachine = MyMachine.TestCase
```

Needs `hypothesis`.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oao_hookspecs import Store
from oao_hookspecs.journals import digest_of, line_of, link
from pytest_oao.testing import program_strategies as generated
from pytest_oao.testing.program_agents import Started, Written
from pytest_oao.testing.program_checks import key_of_body, key_of_call, leaves, totals_of
from pytest_oao.testing.program_rules import Rules, breaches
from pytest_oao.testing.program_trials import Trial
from pytest_oao.testing.programs import Nested, Program

__all__ = ["AgentMachine"]

_OVER = frozenset({"SUCCESS", "FAILED"})
# Half of the runs are to be held: what happens then is what goes wrong most easily.
_HOLDING = st.builds(Rules, hold=st.lists(st.sampled_from(generated.TOOLS), min_size=1, max_size=3).map(tuple))


class AgentMachine(RuleBasedStateMachine):
    """One run at a time, in as many legs as chance wants; after each step all that must hold is looked at.

    Override what is to be tested: `policies`, `plugins`, `store`. They are called for every run, and `policies` and
    `plugins` again where another process takes it over. What must hold is told from the bodies that really ran and
    from the journal, never from oao's counters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trial: Trial | None = None
        self.was_interrupted = False

    def policies(self) -> Sequence[object]:
        """Override this: return new policies, asked after generated rules."""
        return ()

    def plugins(self) -> Sequence[object]:
        """Override this: return new plugins that observe, for example a listener."""
        return ()

    def store(self) -> Store | None:
        """Override this: return an empty store; None for one in memory."""
        return None

    @property
    def is_suspended(self) -> bool:
        """True where there is a run that can go on."""
        trial = self.trial
        return trial is not None and (self._is_cut_off(trial) or trial.report.status == "SUSPENDED")

    # Steps

    @rule(
        program=generated.programs(max_ops=8, at_once=False, threads=False, inner_runs=False),
        rules=st.one_of(generated.policies(), _HOLDING),
        interrupt_at=st.one_of(st.none(), st.integers(1, 4)),
    )
    def run(self, program: Program, rules: Rules, interrupt_at: int | None) -> None:
        """Run a new program; the process may be interrupted inside of it."""
        note(f"{program!r}\nunder {rules!r}")
        self.was_interrupted = False
        self.trial = Trial(program, rules, policies=self.policies(), plugins=self.plugins(), store=self.store())
        self._go(self.trial, interrupt_at, begins=True)

    @precondition(lambda self: self.is_suspended)
    @rule()
    def approve(self) -> None:
        """A person approves what is held."""
        self._trial.approve()

    @precondition(lambda self: self.is_suspended)
    @rule(interrupt_at=st.one_of(st.none(), st.integers(1, 4)))
    def resume(self, interrupt_at: int | None) -> None:
        """The same process goes on; it may be interrupted again. Nothing is made that nobody has approved."""
        self._trial.settle_doubts()
        self._go(self._trial, interrupt_at, begins=False)

    @precondition(lambda self: self.is_suspended)
    @rule()
    def take_over(self) -> None:
        """Another process goes on, with policies of its own."""
        self._trial.take_over(self.policies(), self.plugins())
        self._trial.settle_doubts()
        self._go(self._trial, None, begins=False)

    @precondition(lambda self: self.can_be_replayed)
    @rule()
    def replay(self) -> None:
        """The recording is played: nothing runs, and it ends as the run did."""
        replayed = self._trial.replay()
        assert replayed.executed == []
        assert totals_of(replayed) == totals_of(self._trial)

    @property
    def can_be_replayed(self) -> bool:
        """True for a run that ended in one leg; what happens inside of a served tool cannot be judged again."""
        trial = self.trial
        if trial is None or self.was_interrupted or len(trial.reports) != 1 or trial.report.status not in _OVER:
            return False
        return not any(isinstance(op, Nested) for op in trial.program.ops)

    # What must hold

    @invariant()
    def nothing_ran_unjudged(self) -> None:
        """Before each body there is a call in the journal that was let through; and none that a rule denies."""
        if self.trial is None:
            return
        allowed: list[object] = []
        for event in self.trial.events:
            if isinstance(event, Written) and event.record["type"] == "call":
                if event.record["decision"]["verdict"] != "deny":  # type: ignore[index,call-overload]
                    allowed.append(key_of_call("main", event.record)[1:3])
            elif isinstance(event, Started):
                body = event.body
                assert key_of_body(body)[1:3] in allowed, f"{body} ran before its call was written"
                assert not self.trial.rules.denies(body.kind, body.name, body.value), f"{body} ran, and is denied"

    @invariant()
    def nothing_ran_twice(self) -> None:
        """No tool, however often the run was resumed. A model that was cut off is asked again: that changes nothing."""
        if self.trial is not None:
            tools = [body for body in self.trial.executed if body.kind == "tool"]
            assert max(leaves(tools).values(), default=0) <= 1

    @invariant()
    def no_limit_is_passed(self) -> None:
        """Counted over all legs."""
        if self.trial is not None:
            # A tool's body is entered again where something inside of it waited.
            bodies = [body for body in self.trial.executed if body.name != "delegate"]
            if self.was_interrupted:
                # A model that was cut off reported nothing.
                bodies = [body for body in bodies if body.kind == "tool"]
            assert not breaches(self.trial.rules.limits, bodies)

    @invariant()
    def the_journal_is_whole(self) -> None:
        """Every record has the next number, and the hash that ties it to all before it; none is lost."""
        if self.trial is None:
            return
        for execution_id, written in self.trial.journals().items():
            previous, kept = "", list(self.trial.store.read(execution_id))
            assert len(kept) == len(written)
            for number, (record, was) in enumerate(zip(kept, written, strict=True), start=1):
                bare = {key: value for key, value in record.items() if key != "hash"}
                assert line_of(bare) == line_of(was)
                previous = link(previous, digest_of(record))
                assert (record["seq"], record["hash"]) == (number, previous)

    @invariant()
    def totals_are_what_ran(self) -> None:
        """The report of a run that went well counts the bodies that ran, by tool."""
        trial = self.trial
        if trial is None or self.was_interrupted or len(trial.reports) != 1 or trial.report.status != "SUCCESS":
            return
        tools = [body.name for body in trial.executed if body.kind == "tool"]
        assert trial.report.tool_usage == {name: tools.count(name) for name in tools}
        assert trial.report.model_calls == sum(body.kind == "model" for body in trial.executed)

    @property
    def _trial(self) -> Trial:
        if self.trial is None:
            raise LookupError("nothing has run yet")
        return self.trial

    @staticmethod
    def _is_cut_off(trial: Trial) -> bool:
        return not trial.reports

    def _go(self, trial: Trial, interrupt_at: int | None, *, begins: bool) -> None:
        trial.interrupt_at(interrupt_at)
        try:
            if begins:
                trial.run()
            else:
                trial.resume()
        except KeyboardInterrupt:
            self.was_interrupted = True
            trial.reports.clear()
        finally:
            trial.interrupt_at(None)
