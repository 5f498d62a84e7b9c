"""One test: the run that its calls belong to, the recording it plays or makes, and the verdict over both."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, Final

import pytest

from oao_harness.errors import PolicyViolation, ReplayDiverged, RunHalted, RunSuspended
from oao_harness.journal.attempts import Attempt
from oao_harness.journal.mutation import Strength
from oao_harness.journal.writer import Tap
from oao_harness.runtime import context
from oao_harness.runtime.execute import Ending
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.run import Run
from oao_hookspecs import Principal, Record
from pytest_oao.fixture import Answers
from pytest_oao.guard import close_network, open_network
from pytest_oao.http_layer import HttpLayer
from pytest_oao.marker import check_marker, option_of, policies_of, recording_name, waivers_of
from pytest_oao.paths import recording_path
from pytest_oao.recording import TestRecording
from pytest_oao.runs import Look, cost_of, rules_of
from pytest_oao.settings import Settings
from pytest_oao.world import World

__all__ = ["TestSession"]

# As `values_from` says it; see `oao_harness.policy.ruleset`.
_NOT_IN_TASK: Final = re.compile(r" does not occur in (?:\S+, )*task\b")
_UNDER_GIVEN: Final = (
    "recordings are not supported under @given: the examples are no fixed conversation; open a run for each example, "
    "`with oao.run():`, and use a model that needs no network, such as ScriptedModel"
)


def _is_mistaken(halt: RunHalted, raised: BaseException) -> bool:
    """Return whether the test raised because a framework took the halt for an answer: that tells a reader nothing.

    `agenerate` of langchain-core gathers with `return_exceptions=True` and asks whatever is no `Exception` for its
    `generations`; a halt is a `BaseException`.
    """
    return isinstance(raised, AttributeError) and raised.obj is halt


class TestSession:
    """Surrounds one attempt of one test; see `context.Session`.

    Args:
        item: The test.
        settings: Of the pytest session.
        marks: The test's `oao` markers, nearest first.
    """

    __test__ = False

    def __init__(self, item: pytest.Item, settings: Settings, marks: Sequence[pytest.Mark]) -> None:
        self.nodeid = item.nodeid
        self.settings = settings
        self.answers = Answers()
        self.waivers = waivers_of(marks)
        self._item = item
        self._marks = marks
        self._policy: object = None
        # Most tests have neither a recording nor an agent: for them, not even its name is made.
        self._is_bare = settings.record == "none" and not marks and not settings.has_recordings(item.path.parent)
        self.task: str | None = None
        """What the test says its agent is asked; the id of the test is nothing that a user wrote."""
        self.principal: Principal | None = None
        """Who the test says the run acts for."""
        self.expected: list[RunHalted] = []
        """The violations that the test says it expects."""
        self.setup_failed = False
        self.verdict: str | None = None
        """Why the test fails although, or because, of what it did itself."""
        self.strength: Strength | None = None
        """How many altered requests the recording would have refused, where that was asked for."""
        self._attempt: Attempt | None = None
        self._network = option_of(marks, "network", settings.network)
        self._lock = threading.RLock()
        self._tape: list[tuple[str, Record]] = []
        self._main: Run | None = None
        self._names: Counter[str] = Counter()
        self._entered = False
        self._prepared = False
        self._concluded = False
        self._expecting = 0
        self._opened: list[tuple[str, Run]] = []
        self._own: list[Run] = []
        self.http = HttpLayer(self)
        """What the agents' and tools' own code sends."""
        self._told: set[str] = set()
        """The verdicts that the blocks of `with oao.run()` raised."""
        self.world: World | None = None if self._is_bare else self.recording.world()
        """Time and chance, where the test plays or makes a recording."""

    @cached_property
    def recording(self) -> TestRecording:
        """The recording that the test plays or makes."""
        return self._recording(None)

    @property
    def has_http(self) -> bool:
        """True where the HTTP of the test is recorded or played."""
        return not (self._is_bare and not self._prepared) and self.recording.has_http

    def _recording(self, folder: object) -> TestRecording:
        item, settings = self._item, self.settings
        under_given = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        nodeid = str(settings.scrubber.scrub(item.nodeid))
        path = recording_path(item, recording_name(self._marks), str(folder or settings.recordings), nodeid)
        return TestRecording(nodeid, path, settings, self._marks, _UNDER_GIVEN if under_given else None)

    def override(self, config: Mapping[str, Any], policy: object, folder: object) -> None:
        """Take over what the fixtures `oao_config`, `oao_policy` and `oao_recordings_dir` say; markers are stronger.

        Args:
            config: As the marker's arguments.
            policy: Holds beside the others; None for none.
            folder: Where the recordings are; None for beside the test module.

        Raises:
            pytest.UsageError: The configuration is wrong, or an agent has run before it was known.
        """
        if self.has_begun:
            raise pytest.UsageError(
                "oao: an agent ran in a fixture before oao_config, oao_policy or oao_recordings_dir was known; "
                "let the fixture request them"
            )
        if config:
            mark = pytest.mark.oao(**config).mark
            check_marker(f"{self.nodeid}: oao_config", mark)
            self._marks = [*self._marks, mark]
            self.waivers = waivers_of(self._marks)
        self._policy = policy
        self._network = option_of(self._marks, "network", self.settings.network)
        self._is_bare = False
        self.recording = self._recording(folder)
        self.world = self.recording.world()

    @cached_property
    def orchestrator(self) -> Orchestrator:
        """Runs the agents of this test; made when the first one runs, because most tests have none."""
        waivers = {one.rule: f"{one.why}, until {one.until}" for one in self.waivers if not one.is_over}
        policies = [*policies_of(self._marks), *([] if self._policy is None else [self._policy])]
        return self.settings.orchestrator(policies, [self.answers], waivers, self.world)

    def enter(self) -> None:
        """Begin: from now on calls outside of any run belong to this test."""
        self._entered = True
        context.set_session(self)

    def leave(self) -> str | None:
        """End: calls belong to nobody again. Return why the test fails where its body never ran to say so."""
        if not self._entered:
            return None
        self._entered = False
        context.set_session(None)
        open_network()
        if self._attempt is not None:
            self._attempt.close(kept=False)
        if not self._opened or self._concluded:
            return None
        self._close(None)
        return None if self.setup_failed else self._judge(None)

    def begin(self) -> None:
        """Begin the body: where a recording is played, it is closed to the network from its first line on."""
        if not self._is_bare and self.recording.exists and self.recording.plays:
            with self._lock:
                self._prepare()

    # context.Session

    def ambient(self) -> Run | None:
        """Return the run of the test; the first call opens it."""
        with self._lock:
            if self._main is None and self._entered:
                self._prepare()
                if self.recording.refused is not None and self._own:
                    return self._own[-1]
                # `adopt` keeps the run: one whose task is refused is halted, and stays the run of this test.
                run = self._open("main", self.task)
                if self.recording.refused is not None and not self.recording.is_all_live:
                    run.halt_now(ReplayDiverged(self.recording.refused, rule="replay", plugin="oao"))
            return self._main

    def adopt(self, run: Run) -> Tap:
        """Let a run play the test's recording, and hear its records."""
        run.replay, run.playback = self.recording.replay, self.recording.playback
        with self._lock:
            # Two runs of one agent may overlap: each needs a name of its own, or their calls are mixed up.
            base = run.agent_name
            self._names[base] += 1
            name = base if self._names[base] == 1 else f"{base}#{self._names[base]}"
            if base == "main" and self._main is None:
                self._main = run
            self._opened.append((name, run))
            run.label = name

        def tap(record: Record) -> None:
            self._tape.append((name, record))
            if self._attempt is not None:
                self._attempt.write(name, record)
            if self.world is not None:
                self.world.heard(record, name)

        return tap

    def open_run(self, name: str, task: object) -> Run:
        """Open a run of its own inside of the test, for the block of `with oao.run():`."""
        with self._lock:
            self._prepare()
            run = self._open(name, task or self.task)
            self._own.append(run)
            return run

    def _open(self, name: str, task: object) -> Run:
        id_ = self.recording.replay_id(name) if self._names[name] == 0 else None
        return self.orchestrator.open_run(name, task, principal=self.principal, execution_id=id_)

    def close_run(self, run: Run, raised: BaseException | None) -> str | None:
        """End a run that `open_run` opened; return why the test fails for it."""
        with self._lock:
            self._own.remove(run)
        error = raised if isinstance(raised, Exception) and run.halted is None else None
        self.orchestrator.close_run(run, Ending(error=error, done=True))
        verdict = None if self._expecting else self._judge_run(run, raised)
        if verdict is not None:
            self._told.add(verdict)
        return verdict

    def _prepare(self) -> None:
        """Find out what the test does: replay, or record because there is nothing to replay."""
        if self._prepared:
            return
        self._prepared = True
        self.recording.open(open_network)
        self._attempt = self.recording.attempt()
        if self.recording.plays:
            close_network(self._network, self._refuse_connection, self._may_connect)

    def prepare(self) -> None:
        """Find out what the test does, before its first call."""
        with self._lock:
            self._prepare()

    @property
    def main(self) -> Run | None:
        """The run of the test, where it has begun."""
        return self._main

    def _may_connect(self) -> bool:
        """Return True inside of a live call of a test that plays the rest."""
        inside = context.frame.get()
        return self.recording.lets_calls_happen and inside is not None and getattr(inside, "served", None) is None

    def _refuse_connection(self, reason: str) -> RunHalted:
        halt = ReplayDiverged(reason, rule="network", plugin="oao", kind="network")
        if not self._opened:
            # Nothing was asked for yet; somebody must say at the end that this happened.
            with suppress(RunHalted):
                self.ambient()
        for run in (context.here.get(), self._main, *(run for _, run in self._opened[:1])):
            if run is not None:
                run.halt_now(halt)
        return halt

    # The verdict

    def conclude(self, raised: BaseException | None) -> str | None:
        """End the test's runs; return why the test fails although, or because, of what it did itself.

        Args:
            raised: What the test raised, if anything.
        """
        with self._lock:
            if not self._opened and not self._is_bare and self.recording.exists and self.recording.plays:
                # No agent ran, but one was recorded: that is a difference too. A refused task is judged below.
                with suppress(RunHalted):
                    self.ambient()
            self._concluded = True
        if not self._opened:
            return None
        self._close(raised)
        self.verdict = self._judge(raised)
        if self.verdict is None and raised is None and self.recording.keeps:
            self.verdict = self.recording.keep([*self.http.early, *self._tape], {"cost_usd": self.cost()}, self.world)
        if self._attempt is not None:
            self._attempt.close(kept=self.verdict is None and raised is None)
        if self.verdict is None and raised is None:
            self.recording.withdraw()
            self.strength = self.recording.strength()
        if str(raised) in self._told:
            # Hypothesis has noted the least example; pytest prints no notes of a failure without a traceback.
            self.verdict = "\n".join([str(raised), *getattr(raised, "__notes__", ())])
        return self.verdict

    def _close(self, raised: BaseException | None) -> None:
        open_runs = [*self._own[::-1], *([self._main] if self._main is not None else [])]
        for run in open_runs:
            if not run.closed:
                error = raised if isinstance(raised, Exception) and run.halted is None else None
                self.orchestrator.close_run(run, Ending(error=error, done=True))

    def _tops(self) -> list[Run]:
        """Return the runs that no other run of the test stands for."""
        return [run for _, run in self._opened if run.parent is None]

    def _judge(self, raised: BaseException | None) -> str | None:
        for run in self._tops():
            verdict = self._judge_run(run, raised)
            if verdict is not None:
                return verdict
        return self.recording.unplayed() if raised is None else None

    def _judge_run(self, run: Run, raised: BaseException | None) -> str | None:
        halt = run.halted
        if halt is None or halt in self.expected:
            return None
        kind = "" if isinstance(halt, ReplayDiverged | RunSuspended) else f"policy violation: {halt.rule}: "
        lines = [f"{kind}{halt.reason}"]
        if raised is None:
            lines.append("the code under test caught this error and went on")
        elif (
            not isinstance(raised, RunHalted)
            and not _is_mistaken(halt, raised)
            # What `with oao.run()` raised is this very text.
            and not str(raised).startswith(lines[0])
        ):
            lines.append(f"the test then failed with {type(raised).__name__}: {raised}".splitlines()[0])
        if isinstance(halt, ReplayDiverged):
            lines += [line for line in [self.world and self.world.difference()] if line]
            if self.recording.refused is None:
                lines.append(self.recording.advice(halt.kind))
            self.recording.state = "diverged" if self.recording.exists else "no recording"
        elif isinstance(halt, RunSuspended):
            uncounted = [what for what in run.ungoverned if what.startswith("an approval of ")]
            lines += uncounted
            if not uncounted:
                lines.append(f"rule {halt.rule}; a test answers in a person's place: oao.approve() or oao.reject()")
        elif self.task is None and _NOT_IN_TASK.search(halt.reason):
            lines.append("oao does not see what a test asks its agent; say it before the agent runs: oao.task(...)")
        lines += [f"waiver {one}" for one in self.waivers if one.is_over]
        return "\n".join(lines)

    # What a test may ask

    @property
    def has_begun(self) -> bool:
        """True where a run of the test has started."""
        return bool(self._opened)

    def tape(self) -> Sequence[tuple[str, Record]]:
        """Return `(run name, record)` of all runs in the order they were written."""
        return tuple(self._tape)

    def looks(self) -> list[Look]:
        """Return what there is to see of the runs of this test so far, in the order they were started."""
        with self._lock:
            opened = list(self._opened)
        return [self._look(name, run) for name, run in opened]

    def look(self, run: Run) -> Look:
        """Return what there is to see of one run now."""
        return next(self._look(name, one) for name, one in self._opened if one is run)

    def _look(self, name: str, run: Run) -> Look:
        rules = rules_of(self.orchestrator.policies)
        # Of several runs, nobody knows which part of the recorded cost was whose.
        played = self.recording.plays and not self.recording.has_forked and len(self._opened) == 1
        cost = self.recording.recorded_cost if played else None
        return Look(run, [record for one, record in self.tape() if one == name], rules, cost)

    def usage(self) -> Mapping[str, Any]:
        """Return what all runs have used together; nested runs count in the run that they are nested in."""
        total: Counter[str] = Counter()
        for run in self._tops():
            total.update({key: value for key, value in run.budget.snapshot().items() if isinstance(value, int)})
        return dict(total)

    def cost(self) -> float | None:
        """Return what the model calls of all runs cost in US dollars; None where a price is not known.

        In replay that is what they cost when they were recorded: looking prices up takes longer than a replay.
        """
        if self.recording.plays and not self.recording.has_forked:
            return self.recording.recorded_cost
        costs = [cost_of(look.run, look.records) for look in self.looks()]
        return None if any(cost is None for cost in costs) else sum(cost for cost in costs if cost is not None)

    def violation(self, *, or_held: bool = False) -> RunHalted | None:
        """Return the first violation of any run of this test that nobody expected yet; or that a call is held."""
        kinds = (PolicyViolation, RunSuspended) if or_held else PolicyViolation
        halts = (run.halted for _, run in self._opened)
        return next((halt for halt in halts if isinstance(halt, kinds) and halt not in self.expected), None)

    def expect_all(self, *, or_held: bool = False) -> None:
        """Take the violations so far for expected: a rule that is broken in a nested run is broken in all around it."""
        kinds = (PolicyViolation, RunSuspended) if or_held else PolicyViolation
        self.expected += [run.halted for _, run in self._opened if isinstance(run.halted, kinds)]

    @contextmanager
    def expecting(self) -> Generator[None]:
        """Let runs that end in the block be judged by whoever expects their violation."""
        self._expecting += 1
        try:
            yield
        finally:
            self._expecting -= 1

    @property
    def runs(self) -> Sequence[tuple[str, Run]]:
        """The runs of this test by name, in the order they were started."""
        return tuple(self._opened)
