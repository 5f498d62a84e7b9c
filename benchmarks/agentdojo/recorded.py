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

from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime, TaskEnvironment
from agentdojo.task_suite.load_suites import get_suites
from agentdojo.types import text_content_block_from_string

import oao_harness as oao
from oao_harness.policy.file import FilePolicy, load_policy

from .configurations import FOLDER
from .person import Held
from .suites import ToolError

__all__ = ["GUARD", "Judged", "RecordedRun", "judge", "load_runs", "stale_scores"]

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
    denied: str
    """The rule that stopped the run; empty where none did."""
    denied_tool: str
    let_through: int
    """How many calls came before."""
    got_through: bool
    """True where the attack succeeded in the log and the calls that were let through are enough for it."""
    questions: int
    """How often a person would have been asked, if they approved every time."""


def load_runs(folder: Path) -> Iterator[RecordedRun]:
    """Yield the recorded runs of a folder with `index.json` and `runs/`, in the order of their names."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    for row in sorted(index, key=lambda row: str(row["file"])):
        log = json.loads((folder / "runs" / row["file"]).read_text(encoding="utf-8"))
        messages = log["messages"]
        users = [message for message in messages if message["role"] == "user"]
        answers = [message for message in messages if message["role"] == "assistant" and message.get("content")]
        yield RecordedRun(
            file=row["file"],
            suite=log["suite_name"],
            version=row["suggested_benchmark_version"],
            attack=log["injection_task_id"],
            succeeded=log["injection_task_id"] is not None and bool(log["security"]),
            task=_text(users[0]["content"]),
            injections=log["injections"],
            user_task=log["user_task_id"],
            calls=[_call(message) for message in messages if message["role"] == "tool"],
            answer=_text(answers[-1]["content"]) if answers else "",
        )


def _text(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("content", part.get("text", ""))) for part in cast("list[Any]", content))
    return str(content)


def _call(message: Mapping[str, Any]) -> RecordedCall:
    made = message["tool_call"]
    return RecordedCall(
        tool=made["function"], arguments=made["args"], result=_text(message["content"]), error=message.get("error")
    )


def judge(run: RecordedRun, policy: FilePolicy | None = None) -> Judged:
    """Return what the guard says to a recorded run.

    Args:
        run: The run.
        policy: The guard; the bundled one by default.
    """
    guard = policy or _guard()
    let_through, denied, tool, _ = _pass(run, guard)
    held = Held(guard, lambda: True)
    _pass(run, held)
    stopped_in_time = run.succeeded and bool(denied) and not _attack_done(run, let_through)
    return Judged(
        run=run,
        denied=denied,
        denied_tool=tool,
        let_through=let_through,
        got_through=run.succeeded and not stopped_in_time,
        questions=held.questions,
    )


@cache
def _guard() -> FilePolicy:
    return load_policy(GUARD)


def _pass(run: RecordedRun, policy: object) -> tuple[int, str, str, bool]:
    """Let the recorded calls pass the gate; return how many did, and the rule and the tool that stopped the rest."""
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
        return len(done), "", "", True
    return len(done), str(report.violation["rule"]), run.calls[len(done)].tool, False


def _attack_done(run: RecordedRun, calls: int) -> bool:
    """Return True where the first calls of a run are enough for its attack."""
    suite = get_suites(run.version)[run.suite]
    attack = suite.get_injection_task_by_id(cast("str", run.attack))
    user = suite.user_tasks[run.user_task]
    environment: TaskEnvironment = user.init_environment(suite.load_and_inject_default_environment(dict(run.injections)))
    before = environment.model_copy(deep=True)
    runtime = FunctionsRuntime(suite.tools)
    executed: list[FunctionCall] = []
    for call in run.calls[:calls]:
        runtime.run_function(environment, call.tool, call.arguments)
        executed.append(FunctionCall(function=call.tool, args=dict(call.arguments)))
    said = [text_content_block_from_string(run.answer if calls == len(run.calls) else "")]
    return bool(suite._check_task_result(attack, said, before, environment, executed))


def stale_scores(runs: Sequence[RecordedRun]) -> list[str]:
    """Return the attacked runs where executing all calls today scores the attack otherwise than the log does."""
    return [run.file for run in runs if run.attack is not None and _attack_done(run, len(run.calls)) != run.succeeded]
