"""Plugins with known defects: each is one that a conformance suite must find."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from oao_harness import MemoryStore
from oao_harness.schedulers.local import LocalScheduler
from oao_hookspecs import (
    Allow,
    ApprovalRequest,
    Approve,
    Ask,
    CallDecided,
    CallFinished,
    Decision,
    Deny,
    Limits,
    Modify,
    Principal,
    RunFinished,
    RunPaused,
    RunStarted,
    RunView,
    ToolCall,
    hookimpl,
)
from pytest_oao.testing import Heard, ListenerCase, PolicyCase, SchedulerCase, StoreCase


class Spender:
    """Remembers in the run what it has let through: as it should be."""

    name = "spender"

    @hookimpl
    async def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Decision | None:
        if call.name != "pay":
            return None
        paid: dict[str, int] = run.memory(self, dict)
        if call.id:
            paid[call.id] = call.arguments["amount"]  # type: ignore[assignment]
        if sum(paid.values()) > 100:
            return Deny(rule="spender", reason="that is too much")
        return Ask(rule="four-eyes", reason="two must look", needed=2, approvers=("boss",)) if len(paid) == 2 else None


class Changer:
    """Changes arguments, and names limits."""

    name = "changer"

    @hookimpl
    def oao_limits(self, run: RunView) -> Limits:
        return Limits(max_tool_calls=9)

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision | None:
        return Modify(call=replace(call, arguments={"to": "a"})) if call.name == "pay" else Allow(rule="others")


class Counter:
    """Counts in itself."""

    name = "counter"

    def __init__(self) -> None:
        self._seen: list[str] = []

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision | None:
        self._seen.append(call.name)
        return Deny(rule="counter", reason="enough") if len(self._seen) > 9 else None


class Numbered(Counter):
    """Counts in itself, in a plain value: that is a part of its version."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision | None:
        self.count += 1
        return None


class Trusting:
    """Believes that every tool has an amount."""

    name = "trusting"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision | None:
        return Deny(rule="x", reason="x") if call.arguments["amount"] > 5 else None  # type: ignore[operator]


class Writer:
    """Writes down what it judges."""

    name = "writer"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision | None:
        Path("judged.txt").write_text(repr(call), encoding="ascii", errors="replace")
        return None


class Dice:
    """Says something else each time."""

    name = "dice"
    thrown = 0

    @hookimpl
    def oao_decide_tool_call(self) -> Decision | None:
        Dice.thrown += 1
        return Deny(rule=f"dice-{Dice.thrown}", reason="it fell like this")


class Butler:
    """Answers what a person was asked."""

    name = "butler"

    @hookimpl
    def oao_answer_approval(self, request: ApprovalRequest) -> Approve:
        return Approve(by=Principal(id="butler"))


class Sleeper:
    """Takes its time."""

    name = "sleeper"

    @hookimpl
    def oao_decide_tool_call(self) -> None:
        time.sleep(0.4)


PAY = tuple(ToolCall(name="pay", arguments={"amount": amount}) for amount in (30, 60, 20))
spender = PolicyCase(make=Spender, calls=PAY)
changer = PolicyCase(make=Changer, calls=PAY)
dice = PolicyCase(make=Dice, cannot={"deterministic": "it is a dice"})
false_modesty = PolicyCase(make=Spender, calls=PAY, cannot={"deterministic": "so its author believes"})


class Lines:
    """Keeps events as lines: as it should be."""

    name = "lines"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.jsonl"

    def keep(self, event: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([event.execution_id, event.NAME]) + "\n")

    @hookimpl
    def oao_run_started(self, event: RunStarted) -> None:
        self.keep(event)

    @hookimpl
    async def oao_call_finished(self, event: CallFinished) -> None:
        self.keep(event)

    @hookimpl
    def oao_run_paused(self, event: RunPaused) -> None:
        self.keep(event)

    @hookimpl
    def oao_run_finished(self, event: RunFinished) -> None:
        self.keep(event)


class Twice(Lines):
    """Keeps the end of a run twice."""

    @hookimpl
    def oao_run_finished(self, event: RunFinished) -> None:
        self.keep(event)
        self.keep(event)


class Holding(Lines):
    """Holds on to every run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.runs: list[RunView] = []

    @hookimpl
    def oao_call_decided(self, event: CallDecided, run: RunView) -> None:
        self.runs.append(run)


class Failing(Lines):
    """Fails at the second call."""

    @hookimpl
    def oao_call_decided(self, event: CallDecided) -> None:
        if event.n > 1:
            raise ValueError("more than one")


class Meddler(Lines):
    """Works for the agent while it listens."""

    @hookimpl
    def oao_call_decided(self, event: CallDecided, run: Any) -> None:
        run.note_ungoverned("a listener was here")


def read(folder: Path) -> Sequence[Heard]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [Heard(*json.loads(line)) for line in lines]


lines = ListenerCase(make=Lines, heard=read)
twice = ListenerCase(make=Twice, heard=read)
holding = ListenerCase(make=Holding, heard=read)
failing = ListenerCase(make=Failing, heard=read)


class Forgetful(MemoryStore):
    """Forgets what it was given to write at once."""

    def append(self, execution_id: str, epoch: int, *records: Any) -> None:
        super().append(execution_id, epoch, *records[:1])


_ALONE = {"reopen": "journals live in one object", "processes": "journals live in one process"}
memory = StoreCase(make=lambda _folder: MemoryStore(), cannot=_ALONE)
boastful = StoreCase(make=lambda _folder: MemoryStore(), cannot={**_ALONE, "delete": "so it says"})
misspelt = StoreCase(make=lambda _folder: MemoryStore(), cannot={"proceses": "a typo"})
local = SchedulerCase(
    make=lambda _folder: LocalScheduler(),
    cannot={"processes": "jobs live in one process", "takeover": "nobody else has the queue"},
)
number = 7
