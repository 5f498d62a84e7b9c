"""The script of a model that needs no network: which reply comes next, and what it looks like. No framework."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from pytest_oao.testing.replies import ErrorReply, Reply, TextReply, ToolCallReply

if TYPE_CHECKING:
    from oao_hookspecs import Json

__all__ = ["NumberedReply", "Script", "ScriptEndedError", "ScriptedError", "ScriptedReply", "Step", "words"]

ScriptedReply: TypeAlias = Reply | str | BaseException
"""A str is short for a `TextReply`; an exception is raised."""
Step: TypeAlias = "ScriptedReply | Callable[[object], ScriptedReply]"
"""A reply, or a function that makes it of the conversation."""

_LONGEST: Final = 120


class ScriptEndedError(AssertionError):
    """The model was asked more often than there are replies."""


class ScriptedError(RuntimeError):
    """What a model raises for an `ErrorReply`.

    Args:
        reply: Its `status`, `message`, `code` and `retry_after_s`.
    """

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(f"{reply.status}: {reply.message}")
        self.reply = reply
        self.status_code = reply.status


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedReply:
    """A reply, and the number of the request that it answers, from 1: ids are made of it."""

    number: int
    reply: TextReply | ToolCallReply

    def tool_calls(self) -> list[dict[str, Json]]:
        """Return the tool calls as `{"id", "name", "arguments"}`; arguments that are no JSON stay a text."""
        calls = self.reply.calls if isinstance(self.reply, ToolCallReply) else ()
        return [
            {"id": f"call_{self.number}_{place}", "name": call.name, "arguments": _arguments(call.arguments)}
            for place, call in enumerate(calls, start=1)
        ]


class Script:
    """Replies in order, shared by the threads of a test.

    Args:
        replies: The replies, or one function that makes each of the conversation.
        name: Of the model, for messages.

    Raises:
        TypeError: A reply is none.
    """

    def __init__(self, replies: Iterable[Step] | Callable[[object], ScriptedReply], name: str) -> None:
        self._respond: Callable[[object], ScriptedReply] | None = None
        self._steps: tuple[Step, ...] = ()
        self._name = name
        self._lock = threading.Lock()
        self._requests: list[object] = []
        if isinstance(replies, str):
            raise TypeError(f"replies={replies!r:.60}: give a list of replies, [{replies!r:.60}]")
        if callable(replies):
            self._respond = replies
            return
        self._steps = tuple(replies)
        for step in self._steps:
            if not callable(step) or isinstance(step, type):
                _checked(step)

    @property
    def requests(self) -> list[object]:
        """The conversations the model was asked with, copied; without those that a recording answered."""
        with self._lock:
            return copy.deepcopy(self._requests)

    @property
    def left(self) -> int:
        """How many replies were not used yet; 0 where a function makes them."""
        with self._lock:
            return max(0, len(self._steps) - len(self._requests))

    def next(self, messages: object) -> NumberedReply:
        """Return the next reply.

        Args:
            messages: The conversation, as the model got it.

        Raises:
            ScriptEndedError: There is none.
            ScriptedError: It is an `ErrorReply`.
            BaseException: It is that exception.
        """
        with self._lock:
            self._requests.append(copy.deepcopy(messages))
            number = len(self._requests)
        if self._respond is not None:
            step: Step = self._respond
        elif number <= len(self._steps):
            step = self._steps[number - 1]
        else:
            raise ScriptEndedError(
                f"the script of model {self._name!r} is over: request {number} came, but "
                f"{_replies(len(self._steps))} scripted; it asks {_asked(messages)}"
            )
        made = step(messages) if callable(step) else step
        reply = _checked(made)
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, ErrorReply):
            raise ScriptedError(reply)
        return NumberedReply(number=number, reply=reply)


def words(text: str) -> list[str]:
    """Return the chunks a text is streamed in; joined they are the text."""
    return re.findall(r"\s*\S+\s*|\s+", text)


def _checked(reply: object) -> Reply | BaseException:
    if isinstance(reply, str):
        return TextReply(text=reply)
    if isinstance(reply, TextReply | ToolCallReply | ErrorReply | BaseException):
        return reply
    raise TypeError(
        f"{reply!r:.120} is not a reply: give a str, TextReply, ToolCallReply, ErrorReply, an exception, or a function "
        "of the messages that returns one"
    )


def _arguments(arguments: Mapping[str, object] | str) -> Json:
    if not isinstance(arguments, str):
        return cast("Json", dict(arguments))
    try:
        parsed: object = json.loads(arguments)
    except ValueError:
        return arguments
    return cast("Json", parsed) if isinstance(parsed, dict) else arguments


def _replies(number: int) -> str:
    return "1 reply was" if number == 1 else f"{number} replies were"


def _asked(messages: object) -> str:
    """Return the last message of a conversation, shortened."""
    last: object = messages
    if isinstance(messages, Sequence) and not isinstance(messages, str) and messages:
        last = cast("Sequence[object]", messages)[-1]
    role, content = (_field(last, names) for names in (("role", "type"), ("content",)))
    shown = repr(last) if content is None else f"{f'{role}: ' if role else ''}{content!r}"
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."


def _field(message: object, names: Iterable[str]) -> object:
    for name in names:
        found: object = (
            cast("Mapping[str, object]", message).get(name)
            if isinstance(message, Mapping)
            else getattr(message, name, None)
        )
        if found is not None:
            return found
    return None
