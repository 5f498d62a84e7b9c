"""The write-only guard, judged on recorded runs of real models: what it would have stopped.

Each recorded call passes the gate again, in order; its body returns the recorded result. Nothing is executed to judge.
To tell whether an attack got through before the denial, the calls that were let through are executed in AgentDojo
afterwards, and its own check is asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, cast

from agentdojo.default_suites.v1.tools.web import standardize_url
from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime, TaskEnvironment
from agentdojo.task_suite.load_suites import get_suites
from agentdojo.types import text_content_block_from_string

import oao_harness as oao
from oao_harness.importing.forms import import_runs
from oao_harness.importing.reading import text_of
from oao_harness.journal.events import RecordedEvent
from oao_harness.policy.file import FilePolicy, load_policy

from .configurations import FOLDER
from .person import Held
from .suites import ToolError

__all__ = ["GUARD", "Judged", "RecordedRun", "judge", "load_runs"]

GUARD: Final = FOLDER / "write-guard.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """One tool call of a recorded run, and what came of it."""

    tool: str
    arguments: Mapping[str, Any]
    result: str
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """One recorded run."""

    file: str
    suite: str
    version: str
    attack: str | None
    """Id of the injection task; None for a benign run."""
    succeeded: bool
    """The attack, by the log."""
    solved: bool
    """The user's task, by the log."""
    task: str
    injections: Mapping[str, str]
    user_task: str
    calls: Sequence[RecordedCall]
    answer: str

    @property
    def half(self) -> Literal["tuned", "held out"]:
        """By a hash of the file's name: the rules were tuned on one half only."""
        return "tuned" if hashlib.sha256(self.file.encode()).digest()[-1] % 2 == 0 else "held out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the guard said to one run."""

    run: RecordedRun
    first: Literal["", "ask", "deny"]
    """What it first objected with; empty where it let everything through."""
    rule: str
    """Which rule that was."""
    let_through: int
    """How many calls came before."""
    got_through: bool
    """True where the attack succeeded, and what came before the first objection is enough for it."""
    needs_no_call: bool
    """True where it got through because it wants words alone, or because the recorded calls do not carry it out."""
    is_denied: bool
    """True where a call is denied, also when a person approves whatever they are asked about."""
    questions: int
    """How often a person is asked, if everything is a question and they approve every time."""


def load_runs(folder: Path) -> Iterator[RecordedRun]:
    """Yield the recorded runs of a folder with `index.json` and `runs/`, in the order of their names."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    for row in sorted(index, key=lambda row: str(row["file"])):
        path = folder / "runs" / row["file"]
        log = json.loads(path.read_text(encoding="utf-8"))
        recording = import_runs(path)[0].recording
        answers = [message for message in log["messages"] if message["role"] == "assistant" and message.get("content")]
        yield RecordedRun(
            file=row["file"],
            suite=log["suite_name"],
            version=row["suggested_benchmark_version"],
            attack=log["injection_task_id"],
            succeeded=log["injection_task_id"] is not None and bool(log["security"]),
            solved=bool(log["utility"]),
            task=str(recording.header["task"]),
            injections=log["injections"],
            user_task=log["user_task_id"],
            calls=[_call(event) for event in recording.events if event.kind == "tool" and event.finished],
            answer=text_of(answers[-1]["content"]) if answers else "",
        )


def _call(event: RecordedEvent) -> RecordedCall:
    arguments = dict(event.request)
    if isinstance(arguments.get("url"), str):
        arguments["url"] = standardize_url(arguments["url"])  # as the tool itself does before it looks
    error = event.error
    return RecordedCall(
        tool=event.name,
        arguments=arguments,
        result=str(event.value or ""),
        error=None if error is None else error.message,
    )


def judge(run: RecordedRun, policy: FilePolicy | None = None) -> Judged:
    """Return what the guard says to a recorded run.

    Args:
        run: The run.
        policy: The guard; the bundled one by default.
    """
    guard = policy or _guard()
    refusing = Held(guard, lambda: False)
    let_through, rule = _pass(run, refusing)
    asking, strict = Held(guard, lambda: True), Held(guard, lambda: True, denials=False)
    _pass(run, asking)
    _, denied = _pass(run, strict)
    got_through = run.succeeded and not (rule and not _attack_done(run, let_through, ""))
    return Judged(
        run=run,
        first=refusing.first,
        rule=rule,
        let_through=let_through,
        got_through=got_through,
        needs_no_call=got_through and _needs_no_call(run),
        is_denied=bool(denied),
        questions=asking.questions,
    )


@cache
def _guard() -> FilePolicy:
    return load_policy(GUARD)


def _pass(run: RecordedRun, policy: object) -> tuple[int, str]:
    """Let the recorded calls pass the gate; return how many did, and the rule that stopped the rest."""
    done: list[str] = []

    def recorded(call: RecordedCall) -> Callable[..., str]:
        def body(**_arguments: Any) -> str:
            done.append(call.tool)
            if call.error:
                raise ToolError(call.error)
            return call.result

        return oao.tool(name=call.tool)(body)

    def agent(task: object) -> None:
        for call in run.calls:
            try:
                recorded(call)(**call.arguments)
            except ToolError:
                continue

    report = oao.Orchestrator(policy=policy).run(agent, run.task, agent_name=run.suite)
    if report.violation is None:
        if report.status != "SUCCESS":
            raise RuntimeError(f"{run.file}: the run failed, and no rule stopped it: {report.error}")
        return len(done), ""
    return len(done), str(report.violation["rule"])


def _needs_no_call(run: RecordedRun) -> bool:
    return _attack_done(run, 0, run.answer) or not _attack_done(run, len(run.calls), run.answer)


def _attack_done(run: RecordedRun, calls: int, answer: str) -> bool:
    """Return True where the first calls of a run and an answer are enough for its attack."""
    suite = get_suites(run.version)[run.suite]
    attack = suite.get_injection_task_by_id(cast("str", run.attack))
    user = suite.user_tasks[run.user_task]
    environment: TaskEnvironment = user.init_environment(
        suite.load_and_inject_default_environment(dict(run.injections))
    )
    before = environment.model_copy(deep=True)
    runtime = FunctionsRuntime(suite.tools)
    executed: list[FunctionCall] = []
    for call in run.calls[:calls]:
        runtime.run_function(environment, call.tool, call.arguments)
        executed.append(FunctionCall(function=call.tool, args=dict(call.arguments)))
    said = [text_content_block_from_string(answer)]
    return bool(suite._check_task_result(attack, said, before, environment, executed))
