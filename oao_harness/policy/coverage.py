"""Which parts of a policy file recorded runs have exercised, as coverage.py says it of lines.

Judges every recorded call again, with the outcomes that were recorded; runs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from oao_harness.policy.file import FilePolicy
from oao_harness.policy.ruling import Item
from oao_hookspecs import Call, ErrorInfo, Json, Limits, ModelCall, Outcome, Principal, Record, RunView, ToolCall

__all__ = ["Coverage", "Covered", "coverage_of"]

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Covered:
    """What one rule, sequence, label, role or entry of a list had to do."""

    item: Item
    asked: int = 0
    """Calls that it was about."""
    matched: int = 0
    """Calls that it had something to say to."""
    stopped: int = 0
    """Calls that it denied or held."""


@dataclass(slots=True, kw_only=True)
class Coverage:
    """What recorded runs have exercised of a policy."""

    runs: int = 0
    calls: int = 0
    items: list[Covered] = field(default_factory=list[Covered])
    """In the order of the file."""
    unruled: Counter[str] = field(default_factory=Counter[str])
    """Calls by name of the tools that nothing in the policy was about."""

    @property
    def matched(self) -> int:
        """How many items had something to say at least once."""
        return sum(one.matched > 0 for one in self.items)

    @property
    def missing(self) -> list[Covered]:
        """What never had anything to say."""
        return [one for one in self.items if not one.matched]

    @property
    def percent(self) -> float:
        """Of all items those that matched, 0 to 100; 100 for a policy without items."""
        return 100.0 * self.matched / len(self.items) if self.items else 100.0

    def line(self) -> str:
        """Return the coverage in one line."""
        text = f"{self.matched} of {len(self.items)} rules matched ({self.percent:.0f} %)"
        if self.unruled:
            text += f", no rule over {', '.join(sorted(self.unruled))}"
        return text

    def to_json(self) -> dict[str, Json]:
        """Return the coverage as JSON."""
        rows: list[Json] = [
            {
                "kind": one.item.kind, "name": one.item.name, "source": one.item.source,
                "asked": one.asked, "matched": one.matched, "stopped": one.stopped,
            }
            for one in self.items
        ]  # fmt: skip
        return {
            "runs": self.runs,
            "calls": self.calls,
            "percent": round(self.percent, 2),
            "rules": rows,
            "unruled": dict(sorted(self.unruled.items())),
        }


def coverage_of(policy: FilePolicy, journals: Iterable[Iterable[Record]]) -> Coverage:
    """Return what runs have exercised of a policy.

    Args:
        policy: As it is now; the runs may have happened under another one.
        journals: The records of each run, in order.
    """
    rows = {id(item): Covered(item=item) for item in policy.rules.items}
    coverage = Coverage(items=sorted(rows.values(), key=lambda one: _place(one.item)))
    for records in journals:
        _play(policy, records, coverage, rows)
    return coverage


def _play(policy: FilePolicy, records: Iterable[Record], coverage: Coverage, rows: Mapping[int, Covered]) -> None:
    run = _RecordedRun()
    view = cast("RunView", run)
    calls: dict[int, Call] = {}
    held: dict[str, ToolCall] = {}
    heard: set[int] = set()

    def trace(item: Item, what: Literal["asked", "matched", "stopped"]) -> None:
        heard.add(id(item))
        row = rows.get(id(item))
        if row is not None:
            setattr(row, what, getattr(row, what) + 1)

    def judge(call: Call) -> None:
        coverage.calls += 1
        heard.clear()
        policy.judge(call, view, trace)
        if not heard and isinstance(call, ToolCall):
            coverage.unruled[call.name] += 1

    coverage.runs += 1
    for record in records:
        kind = record.get("type")
        if kind == "run.started":
            run.start(record)
            policy.rules.judge_run(view, trace)
        elif kind == "call":
            call = _call_in(record)
            calls[cast("int", record["n"])] = call
            judge(call)
            run.count(call)
            _take_out(held, call, record)
        elif kind == "approval.requested" and record.get("kind") == "tool":
            held[str(record.get("id"))] = _held_call_in(record)
        elif kind == "run.resumed":
            held.clear()
        elif kind == "outcome":
            ended = calls.get(cast("int", record.get("n")))
            if isinstance(ended, ToolCall):
                policy.remember(ended, _outcome_in(record), view, trace)
            run.spend(record)
    # A call that waits for a person has a question, and no record of its own yet.
    for call in held.values():
        judge(call)


def _take_out(held: dict[str, ToolCall], call: Call, record: Record) -> None:
    """Forget the questions about a call that was made, or refused, after all."""
    passed = cast("list[Json]", record.get("approvals") or [])
    for id_, one in list(held.items()):
        if id_ in passed or (one.name == call.name and one.request == call.request):
            del held[id_]


def _held_call_in(record: Record) -> ToolCall:
    arguments = cast("Mapping[str, Any]", record.get("arguments") or {})
    call_id = cast("str | None", record.get("call_id"))
    return ToolCall(name=str(record.get("tool", "")), arguments=arguments, call_id=call_id, id=str(record.get("id")))


def _place(item: Item) -> tuple[str, int]:
    file, _, line = item.source.rpartition(":")
    return file, int(line)


def _call_in(record: Record) -> Call:
    name, unique = str(record.get("name", "")), str(record.get("n"))
    request = cast("Mapping[str, Any]", record.get("req") or {})
    if record.get("kind") == "model":
        params = {key: value for key, value in request.items() if key not in {"messages", "tools"}}
        messages, tools = request.get("messages") or (), request.get("tools") or ()
        return ModelCall(name=name, messages=messages, tools=tools, params=params, id=unique)
    effect, access = cast("Any", record.get("effect")), cast("Any", record.get("access"))
    call_id = cast("str | None", record.get("call_id"))
    return ToolCall(name=name, arguments=request, call_id=call_id, effect=effect, access=access, id=unique)


def _outcome_in(record: Record) -> Outcome:
    error = record.get("error")
    if isinstance(error, Mapping):
        return Outcome(error=ErrorInfo(type=str(error.get("type", "")), message=str(error.get("message", ""))))
    return Outcome(value=record.get("res"))


class _RecordedRun:
    """A run as its journal tells it so far; see `RunView`."""

    def __init__(self) -> None:
        self.execution_id = self.agent_name = ""
        self.task: Json = None
        self.principal: Principal | None = None
        self.limits = Limits()
        self.steps = self.model_calls = self.tool_calls = 0
        self.total_tokens = self.input_tokens = self.output_tokens = 0
        self.cost_usd = 0.0
        self.tool_usage: dict[str, int] = {}
        self.replaying = True
        self._memories: dict[int, Any] = {}

    def memory(self, owner: object, make: Callable[[], T]) -> T:
        if id(owner) not in self._memories:
            self._memories[id(owner)] = make()
        return cast("T", self._memories[id(owner)])

    def start(self, record: Record) -> None:
        self.execution_id = str(record.get("execution_id", ""))
        self.agent_name = str(record.get("agent", ""))
        self.task = record.get("task")
        who = record.get("principal")
        if isinstance(who, Mapping):
            roles = tuple(str(role) for role in cast("list[Json]", who.get("roles") or []))
            self.principal = Principal(id=str(who.get("id", "")), roles=roles, tenant=str(who.get("tenant", "")))

    def count(self, call: Call) -> None:
        self.steps += 1
        if isinstance(call, ModelCall):
            self.model_calls += 1
        else:
            self.tool_calls += 1
            self.tool_usage[call.name] = self.tool_usage.get(call.name, 0) + 1

    def spend(self, record: Record) -> None:
        usage = record.get("usage")
        if isinstance(usage, Mapping):
            self.input_tokens += int(cast("int", usage.get("in") or 0))
            self.output_tokens += int(cast("int", usage.get("out") or 0))
            self.total_tokens = self.input_tokens + self.output_tokens
