"""Judges the two kinds of messages that act: a client's `tools/call`, and a server's `sampling/createMessage`.

Knows no transport: it is handed how a message is sent on and its answer awaited, and returns what is answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

from oao_harness.errors import RunHalted
from oao_harness.journal.codec import alike
from oao_harness.mcp.messages import (
    INVALID_REQUEST,
    REJECTED,
    SERVER_GONE,
    Message,
    error_message,
    is_modern,
    result_message,
)
from oao_harness.mcp.sessions import RemoteError, Session, Verdict
from oao_hookspecs import Call, Json, ModelCall, ToolCall

__all__ = ["Ask", "Guard", "is_governed"]

Ask = Callable[[bytes], Awaitable[Message]]
"""Sends a request on and returns its response; raises `RemoteError` where none will come."""

_TOOL: Final = "tools/call"
_SAMPLING: Final = "sampling/createMessage"
_UNNAMED_MODEL: Final = "mcp-client"
# What of a request for a model is no part of the conversation.
_NO_PARAMS: Final = frozenset({"messages", "tools", "_meta"})


def is_governed(message: Message) -> bool:
    """Return True for a message that must be judged."""
    return message.method in {_TOOL, _SAMPLING}


class Guard:
    """Judges messages of one session.

    Args:
        session: Returns the session; it is opened when it is first needed.
    """

    def __init__(self, session: Callable[[], Session]) -> None:
        self._session = session

    async def pass_on(self, message: Message, ask: Ask) -> bytes | None:
        """Judge a request, send it on where it is allowed, and return what its sender is answered.

        Args:
            message: A governed one.
            ask: Sends it on.

        Returns:
            The response; None where none is owed.
        """
        if not message.is_request:
            # What expects no answer is no call that anybody could judge the outcome of.
            return None
        try:
            call = self._tool_call(message) if message.method == _TOOL else _model_call(message.params)
        except RunHalted as halt:
            # A policy refuses the whole session.
            return _answer(message, Verdict(state="denied", rule=halt.rule, reason=halt.reason), None, None)
        if isinstance(call, str):
            return error_message(message.id, INVALID_REQUEST, call)
        answers: list[Message] = []
        errors: list[RemoteError] = []

        async def act(judged: Call) -> Json:
            raw = message.raw
            if not alike(judged.request, call.request):
                raw = message.with_arguments(dict(judged.request))
            response = await ask(raw)
            answers.append(response)
            error: Any = response.fields.get("error")
            if error is not None:
                data = cast("Mapping[str, Json]", error) if isinstance(error, Mapping) else None
                errors.append(RemoteError(str(_field(error, "message") or "an error"), data))
                raise errors[-1]
            return cast("Json", response.fields.get("result"))

        verdict = await self._session().judge(call, act)
        return _answer(message, verdict, answers[-1] if answers else None, errors[-1] if errors else None)

    def _tool_call(self, message: Message) -> ToolCall | str:
        """Return the call of a message, or what is wrong with it."""
        session = self._session()
        name, arguments = message.params.get("name"), message.params.get("arguments")
        if not isinstance(name, str) or not (arguments is None or isinstance(arguments, Mapping)):
            return "tools/call needs `name`, a text, and `arguments`, an object"
        if message.params.get("task") is not None and session.run.redacts:
            return "a policy redacts results, and that of a task would come past it; call the tool without `task`"
        return ToolCall(
            name=f"{session.options.prefix}{name}",
            arguments=cast("Mapping[str, Json]", arguments or {}),
            scope=f"mcp:{session.options.name}",
        )


def _model_call(params: Mapping[str, Any]) -> ModelCall | str:
    messages, tools = params.get("messages"), params.get("tools") or ()
    if not isinstance(messages, list) or not all(isinstance(one, Mapping) for one in cast("list[object]", messages)):
        return "sampling/createMessage needs `messages`, a list of objects"
    preferences: Any = params.get("modelPreferences")
    hints: Any = _field(preferences, "hints")
    first: Any = next(iter(cast("Sequence[Any]", hints)), None) if isinstance(hints, list) else None
    name = _field(first, "name")
    return ModelCall(
        name=name if isinstance(name, str) and name else _UNNAMED_MODEL,
        messages=cast("list[Mapping[str, Json]]", messages),
        tools=cast("list[Mapping[str, Json]]", tools),
        params={key: value for key, value in params.items() if key not in _NO_PARAMS},
        scope="mcp",
    )


def _field(value: Any, name: str) -> Any:
    return cast("Mapping[str, Any]", value).get(name) if isinstance(value, Mapping) else None


def _answer(message: Message, verdict: Verdict, response: Message | None, error: RemoteError | None) -> bytes:
    if verdict.state == "done" and response is not None:
        same = verdict.result is response.fields.get("result")
        return response.raw if same else response.with_result(verdict.result)
    if verdict.state == "failed":
        if response is not None and verdict.error is error:
            return response.raw
        return error_message(message.id, SERVER_GONE, str(verdict.error))
    text = _said(message, verdict)
    if message.method == _SAMPLING:
        return error_message(message.id, REJECTED, text)
    # A tool's error and not the protocol's: that the model reads, and a client may take the other for a lost server.
    told: dict[str, Json] = {"state": verdict.state, "rule": verdict.rule, "run": verdict.execution_id}
    if verdict.question:
        told["question"] = verdict.question
    result: dict[str, Json] = {"content": [{"type": "text", "text": text}], "isError": True, "_meta": {"oao": told}}
    if is_modern(message):
        result["resultType"] = "complete"
    return result_message(message.id, result)


def _said(message: Message, verdict: Verdict) -> str:
    what = "the model was not asked" if message.method == _SAMPLING else "the tool was not called"
    if verdict.state == "held":
        return (
            f"oao: waits for approval, {what} yet ({verdict.rule or 'held'}: {verdict.reason or 'asked before'}). "
            f"A person answers with: oao approve {verdict.question}. Then make the same call again."
        )
    return f"oao: denied, {what} ({verdict.rule}: {verdict.reason}). Calling again does not change that."
