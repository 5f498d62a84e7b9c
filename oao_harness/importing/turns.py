"""A conversation of an agent, message by message, as calls: each answer of the model is one, and each tool call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from oao_harness.importing.runs import RunBuilder
from oao_hookspecs import ErrorInfo, Json, ProposedCall, Usage

__all__ = ["Conversation", "Result"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a tool call came to."""

    text: Json
    call_id: str | None = None
    call: ProposedCall | None = None
    """The call, where the result names it whole."""
    name: str | None = None
    """Of the tool, where the result names it."""
    error: ErrorInfo | None = None


@dataclass(slots=True, kw_only=True)
class _Open:
    """A tool call that a model asked for, and that has no result yet."""

    call: ProposedCall
    batch: int | None


@dataclass(slots=True, kw_only=True)
class Conversation:
    """One party's side of a conversation, added message by message.

    A model's request is all that was said before its answer.
    """

    builder: RunBuilder
    model: str
    """Name of the model."""
    agent: str = ""
    """Whose side this is; that of the run's agent by default."""
    messages: list[Json] = field(default_factory=list[Json])
    _open: list[_Open] = field(default_factory=list[_Open])

    def say(self, role: str, content: str) -> None:
        """Add what somebody said; the calls that wait for a result will have none."""
        self._give_up()
        self.messages.append({"role": role, "content": content})

    def answer(self, content: str | None, calls: Sequence[ProposedCall] = (), usage: Usage | None = None) -> int:
        """Add an answer of the model, and return the number of the call."""
        self._give_up()
        message: dict[str, Json] = {"role": "assistant", "content": content}
        if calls:
            message["calls"] = [
                {**({"id": call.call_id} if call.call_id else {}), "name": call.name, "args": call.arguments}
                for call in calls
            ]
        n = self.builder.model(self.model, self.messages, message, agent=self.agent, usage=usage)
        self.messages.append(message)
        self._open = [_Open(call=call, batch=n if len(calls) > 1 else None) for call in calls]
        return n

    def result(self, result: Result) -> bool:
        """Add what a tool returned; return False where no call waits for it, and the result does not name its call."""
        found = next((one for one in self._open if _is_of(one.call, result)), None)
        if found is None and result.call is None:
            return False
        if found is not None:
            self._open.remove(found)
        call = result.call or (found.call if found is not None else None)
        if call is None:
            return False
        self.builder.tool(
            call,
            agent=self.agent,
            batch=found.batch if found is not None else None,
            value=None if result.error is not None else result.text,
            error=result.error,
        )
        if found is None:
            self.builder.count("{n} tool calls were made that no recorded answer of the model asks for")
        said: dict[str, Json] = {"role": "tool", "content": result.text, "name": call.name}
        self.messages.append({**said, **({"call_id": call.call_id} if call.call_id else {})})
        return True

    def end(self) -> None:
        """Add the calls that have no result."""
        self._give_up()

    def _give_up(self) -> None:
        for one in self._open:
            self.builder.tool(one.call, agent=self.agent, batch=one.batch, finished=False)
            self.builder.count("{n} tool calls that the model asked for have no recorded result")
        self._open = []


def _is_of(call: ProposedCall, result: Result) -> bool:
    if result.call_id and call.call_id:
        return result.call_id == call.call_id
    if result.call is not None:
        return result.call.name == call.name and result.call.arguments == call.arguments
    return result.name is None or result.name == call.name
