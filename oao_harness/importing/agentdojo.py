"""Reads the run logs of AgentDojo: one file is one run of one task, with or without an attack.

Source: agentdojo, `logging.py` and `types.py`; logs of versions 0.1.0 to 0.1.35.
"""

from __future__ import annotations

from typing import Final

from oao_harness.errors import RecordingError
from oao_harness.importing.reading import Node, list_at, node_at, required, text_at, text_of
from oao_harness.importing.runs import ImportedRun, RunBuilder
from oao_harness.importing.turns import Conversation, Result
from oao_hookspecs import ErrorInfo, Json, ProposedCall

__all__ = ["FORM", "is_agentdojo", "runs_of_agentdojo"]

FORM: Final = "agentdojo"
_ERROR: Final = "agentdojo:ToolError"
_MARKS: Final = frozenset({"suite_name", "pipeline_name", "user_task_id"})
_NOTES: Final = (
    "the model's id is not recorded; the name of the pipeline stands for it",
    "the tools and parameters of the model's requests are not recorded: its calls cannot be replayed to a client",
    "tokens, times and prices are not recorded",
)


def is_agentdojo(document: Json) -> bool:
    """Return True where a document has the form of a run log."""
    return isinstance(document, dict) and "messages" in document and not _MARKS.isdisjoint(document)


def runs_of_agentdojo(document: Json, source: str) -> list[ImportedRun]:
    """Return the run of a log.

    Args:
        document: The log.
        source: Name of the file.

    Raises:
        RecordingError: The log is damaged; says where, and not in which file.
    """
    log = node_at(document, "the log")
    suite = required(log.get("suite_name") or "", str, "suite_name")
    pipeline = required(log.get("pipeline_name") or "unknown", str, "pipeline_name")
    run = RunBuilder(form=FORM, source=source, agent=suite or pipeline)
    for note in _NOTES:
        run.note(note)
    conversation = Conversation(builder=run, model=pipeline)
    for index, item in enumerate(list_at(log["messages"], "messages")):
        where = f"messages[{index}]"
        _add(run, conversation, node_at(item, where), where)
    conversation.end()
    if log.get("error"):
        run.note(f"the run ended with an error: {text_of(log['error']):.200}")
    run.head(task_id=log.get("user_task_id"), attack=log.get("injection_task_id"))
    return [run.build()]


def _add(run: RunBuilder, conversation: Conversation, message: Node, where: str) -> None:
    role = required(message.get("role"), str, f"{where}.role")
    content = text_of(message.get("content"))
    if role in {"system", "user"}:
        if role == "user" and run.task is None:
            run.task = content
        conversation.say(role, content)
    elif role == "assistant":
        asked = list_at(message.get("tool_calls") or [], f"{where}.tool_calls")
        calls = [_call(one, f"{where}.tool_calls[{index}]") for index, one in enumerate(asked)]
        conversation.answer(None if message.get("content") is None else content, calls)
    elif role == "tool":
        call = _call(message.get("tool_call"), f"{where}.tool_call")
        said = message.get("error")
        error = None
        if said:
            kept: dict[str, Json] = {"content": content} if content else {}
            error = ErrorInfo(type=_ERROR, message=text_of(said), data=kept)
        call_id = message.get("tool_call_id")
        conversation.result(
            Result(text=content, call=call, call_id=call_id if isinstance(call_id, str) else None, error=error)
        )
    else:
        raise RecordingError(f"{where}.role is {role!r:.60}; known: system, user, assistant, tool")


def _call(value: Json, where: str) -> ProposedCall:
    node = node_at(value, where)
    call_id = node.get("id")
    return ProposedCall(
        name=text_at(node.get("function"), f"{where}.function"),
        arguments=node_at(node.get("args"), f"{where}.args"),
        call_id=required(call_id, str, f"{where}.id") or None if call_id is not None else None,
    )
