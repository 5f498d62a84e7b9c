"""What the policies' conformance suite runs: an agent that makes given calls, and what was said to each of them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from oao_harness.adapters.governed import model, tool
from oao_harness.journal.histories import History, history_of_records
from oao_harness.journal.nesting import tape_of
from oao_harness.journal.recording import Recording
from oao_harness.runtime.context import in_plugin
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport
from oao_harness.stores.memory import MemoryStore
from oao_hookspecs import (
    ApprovalRequest,
    Approve,
    Ask,
    Call,
    Decision,
    Deny,
    ModelCall,
    Principal,
    Record,
    ToolCall,
    hookimpl,
)

__all__ = [
    "HOLD",
    "ODD_CALLS",
    "WOULD",
    "Asker",
    "Denier",
    "Trial",
    "effects_of_policies",
    "in_two_legs",
    "line_of",
    "said",
    "trial",
]

_PEOPLE: Final = 5
"""How many approve what is held: more than any question needs."""
_WAIVERS: Final = {"*": "the next call is judged too"}
HOLD: Final = "conformance_hold"
"""A tool that the suite's own policy holds; see `in_two_legs`."""
WOULD: Final = "; would "
"""What follows it was said by a rule that only observes."""
ODD_CALLS: Final[Sequence[Call]] = (
    ToolCall(name="read_file", arguments={"path": "notes.txt"}),
    ToolCall(name="nothing", arguments={}),
    ToolCall(name="odd", arguments={"none": None, "text": "", "list": [], "map": {}, "bool": True}),
    ToolCall(name="odd", arguments={"deep": {"a": [{"b": [1, {"c": None}]}]}, "amount": "12", "value": [1]}),
    ToolCall(name="zwölf ✓ 🚀", arguments={"ключ": "line\nbreak\0", "half": "\ud83d"}),
    ToolCall(name="send_money", arguments={"amount": 10**20, "recipient": "x" * 100_000}),
    ToolCall(name="send_money", arguments={"amount": -0.0, "recipient": {"iban": ["x"]}}),
    ModelCall(name="model", messages=[{"role": "user", "content": "hello"}]),
    ModelCall(name="another-model", messages=[{"role": "user", "content": ["part", {"type": "text", "text": ""}]}]),
    ModelCall(
        name="model",
        messages=[{"role": "system", "content": ""}, {"role": "tool", "content": None, "call_id": "1"}],
        tools=[{"name": "read_file"}],
        params={"temperature": 0, "max_tokens": 5},
    ),
)
"""What an agent may well ask for, whatever a policy thinks of: every argument may have every type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of an agent that makes calls."""

    report: ExecutionReport
    store: MemoryStore
    made: Sequence[str]
    """Names of the tools and models whose bodies ran."""

    @property
    def records(self) -> list[Record]:
        """The journal."""
        return list(self.store.read(self.report.execution_id))

    @property
    def recording(self) -> Recording:
        """The journal as a recording."""
        return Recording.from_records((self.report.execution_id, record) for record in self.records)

    @property
    def history(self) -> History:
        """The journal as `oao policy diff` reads it."""
        return history_of_records(tape_of(self.report.execution_id, self._read), "conformance")

    def _read(self, execution_id: str) -> Sequence[Record]:
        return list(self.store.read(execution_id))


def said(trial: Trial) -> list[str]:
    """Return what was said to each call, a line each, and last how the run ended."""
    lines: list[str] = []
    for record in trial.records:
        if record["type"] == "call" and record["name"] != HOLD:
            decision = cast("Mapping[str, Any]", record["decision"])
            lines.append(_line(record["kind"], record["name"], decision))
    violation = trial.report.violation
    return [*lines, f"{trial.report.status} {violation['rule'] if violation else ''}".rstrip()]


def line_of(call: Call, decision: Decision) -> str:
    """Return what was said to a call as `said` does, without what a rule that only observes would have said."""
    return _line(call.kind, call.name, {"verdict": decision.verdict, "rule": decision.rule})


def _line(kind: object, name: object, decision: Mapping[str, Any]) -> str:
    verdict, would = decision["verdict"], decision.get("would")
    if would and str(decision.get("reason", "")).startswith("waived ("):
        verdict, would = would, ""
    rule = decision.get("rule", "") if verdict != "allow" else ""
    return f"{kind} {name}: {verdict} {rule}".rstrip() + (f"{WOULD}{would} {decision.get('rule', '')}" if would else "")


def trial(
    policies: Sequence[object],
    calls: Sequence[Call],
    *,
    lets_pass: bool = True,
    is_async: bool = False,
    before_each: Callable[[], object] = lambda: None,
    replaying: Recording | None = None,
) -> Trial:
    """Run an agent that makes calls, one after the other.

    Args:
        policies: What judges them.
        calls: What it asks for.
        lets_pass: True makes also what is denied, as a test with waivers does, and approves what is held: so that
            every call is judged after all those before it.
        is_async: True makes agent and bodies coroutines.
        before_each: Called before each call.
        replaying: The recording to replay.
    """
    made: list[str] = []
    store = MemoryStore()
    orchestrator = Orchestrator(
        list(policies),
        store,
        _people() if lets_pass else (),
        waivers=_WAIVERS if lets_pass else None,
    )
    agent = _async_agent(calls, made, before_each) if is_async else _agent(calls, made, before_each)
    if replaying is not None:
        report = orchestrator.replay(agent, "the task", replaying)
    elif is_async:
        report = asyncio.run(orchestrator.run_async(agent, "the task", agent_name="agent"))
    else:
        report = orchestrator.run(agent, "the task", agent_name="agent")
    return Trial(report=report, store=store, made=made)


