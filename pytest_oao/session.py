"""One test: the run that its calls belong to, the recording it plays or makes, and the verdict over both."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

import pytest

from oao_harness.errors import PolicyViolation, RecordingError, ReplayDiverged, RunHalted, RunSuspended
from oao_harness.journal.matcher import Matcher
from oao_harness.journal.playback import Playback, replay_id
from oao_harness.journal.recording import Recording
from oao_harness.journal.replay import Replay, Served
from oao_harness.journal.writer import Tap
from oao_harness.runtime import context
from oao_harness.runtime.execute import Ending
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.run import Run
from oao_hookspecs import Call, Principal, Record
from pytest_oao.fixture import Answers, RecordedRun, rules_of
from pytest_oao.governance import coverage_rows, decision_lines
from pytest_oao.guard import close_network, open_network
from pytest_oao.paths import recording_path
from pytest_oao.settings import Settings, policies_of, recording_name
from pytest_oao.summary import timeline
from pytest_oao.world import World

__all__ = ["TestSession"]

# As `values_from` says it; see `oao_harness.policy.ruleset`.
_NOT_IN_TASK: Final = re.compile(r" does not occur in (?:\S+, )*task\b")


class _Unplayable:
    """Stands for a recording that is missing or damaged: every call diverges, and says why."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def serve(self, call: Call, run_name: str) -> Served | str:
        return self._reason

    def unplayed_text(self) -> str | None:
        return None

    def holds(self, call: Call) -> bool:
        return False


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
        self._nodeid = item.nodeid
        self._settings = settings
        self.answers = Answers()
        self._orchestrator = settings.orchestrator(policies_of(marks), [self.answers])
        self._path = recording_path(item, recording_name(marks))
        self._recorded = self._path.exists()
        self._lock = threading.RLock()
        self._tape: list[tuple[str, Record]] = []
        self._run: Run | None = None
        self._names: Counter[str] = Counter()
        self._replay: Replay | None = None
        self._recording: Recording | None = None
        self._playback: Playback | None = None
        self.world: World | None = None
        """Time and chance, where the test plays or makes a recording."""
        self._report: ExecutionReport | None = None
        self._verdict: str | None = None
        self._saved = False
        self._entered = False
        self._concluded = False
        self._opened: list[tuple[str, Run]] = []
        self.task: str | None = None
        """What the test says its agent is asked; the id of the test is nothing that a user wrote."""
        self.principal: Principal | None = None
        """Who the test says the run acts for."""
        self.expected: RunHalted | None = None
        """The violation that the test says it expects."""
        self.setup_failed = False

    def enter(self) -> None:
        """Begin: from now on calls outside of any run belong to this test."""
        self._entered = True
        self._load()
        context.set_session(self)

    def leave(self) -> str | None:
        """End: calls belong to nobody again. Return why the test fails where its body never ran to say so."""
        if not self._entered:
            return None
        self._entered = False
        context.set_session(None)
        open_network()
        run = self._run
        if run is None or self._concluded:
            return None
        if not run.closed:
            self._report = self._orchestrator.close_run(run, Ending(done=True))
        return None if run.halted is None or self.setup_failed else self._judge(run, None)

    # context.Session

    def ambient(self) -> Run | None:
        """Return the run of the test; the first call opens it."""
        with self._lock:
            if self._run is None and self._entered:
                self._prepare()
                # `adopt` keeps the run: one whose task is refused is halted, and stays the run of this test.
                id_ = None if self._recording is None else replay_id(self._recording, "main")
                self._orchestrator.open_run("main", self.task, principal=self.principal, execution_id=id_)
            return self._run

    def adopt(self, run: Run) -> Tap:
        """Let a run play the test's recording, and hear its records."""
        run.replay, run.playback = self._replay, self._playback
        with self._lock:
            if self._run is None:
                self._run = run
            # Two runs of one agent may overlap: each needs a name of its own, or their calls are mixed up.
            base = "main" if self._run is run else run.agent_name
            self._names[base] += 1
            name = base if self._names[base] == 1 else f"{base}#{self._names[base]}"
            self._opened.append((name, run))

        def tap(record: Record) -> None:
            self._tape.append((name, record))
            if self.world is not None:
                self.world.heard(record, name)

        return tap

    def _load(self) -> None:
        """Read the recording, and make the world that the test sees."""
        if self._recorded:
            try:
                self._recording = Recording.load(self._path, test=self._nodeid)
            except RecordingError as error:
                self._replay = _Unplayable(str(error))
            else:
                self.world = World.of(self._recording.header)
        elif self._settings.record == "once":
            self.world = World.fresh()

    def _prepare(self) -> None:
        """Find out what the test does: replay, or record because there is nothing to replay."""
        if not self._recorded and self._settings.record == "once":
            return
        if self._recording is not None:
            self._replay, self._playback = Matcher(self._recording), Playback(self._recording)
        elif self._replay is None:
            self._replay = _Unplayable(
                f'no recording of this test; record it: pytest --oao-record=once "{self._nodeid}"'
            )
        close_network(self._settings.network, self._refuse_connection)

    def _refuse_connection(self, reason: str) -> RunHalted:
        halt = ReplayDiverged(reason, rule="network", plugin="oao")
        run = context.here.get() or self._run
        if run is not None:
            run.halt_now(halt)
        if self._run is not None and self._run is not run:
            self._run.halt_now(halt)
        return halt

    # The verdict

    def conclude(self, raised: BaseException | None) -> str | None:
        """End the test's run; return why the test fails although, or because, of what it did itself.

        Args:
            raised: What the test raised, if anything.
        """
        with self._lock:
            if self._run is None and self._recorded:
                # No agent ran, but one was recorded: that is a difference too. A refused task is judged below.
                with suppress(RunHalted):
                    self.ambient()
        open_network()
        self._concluded = True
        run = self._run
        if run is None:
            return None
        error = raised if isinstance(raised, Exception) else None
        if not run.closed:
            self._report = self._orchestrator.close_run(run, Ending(error=error, done=True))
        self._verdict = self._judge(run, raised)
        if self._verdict is None and raised is None and self._replay is None:
            self._verdict = self._save()
        return self._verdict

    def _judge(self, run: Run, raised: BaseException | None) -> str | None:
        halt = run.halted
        if halt is None or halt is self.expected:
            unplayed = self._replay.unplayed_text() if self._replay is not None and raised is None else None
            return None if unplayed is None else f"{unplayed}\n{self._advice()}"
        kind = "" if isinstance(halt, ReplayDiverged | RunSuspended) else f"policy violation: {halt.rule}: "
        lines = [f"{kind}{halt.reason}"]
        if raised is None:
            lines.append("the code under test caught this error and went on")
        elif not isinstance(raised, RunHalted) and not _is_mistaken(halt, raised):
            lines.append(f"the test then failed with {type(raised).__name__}: {raised}".splitlines()[0])
        if isinstance(halt, ReplayDiverged):
            lines += [line for line in [self.world and self.world.difference()] if line]
            lines.append(self._advice())
        elif isinstance(halt, RunSuspended):
            uncounted = [what for what in run.ungoverned if what.startswith("an approval of ")]
            lines += uncounted
            if not uncounted:
                lines.append(f"rule {halt.rule}; a test answers in a person's place: oao.approve() or oao.reject()")
        elif self.task is None and _NOT_IN_TASK.search(halt.reason):
            lines.append("oao does not see what a test asks its agent; say it before the agent runs: oao.task(...)")
        return "\n".join(lines)

    def _advice(self) -> str:
        if not self._recorded:
            return f"expected at {self._shown_path()}"
        if isinstance(self._replay, _Unplayable):
            # Why it cannot be played, and what to do, is in the reason; nobody intended it.
            return f'to record again: pytest --oao-record=once "{self._nodeid}"'
        return (
            f"recording {self._shown_path()}\n"
            f'intended?  delete the recording, then: pytest --oao-record=once "{self._nodeid}"'
        )

    def _shown_path(self) -> str:
        try:
            return str(self._path.relative_to(self._path.cwd()))
        except ValueError:
            return str(self._path)

    def _save(self) -> str | None:
        header = self.world.header() if self.world is not None else {}
        recording = Recording.from_records(
            self._tape,
            test=self._nodeid,
            policy=self._settings.policy,
            clock=cast("float | None", header.get("clock")),
            header=header,
        )
        if not recording.events:
            return None
        if unfinished := next((event for event in recording.events if not event.finished), None):
            return (
                f"step {unfinished.n} {unfinished.kind} {unfinished.name} had not ended when the test did, and so it "
                "could never be replayed; let the test wait for it"
            )
        try:
            recording.save(self._path)
        except RecordingError as error:
            return str(error)
        self._saved = True
        return None

    # What a test may ask

    def recorded_runs(self) -> list[RecordedRun]:
        """Return the runs of this test so far, in the order they were started."""
        rules = rules_of(self._orchestrator.policies)
        with self._lock:
            return [
                RecordedRun(run, [record for one, record in self._tape if one == name], rules)
                for name, run in self._opened
            ]

    def violation(self) -> PolicyViolation | None:
        """Return the first violation of any run of this test."""
        return next((run.halted for _, run in self._opened if isinstance(run.halted, PolicyViolation)), None)

    # What is told

    def row(self) -> dict[str, Any] | None:
        """Return what the summary shows of this test, as JSON; None where no agent ran."""
        report = self._report
        if report is None:
            return None
        halt = cast("Run", self._run).halted
        replay = "recorded" if self._saved else "live" if self._replay is None else "ok"
        if isinstance(halt, ReplayDiverged) or (self._verdict is not None and halt is None):
            replay = "diverged" if self._recorded else "no recording"
        denied = halt is not None and not isinstance(halt, ReplayDiverged)
        return {
            "nodeid": self._nodeid,
            "runs": len(self._opened),
            "steps": report.total_steps,
            "model_calls": report.model_calls,
            "tool_calls": report.tool_calls,
            "tokens": report.total_tokens,
            "tokens_estimated": report.tokens_estimated,
            "policy": cast("RunHalted", halt).rule if denied else "ok",
            "replay": replay,
            "ungoverned": report.ungoverned,
            "recording": self._shown_path() if self._recorded or self._saved else None,
            "coverage": coverage_rows(self._orchestrator.policies, self._tape),
            "decisions": decision_lines(self._tape) if self._settings.explain else [],
        }

    def timeline(self) -> str:
        """Return the calls of this test, one line each."""
        return timeline(self._tape)
