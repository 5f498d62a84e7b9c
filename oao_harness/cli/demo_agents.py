"""The agents of `oao demo`: plain Python, no key, no server. `@tool` and `@model` are all that governs them.

Their model is a script with a pretend network, so that everybody sees the same run. The `ran` counters are real: a
body adds to them when it runs, and only then.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from oao_harness import model, tool

__all__ = ["PROMPT", "Agent", "refund_agent", "runaway_agent"]

Message = dict[str, Any]
Agent = Callable[[str], str]

PROMPT = "You are a polite support agent. Refund only what the order really cost."


def runaway_agent(ran: Counter[str]) -> Agent:
    """Return an agent that searches the same thing over and over, and ignores every exception.

    Args:
        ran: Counts what really ran.
    """

    @tool(effect="pure")
    def search_web(query: str) -> str:
        """Search the web."""
        ran["tool"] += 1
        return "0 results; try again"

    def agent(task: str) -> str:
        ignored = 0
        while ignored < 3:
            try:
                search_web(task)
            except BaseException:  # noqa: BLE001 - nothing shall stop this agent, and something does
                ignored += 1
                ran["ignored"] += 1
        return "I never give up"

    return agent


def refund_agent(ran: Counter[str], prompt: str = PROMPT, *, latency_s: float = 0.0) -> Agent:
    """Return a support agent: it looks an order up, reads the refund policy, and refunds.

    Args:
        ran: Counts what really ran.
        prompt: Its system prompt.
        latency_s: Seconds that the pretend network takes for one model call; tools take a third of it.
    """

    @tool(effect="pure")
    def find_order(order_id: str) -> dict[str, object]:
        """Look an order up."""
        _network(ran, "tool", latency_s / 3)
        return {"order_id": order_id, "item": "desk lamp", "paid": 49.99, "delivered": "2 days ago"}

    @tool(effect="pure")
    def read_policy(topic: str) -> str:
        """Read what the shop's rules say on a topic."""
        _network(ran, "tool", latency_s / 3)
        return f"{topic}: full refund within 30 days, no return needed below 100 EUR"

    @tool(effect="once")
    def refund(order_id: str, amount: float) -> dict[str, object]:
        """Send money; never done twice."""
        _network(ran, "tool", latency_s / 3)
        return {"refund_id": "R-7731", "order_id": order_id, "amount": amount}

    @model(name="scripted-model")
    def ask(messages: list[Message], tools: list[str]) -> Message:
        """Answer as a chat model does: with tool calls, or with a text."""
        _network(ran, "model", latency_s)
        turn = sum(1 for message in messages if message["role"] == "assistant")
        return _SCRIPT[turn]

    tools: dict[str, Callable[..., object]] = {"find_order": find_order, "read_policy": read_policy, "refund": refund}

    def agent(task: str) -> str:
        messages: list[Message] = [{"role": "system", "content": prompt}, {"role": "user", "content": task}]
        while True:
            answer = ask(messages, tools=list(tools))
            messages.append({"role": "assistant", **answer})
            if not answer["tool_calls"]:
                return str(answer["content"])
            for call in answer["tool_calls"]:
                result = tools[call["name"]](**call["args"])
                messages.append({"role": "tool", "call_id": call["id"], "content": result})

    return agent


def _network(ran: Counter[str], kind: str, latency_s: float) -> None:
    ran[kind] += 1
    time.sleep(latency_s)


def _asks(*calls: tuple[str, dict[str, object]], used: tuple[int, int]) -> Message:
    return {
        "content": "",
        "tool_calls": [{"id": f"call_{name}", "name": name, "args": args} for name, args in calls],
        "usage": {"input_tokens": used[0], "output_tokens": used[1]},
    }


_SCRIPT: tuple[Message, ...] = (
    _asks(("find_order", {"order_id": "A-1042"}), ("read_policy", {"topic": "damaged goods"}), used=(212, 48)),
    _asks(("refund", {"order_id": "A-1042", "amount": 49.99}), used=(347, 31)),
    {
        "content": "I am sorry about the broken lamp. 49.99 EUR are on their way back to you (refund R-7731).",
        "tool_calls": [],
        "usage": {"input_tokens": 421, "output_tokens": 37},
    },
)