def in_two_legs(make_policy: Callable[[], object], calls: Sequence[Call], *, suspended: bool) -> Trial:
    """Run an agent whose calls are held in the middle.

    Args:
        make_policy: Makes a new policy.
        calls: What it asks for.
        suspended: True suspends the run there, and has new policies judge the rest; False approves at once.
    """
    half = len(calls) // 2
    made: list[str] = []
    store = MemoryStore()
    agent = _agent([*calls[:half], ToolCall(name=HOLD, arguments={}), *calls[half:]], made, lambda: None)

    def orchestrator() -> Orchestrator:
        people = _people(but=HOLD if suspended else "")
        return Orchestrator([make_policy(), _Holder()], store, people, waivers=_WAIVERS)

    first = orchestrator()
    report = first.run(agent, "the task", agent_name="agent")
    held = [question for question in first.approvals() if question.tool == HOLD]
    for question in held:
        first.approve(question.id, by=Principal(id="conformance"))
    if held:
        report = orchestrator().resume(report.execution_id, agent)
    return Trial(report=report, store=store, made=made)


class _Person:
    """Approves at once what is held.

    Args:
        number: Several people are needed for some questions.
        but: A tool that it says nothing about.
    """

    def __init__(self, number: int, but: str) -> None:
        self.name = f"conformance-{number}"
        self._but = but

    @hookimpl
    def oao_answer_approval(self, request: ApprovalRequest) -> Approve | None:
        by = Principal(id=self.name, roles=request.approvers)
        return None if request.tool == self._but else Approve(by=by)


def _people(but: str = "") -> list[_Person]:
    return [_Person(number, but) for number in range(_PEOPLE)]


def _agent(calls: Sequence[Call], made: list[str], before_each: Callable[[], object]) -> Callable[[str], str]:
    def agent(task: str) -> str:
        for call in calls:
            before_each()
            _body(call, made)()
        return "done"

    return agent


def _async_agent(calls: Sequence[Call], made: list[str], before_each: Callable[[], object]) -> Callable[[str], Any]:
    async def agent(task: str) -> str:
        for call in calls:
            before_each()
            await _body(call, made, is_async=True)()
        return "done"

    return agent


def _body(call: Call, made: list[str], *, is_async: bool = False) -> Callable[[], Any]:
    """Return what makes a call as an agent's own function would."""
    if isinstance(call, ToolCall):

        def work(**_arguments: object) -> str:
            made.append(call.name)
            return f"{call.name} is done"

        async def work_async(**arguments: object) -> str:
            return work(**arguments)

        function: Any = tool(name=call.name, effect=call.effect)(work_async if is_async else work)
        return lambda: function(**call.arguments)

    def think(_messages: object, **_params: object) -> dict[str, object]:
        made.append(call.name)
        return {"content": "an answer", "usage": {"input_tokens": 10, "output_tokens": 5}}

    async def think_async(messages: object, **params: object) -> dict[str, object]:
        return think(messages, **params)

    asked: Any = model(name=call.name)(think_async if is_async else think)
    offered = {"tools": list(call.tools)} if call.tools else {}
    return lambda: asked(list(call.messages), **offered, **call.params)


class _Strict:
    """Says the same to every call.

    Args:
        decision: What it says.
    """

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    @hookimpl
    def oao_decide_tool_call(self) -> Decision:
        return self._decision

    @hookimpl
    def oao_decide_model_call(self) -> Decision:
        return self._decision


class Denier(_Strict):
    """Denies every call."""

    name = "conformance-denier"

    def __init__(self) -> None:
        super().__init__(Deny(rule="conformance-deny", reason="everything is denied"))


class Asker(_Strict):
    """Holds every call."""

    name = "conformance-asker"

    def __init__(self) -> None:
        super().__init__(Ask(rule="conformance-ask", reason="everything is held"))


class _Holder:
    """Holds one tool."""

    name = "conformance-holder"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Ask | None:
        return Ask(rule="conformance-hold", reason="the run stops here") if call.name == HOLD else None


_WRITES: Final = frozenset("wax+")
_EVENTS: Final = frozenset(
    {
        "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.system", "os.fork", "os.posix_spawn", "os.exec",
        "socket.connect", "socket.sendto", "socket.getaddrinfo", "subprocess.Popen", "sqlite3.connect",
    }
)  # fmt: skip


class _Audit:
    """What policies do to the world, as Python's own audit events tell it. A hook cannot be taken out again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.watching: list[list[str]] = []
        self.installed = False

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.watching or not in_plugin.get():
            return
        what = ""
        if event in _EVENTS:
            what = event
        elif event == "open" and isinstance(arguments[1], str) and _WRITES & set(arguments[1]):
            what = f"open({arguments[0]!r:.80}, {arguments[1]!r})"
        if what:
            for found in self.watching:
                found.append(what)


_audit: Final = _Audit()


@contextmanager
def effects_of_policies() -> Generator[list[str]]:
    """Yield a list that fills with what policies do to files, sockets and processes meanwhile."""
    with _audit.lock:
        if not _audit.installed:
            _audit.installed = True
            sys.addaudithook(_audit.hear)
    found: list[str] = []
    _audit.watching.append(found)
    try:
        yield found
    finally:
        _audit.watching.remove(found)
