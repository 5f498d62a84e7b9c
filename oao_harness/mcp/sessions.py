"""One session of an MCP client as a run, and each call in it as a run nested in that one.

The session's run holds what must last: budgets, what policies remember, who it acts for. A call that is denied or held
halts its own run only, so that a person's session goes on. Who wants a denial to end it says so.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from oao_harness.adapters.governed import mark_governed
from oao_harness.errors import OaoError, RunHalted
from oao_harness.journal.branching import new_id
from oao_harness.journal.questions import Questions
from oao_harness.runtime import gate
from oao_harness.runtime.context import here
from oao_harness.runtime.dispatch import drive
from oao_harness.runtime.execute import Ending
from oao_harness.runtime.judging import judge_call
from oao_harness.runtime.opening import Place
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.plain import as_json
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.run import Run
from oao_harness.runtime.usage import estimate_input_tokens, estimate_tokens
from oao_hookspecs import Call, Deny, Json, Limits, ModelCall, Principal, RunView, ToolCall, Usage, hookimpl

__all__ = ["Options", "RemoteError", "Session", "Verdict"]

_POLL_S: Final = 0.2
# Rules that look at nothing but the name of a tool.
_BY_NAME: Final = frozenset({"tools.allow", "tools.deny"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How sessions are governed."""

    name: str
    """What the server is called: agent name of its runs is `mcp:NAME`."""
    prefix: str = ""
    """Put before the names of tools when they are judged, so that two servers' tools can be told apart."""
    wait_s: float = 0.0
    """Seconds for which a held call waits for a person, before its client is told to ask again, >= 0."""
    halts: bool = False
    """True where the first denial ends the session."""
    principal: Principal | None = None


class RemoteError(OaoError):
    """The other side answered a request with an error, or not at all.

    Args:
        message: What it said.
        data: The error as JSON, where there was one.
    """

    def __init__(self, message: str, data: Mapping[str, Json] | None = None) -> None:
        super().__init__(message)
        self.data = data


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What became of one call."""

    state: Literal["done", "failed", "denied", "held"]
    result: Json = None
    """What the other side answered, as redactors left it; `done` alone."""
    error: Exception | None = None
    """`failed` alone."""
    rule: str = ""
    reason: str = ""
    question: str = ""
    """Id of what a person is asked; `held` alone."""
    execution_id: str = ""


Act = Callable[[Call], Awaitable[Json]]


@dataclass(slots=True)
class _Passing:
    """A call on its way, for the code that runs as its run's agent."""

    call: Call
    act: Act
    result: Json = None
    error: Exception | None = None
    is_done: bool = False


_passing: Final[ContextVar[_Passing | None]] = ContextVar("oao_mcp_passing", default=None)


class _JsonShape:
    """Results are JSON already."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def dump(self, value: Any) -> gate.Answer:
        """Return a result as it came; of a model with tokens counted by characters, because a client names none."""
        usage = None
        if isinstance(self._call, ModelCall):
            sent, got = estimate_input_tokens(self._call), estimate_tokens([value])
            usage = Usage(input_tokens=sent, output_tokens=got, estimated=True)
        return gate.Answer(value=value, usage=usage)

    def load(self, value: Json) -> Any:
        """Return a result as redactors left it."""
        return value

    def load_chunks(self, value: Json) -> list[Any]:
        """Return a result alone: nothing is streamed."""
        return [value]


class _Caller:
    """The agent of a call's run: it makes the one call."""

    def __init__(self, name: str) -> None:
        self.name = name
        mark_governed(cast("Any", self))

    async def ainvoke(self, _task: object) -> None:
        """Make the call that this context is about."""
        passing, run = _passing.get(), here.get()
        if passing is None or run is None:
            raise OaoError("this run can only be continued by the proxy that began it")
        try:
            passing.result = await gate.acall(run, passing.call, passing.act, _JsonShape(passing.call))
        except Exception as error:
            passing.error = error
            raise
        passing.is_done = True


class _CallTimeout:
    """The time limits of the session's policies, for each call alone: a session may last for days."""

    name = "mcp-proxy"

    def __init__(self) -> None:
        self.limit_s: float | None = None

    @hookimpl
    def oao_limits(self, run: RunView) -> Limits:
        """Limit the time of a call."""
        return Limits(call_timeout_s=self.limit_s)


@dataclass(slots=True)
class _Held:
    """A call that waits for a person."""

    execution_id: str
    question: str


