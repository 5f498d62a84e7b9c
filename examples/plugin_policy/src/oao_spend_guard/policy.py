"""The policy: it adds up the amounts of a run, and asks a person beyond a bound."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from oao_hookspecs import Ask, Decision, Deny, RunView, ToolCall, hookimpl

__all__ = ["SpendGuard"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SpendGuard:
    """Bounds what the tools that pay may pay out in one run.

    A frozen dataclass, without equality because two of them are two plugins. Its `repr` names its settings, so a
    suspended run goes on only under the same ones; what it remembers is in the run, so runs side by side do not mix.

    Args:
        most: What one run may pay out in all, in the currency of the tools.
        ask_from: What a single payment may be without anybody looking at it.
        tools: Names of the tools that pay.
        argument: Their argument with the amount, a number.
        hours: First and last hour (0 to 23) in which money is paid out at all; None for any time.
        now: Where the time is read.
    """

    name = "spend-guard"

    most: float = 1000.0
    ask_from: float = 200.0
    tools: Collection[str] = ("pay", "refund", "send_money")
    argument: str = "amount"
    hours: tuple[int, int] | None = None
    now: Callable[[], datetime.datetime] = datetime.datetime.now

    def __repr__(self) -> str:
        """Name the settings; not the clock, whose address is another one in each process."""
        return f"SpendGuard({self.most}, {self.ask_from}, {sorted(self.tools)}, {self.argument!r}, {self.hours})"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Decision | None:
        """Judge a payment; other tools are none of this policy's business."""
        if call.name not in self.tools:
            return None
        amount = call.arguments.get(self.argument)
        # Anything may come: what is no amount cannot be added up. True is a number to Python.
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
            return Deny(rule="spend-guard.amount", reason=f"{self.argument}={amount!r:.80} is no amount")
        if self.hours is not None and not self.hours[0] <= self.now().hour <= self.hours[1]:
            return Deny(rule="spend-guard.hours", reason=f"money is paid out from {self.hours[0]} to {self.hours[1]} h")
        # By the call's id: a call is asked about again where another policy changed it, and when a run is resumed.
        paid: dict[str, float] = run.memory(self, dict)
        total = sum(other for id_, other in paid.items() if id_ != call.id) + amount
        if total > self.most:
            return Deny(rule="spend-guard.most", reason=f"{total:.2f} in this run, and {self.most:.2f} are allowed")
        # A call that is only proposed has no id: it may never be made.
        if call.id:
            paid[call.id] = amount
        if amount >= self.ask_from:
            return Ask(rule="spend-guard.ask", reason=f"{amount:.2f} at once; {self.ask_from:.2f} need a person")
        return None
