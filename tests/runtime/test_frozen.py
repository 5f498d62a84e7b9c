"""What hooks are handed of calls and outcomes: whole, and nobody can change a call by it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from oao_harness import MemoryStore, Orchestrator, tool
from oao_harness.runtime.frozen import freeze_call, freeze_outcome
from oao_hookspecs import (
    CallDecided,
    CallFinished,
    ErrorInfo,
    ModelCall,
    Outcome,
    ProposedCall,
    ToolCall,
    Usage,
    hookimpl,
)

TOOL = ToolCall(
    name="pay",
    arguments={"to": ["anna"], "how": {"fast": True}},
    call_id="c1",
    scope="node",
    effect="once",
    access="write",
    defaulted=("how",),
    proposed=True,
    id="r#1",
)
MODEL = ModelCall(
    name="gpt-x",
    messages=[{"role": "user", "content": ["hi"]}],
    tools=[{"name": "pay"}],
    params={"stop": ["."]},
    scope="node",
    id="r#2",
)
OUTCOME = Outcome(
    value={"content": ["hi"]},
    error=ErrorInfo(type="builtins:ValueError", message="no", data={"args": ["no"]}),
    usage=Usage(input_tokens=1),
    proposed=(ProposedCall(name="pay", arguments={"to": ["anna"]}, call_id="c1"),),
    attempts=2,
    duration_s=0.5,
    replayed=True,
)


@pytest.mark.parametrize("value", [TOOL, MODEL, OUTCOME])
def test_nothing_is_lost_by_freezing(value: Any) -> None:
    """Every field of what is frozen is set here to something else than its default, and is there afterwards."""
    plain = type(value)(**_least(type(value)))
    assert [one.name for one in fields(value) if getattr(plain, one.name) == getattr(value, one.name)] in ([], ["kind"])
    frozen = freeze_outcome(value) if isinstance(value, Outcome) else freeze_call(value)
    assert frozen == value
    assert frozen is not value


def _least(kind: type[Any]) -> dict[str, Any]:
    return {ToolCall: {"name": "", "arguments": {}}, ModelCall: {"name": "", "messages": []}, Outcome: {}}[kind]


class Meddler:
    """Tries to change a call when it hears of it, by what Python offers and behind its back."""

    def __init__(self) -> None:
        self.refused = 0
        self.heard: list[tuple[str, Any, str]] = []

    @hookimpl
    def oao_call_decided(self, event: CallDecided) -> None:
        self.heard.append(("decided", dict(event.call.request), event.call.id))
        with pytest.raises(TypeError, match="cannot be changed"):
            event.call.request["to"] = "mallory"  # type: ignore[index]
        with pytest.raises(TypeError, match="cannot be changed"):
            event.call.request["list"].append("mallory")  # type: ignore[union-attr]
        with pytest.raises(AttributeError):
            event.call.name = "steal"  # type: ignore[misc]
        self.refused += 1
        dict.__setitem__(event.call.request, "to", "mallory")  # type: ignore[type-var, index]
        list.append(event.call.request["list"], "mallory")  # type: ignore[arg-type]
        object.__setattr__(event.call, "name", "steal")

    @hookimpl
    def oao_call_finished(self, event: CallFinished) -> None:
        self.heard.append(("finished", dict(event.call.request), event.call.id))


class Judge:
    """A policy that keeps what it is handed."""

    def __init__(self) -> None:
        self.judged: list[Any] = []

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> None:
        self.judged.append(call)

    @hookimpl
    def oao_decide_outcome(self, call: ToolCall) -> None:
        self.judged.append(call)


def test_whoever_hears_of_a_call_cannot_change_it() -> None:
    """Not what is done, not what is journaled, not what policies saw and will see."""
    done: list[Any] = []

    @tool
    def pay(to: str, list: list[str]) -> str:
        done.append((to, [*list]))
        return to

    meddler, judge, store = Meddler(), Judge(), MemoryStore()
    given = ["anna"]
    report = Orchestrator(judge, store, [meddler]).run(lambda task: pay("anna", given), "x")
    assert (report.status, report.final_output) == ("SUCCESS", "anna")
    assert done == [("anna", ["anna"])]
    assert given == ["anna"]
    assert meddler.refused == 1
    (call,) = (one for one in store.read(report.execution_id) if one["type"] == "call")
    assert (call["name"], call["req"]) == ("pay", {"to": "anna", "list": ["anna"]})
    assert [(one.name, dict(one.request)) for one in judge.judged] == [("pay", {"to": "anna", "list": ["anna"]})] * 2
    assert [(when, id_) for when, _, id_ in meddler.heard] == [
        ("decided", f"{report.execution_id}#1"),
        ("finished", f"{report.execution_id}#1"),
    ]