class Session:
    """What one client does with one server.

    Args:
        orchestrator: Makes the session's run; its policies judge.
        options: How.
        label: Which session of the server it is, for a person.
    """

    def __init__(self, orchestrator: Orchestrator, options: Options, label: str = "") -> None:
        self.options = options
        self._timeout = _CallTimeout()
        # No policies of its own: those of the session's run are asked about every call in it.
        self._calls = Orchestrator([self._timeout], store=orchestrator.store, clock=orchestrator.clock)
        self._orchestrator = orchestrator
        self._agent = _Caller(f"mcp:{options.name}")
        self._numbers = itertools.count(1)
        self._held: dict[str, _Held] = {}
        self.run: Run = orchestrator.open_run(
            self._agent.name, f"session {label}".rstrip(), principal=options.principal
        )
        self._give_time()
        self.run.lasts = not options.halts

    def _give_time(self) -> None:
        limits = self.run.limits
        both = [one for one in (limits.timeout_s, limits.call_timeout_s) if one is not None]
        self._timeout.limit_s = min(both, default=None)
        self.run.budget.limits = replace(limits, timeout_s=None, call_timeout_s=None)
        self.run.deadline = self.run.call_timeout_s = None

    @property
    def is_over(self) -> bool:
        """True where nothing more may be called: a limit that ends it was reached, or its journal was lost."""
        return self.run.halted is not None or self.run.closed

    async def judge(self, call: Call, act: Act) -> Verdict:
        """Pass a call through the gate.

        Args:
            call: As the client, or the server, asks for it.
            act: Makes it; is given the call as the policies left it.
        """
        key = json.dumps([call.kind, call.name, as_json(call.request)], sort_keys=True)
        held = self._held.pop(key, None)
        if held is not None and self._state(held) == "pending":
            # Asked again before anybody answered: it is the same question.
            verdict = Verdict(state="held", question=held.question, execution_id=held.execution_id)
        else:
            place = held.execution_id if held is not None else new_id()
            verdict = await self._pass(call, act, place, begun=held is not None)
        if verdict.state == "held":
            waiting = _Held(verdict.execution_id, verdict.question)
            self._held[key] = waiting
            if self.options.wait_s > 0 and await self._answered(waiting) and self._held.pop(key, None) is not None:
                verdict = await self._pass(call, act, waiting.execution_id, begun=True)
        return verdict

    async def _pass(self, call: Call, act: Act, execution_id: str, *, begun: bool) -> Verdict:
        passing = _Passing(call, act)
        node = f"{call.kind} {call.name} {next(self._numbers)}"
        place = Place(node=node, execution_id=execution_id, begun=begun)
        passing_token, here_token = _passing.set(passing), here.set(self.run)
        try:
            report = await self._calls.run_part(place, self._agent, node)
        except RunHalted as halt:
            return Verdict(state="denied", rule=halt.rule, reason=halt.reason, execution_id=execution_id)
        except Exception as error:  # noqa: BLE001 - what cannot be judged is not done
            return Verdict(state="denied", rule="gate", reason=f"the gate failed: {error}", execution_id=execution_id)
        finally:
            here.reset(here_token)
            _passing.reset(passing_token)
        return _verdict(report, passing)

    def _state(self, held: _Held) -> str:
        questions = Questions(self._calls.store.read(held.execution_id))
        now = questions.now(self._calls.clock.time())
        states = [one.state(now) for one in questions.all() if not one.used]
        return "pending" if "pending" in states else next(iter(states), "pending")

    async def _answered(self, held: _Held) -> bool:
        until = asyncio.get_running_loop().time() + self.options.wait_s
        while asyncio.get_running_loop().time() < until:
            if self._state(held) != "pending":
                return True
            await asyncio.sleep(_POLL_S)
        return False

    def hides(self, name: str) -> bool:
        """Return True for a tool that a policy denies by its name alone, whatever it is given."""
        call = ToolCall(name=f"{self.options.prefix}{name}", arguments={}, proposed=True)
        judged = drive(judge_call(self.run, self.run.described(call), ""), self.run.hooks.timeout_s)
        return isinstance(judged.decision, Deny) and judged.decision.rule in _BY_NAME

    def close(self) -> ExecutionReport:
        """End the session's run."""
        return self._orchestrator.close_run(self.run, Ending(done=True))


def _verdict(report: ExecutionReport, passing: _Passing) -> Verdict:
    id_ = report.execution_id
    if report.status == "SUSPENDED":
        asked: Mapping[str, Any] = report.approvals[0] if report.approvals else {}
        return Verdict(
            state="held",
            question=str(asked.get("id", "")),
            rule=str(asked.get("rule", "")),
            reason=str(asked.get("reason", "")),
            execution_id=id_,
        )
    if report.violation is not None:
        found = cast("Mapping[str, Any]", report.violation)
        return Verdict(
            state="denied", rule=str(found.get("rule", "")), reason=str(found.get("reason", "")), execution_id=id_
        )
    if passing.is_done and report.status == "SUCCESS":
        return Verdict(state="done", result=passing.result, execution_id=id_)
    if passing.error is not None:
        return Verdict(state="failed", error=passing.error, execution_id=id_)
    return Verdict(state="denied", rule="gate", reason=report.error or "the call did not end", execution_id=id_)
