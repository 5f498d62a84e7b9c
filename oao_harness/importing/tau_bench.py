"""Reads the results of tau-bench (a list of runs, each with `traj`) and of tau2-bench (`simulations`).

Source: sierra-research/tau-bench, `historical_trajectories` and `tau_bench/types.py`; sierra-research/tau2-bench,
`src/tau2/data_model/{message,simulation}.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from oao_harness.errors import RecordingError
from oao_harness.importing.reading import Node, list_at, node_at, parsed, required, text_at, text_of
from oao_harness.importing.runs import ImportedRun, RunBuilder
from oao_harness.importing.turns import Conversation, Result
from oao_hookspecs import ErrorInfo, Json, ProposedCall, Usage

__all__ = ["TAU2_FORM", "TAU_FORM", "USER", "is_tau2", "is_tau_bench", "runs_of_tau2", "runs_of_tau_bench"]

TAU_FORM: Final = "tau-bench"
TAU2_FORM: Final = "tau2-bench"
USER: Final = "user_simulator"
"""Name of the agent that plays the user in tau2-bench, where it makes calls of its own."""
_ERROR: Final = "tau2:ToolError"
_UNREPLAYED: Final = (
    "the tools and parameters of the model's requests are not recorded: its calls cannot be replayed to a client"
)


def is_tau_bench(document: Json) -> bool:
    """Return True where a document is a list of runs of tau-bench, or one of them."""
    first = document[0] if isinstance(document, list) and document else document
    return isinstance(first, dict) and "traj" in first


def is_tau2(document: Json) -> bool:
    """Return True where a document is a result file of tau2-bench, or one simulation of it."""
    if not isinstance(document, dict):
        return False
    return "simulations" in document or ("messages" in document and "termination_reason" in document)


class _Names:
    """Makes the names of the runs of a file unique."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def name(self, text: str) -> str:
        self._seen[text] += 1
        return text if self._seen[text] == 1 else f"{text}#{self._seen[text]}"


# tau-bench


def runs_of_tau_bench(document: Json, source: str) -> list[ImportedRun]:
    """Return the runs of a result file of tau-bench.

    Args:
        document: The file.
        source: Its name.

    Raises:
        RecordingError: A run is damaged; says where, and not in which file.
    """
    items = document if isinstance(document, list) else [document]
    names = _Names()
    return [_tau_run(item, f"[{index}]", source, names) for index, item in enumerate(items)]


def _tau_run(item: Json, where: str, source: str, names: _Names) -> ImportedRun:
    row = node_at(item, where)
    task, trial = row.get("task_id"), row.get("trial")
    label = f"task-{index_of(task)}" + ("" if trial is None else f"-trial-{index_of(trial)}")
    where = f"{where} ({label})"
    run = RunBuilder(form=TAU_FORM, source=source, agent="tau-bench", name=names.name(label))
    run.note("the model's id is not recorded")
    run.note(_UNREPLAYED)
    run.note("tokens and times are not recorded; a tool's error cannot be told from its result")
    conversation = Conversation(builder=run, model="unknown")
    for index, one in enumerate(list_at(row.get("traj"), f"{where}.traj")):
        at = f"{where}.traj[{index}]"
        _add_tau(run, conversation, node_at(one, at), at)
    conversation.end()
    info = row.get("info")
    if isinstance(info, dict) and info.get("error"):
        run.note(f"the run ended with an error: {text_of(info['error']):.200}")
    return run.build()


def index_of(value: Json) -> str:
    """Return the id of a task or trial as a part of a name."""
    return "unknown" if value is None else str(value)


def _add_tau(run: RunBuilder, conversation: Conversation, message: Node, where: str) -> None:
    role, content = required(message.get("role"), str, f"{where}.role"), message.get("content")
    if role in {"system", "user", "developer"}:
        blocks = _blocks(content, "tool_result")
        if role == "user" and blocks:
            for index, block in enumerate(blocks):
                result = Result(text=text_of(block.get("content")), call_id=_id(block.get("tool_use_id"), where))
                _require(conversation.result(result), f"{where}.content[{index}]")
            return
        if role == "user" and run.task is None:
            run.task = text_of(content)
        conversation.say(role, text_of(content))
    elif role == "assistant":
        conversation.answer(None if content is None else _said(content), list(_tau_calls(message, where)))
    elif role in {"tool", "function"}:
        name = message.get("name")
        result = Result(
            text=text_of(content),
            call_id=_id(message.get("tool_call_id"), where),
            name=name if isinstance(name, str) else None,
        )
        _require(conversation.result(result), where)
    else:
        raise RecordingError(f"{where}.role is {role!r:.60}; known: system, developer, user, assistant, tool, function")


def _require(is_known: bool, where: str) -> None:
    if not is_known:
        raise RecordingError(f"{where} is the result of a tool call that no answer before it asks for")


def _blocks(content: Json, kind: str) -> list[Node]:
    """Return the parts of one type of a content in Anthropic's form."""
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and part.get("type") == kind]


def _said(content: Json) -> str:
    if not isinstance(content, list):
        return text_of(content)
    return text_of([part for part in content if not (isinstance(part, dict) and part.get("type") == "tool_use")])


def _tau_calls(message: Node, where: str) -> Iterator[ProposedCall]:
    for index, item in enumerate(list_at(message.get("tool_calls") or [], f"{where}.tool_calls")):
        at = f"{where}.tool_calls[{index}]"
        node = node_at(item, at)
        function = node_at(node.get("function"), f"{at}.function")
        yield _function(function, _id(node.get("id"), at), f"{at}.function")
    if message.get("function_call") is not None:
        yield _function(node_at(message["function_call"], f"{where}.function_call"), None, f"{where}.function_call")
    for index, block in enumerate(_blocks(message.get("content"), "tool_use")):
        at = f"{where}.content[{index}]"
        yield ProposedCall(
            name=text_at(block.get("name"), f"{at}.name"),
            arguments=_arguments(block.get("input"), f"{at}.input"),
            call_id=_id(block.get("id"), at),
        )


def _function(node: Node, call_id: str | None, where: str) -> ProposedCall:
    arguments = _arguments(node.get("arguments"), f"{where}.arguments")
    return ProposedCall(name=text_at(node.get("name"), f"{where}.name"), arguments=arguments, call_id=call_id)


def _arguments(value: Json, where: str) -> Node:
    """Return arguments that are an object, or JSON text of one; nothing, and empty text, are no arguments."""
    if isinstance(value, str):
        value = parsed(value, where) if value.strip() else {}
    return node_at({} if value is None else value, where)


def _id(value: Json, where: str) -> str | None:
    return None if value is None else required(value, str, f"the id of {where}") or None


# tau2-bench


def runs_of_tau2(document: Json, source: str) -> list[ImportedRun]:
    """Return the simulations of a result file of tau2-bench.

    The simulated user calls tools of its own in some domains: those are the calls of the agent `user_simulator`.

    Args:
        document: The file.
        source: Its name.

    Raises:
        RecordingError: A simulation is damaged; says where, and not in which file.
    """
    whole = node_at(document, "the file")
    if "simulations" not in whole:
        return [_simulation(whole, {}, "the simulation", source, _Names())]
    info = node_at(whole.get("info") or {}, "info")
    names = _Names()
    return [
        _simulation(node_at(item, f"simulations[{index}]"), info, f"simulations[{index}]", source, names)
        for index, item in enumerate(list_at(whole["simulations"], "simulations"))
    ]


def _simulation(row: Node, info: Node, where: str, source: str, names: _Names) -> ImportedRun:
    task, trial = row.get("task_id"), row.get("trial")
    label = f"task-{index_of(task)}" + ("" if trial is None else f"-trial-{index_of(trial)}")
    where = f"{where} ({label:.80})"
    domain = _named(info, "environment_info", "domain_name") or "tau2-bench"
    run = RunBuilder(form=TAU2_FORM, source=source, agent=domain, name=names.name(label))
    run.note(_UNREPLAYED)
    model = _named(info, "agent_info", "llm") or "unknown"
    agent = Conversation(builder=run, model=model)
    user = Conversation(builder=run, model=_named(info, "user_info", "llm") or "unknown", agent=USER)
    policy = _named(info, "environment_info", "policy")
    if policy:
        agent.say("system", policy)
        run.note("the system prompt is not recorded; the policy of the domain, which is a part of it, stands for it")
    else:
        run.note("the system prompt is not recorded")
    for index, message in _flat(row.get("messages"), f"{where}.messages"):
        _add_tau2(agent, user, message, index, f"{where}.messages[{index}]")
    agent.end()
    user.end()
    reason = row.get("termination_reason")
    run.head(simulation=row.get("id"), ended=reason if isinstance(reason, str) else None)
    return run.build()


def _flat(value: Json, where: str) -> Iterator[tuple[int, Node]]:
    """Yield the messages with their places; several results may be one message."""
    for index, item in enumerate(list_at(value, where)):
        node = node_at(item, f"{where}[{index}]")
        nested = node.get("tool_messages")
        if node.get("role") == "tool" and nested is not None:
            for one in list_at(nested, f"{where}[{index}].tool_messages"):
                yield index, node_at(one, f"{where}[{index}].tool_messages")
        else:
            yield index, node


def _add_tau2(agent: Conversation, user: Conversation, message: Node, index: int, where: str) -> None:
    run = agent.builder
    role, content = required(message.get("role"), str, f"{where}.role"), text_of(message.get("content"))
    calls = list(_tau2_calls(message, where))
    if role == "system":
        agent.say("system", content)
    elif role == "assistant":
        if index == 0 and not calls and message.get("usage") is None and message.get("raw_data") is None:
            run.note("the first message is the framework's own greeting, and no call of the model")
            agent.say("assistant", content)
        else:
            agent.answer(None if message.get("content") is None else content, calls, _usage(message, where))
        if not calls:
            user.say("user", content)
    elif role == "user":
        if calls or message.get("usage") is not None or message.get("raw_data") is not None:
            run.note(f"the requests of the simulated user's model ({USER}) are not recorded: its prompt is missing")
            user.answer(None if message.get("content") is None else content, calls, _usage(message, where))
        else:
            user.say("assistant", content)
        if not calls:
            run.task = content if run.task is None else run.task
            agent.say("user", content)
    elif role == "tool":
        side = user if message.get("requestor") == "user" else agent
        call_id = _id(message.get("id"), where)
        error = ErrorInfo(type=_ERROR, message=content) if message.get("error") else None
        _require(side.result(Result(text=content, call_id=call_id, error=error)), where)
    else:
        raise RecordingError(f"{where}.role is {role!r:.60}; known: system, user, assistant, tool")


def _tau2_calls(message: Node, where: str) -> Iterator[ProposedCall]:
    for index, item in enumerate(list_at(message.get("tool_calls") or [], f"{where}.tool_calls")):
        at = f"{where}.tool_calls[{index}]"
        yield _function(node := node_at(item, at), _id(node.get("id"), at), at)


def _usage(message: Node, where: str) -> Usage | None:
    found = message.get("usage")
    if found is None:
        return None
    node = node_at(found, f"{where}.usage")
    sent, received = (_tokens(node.get(key), f"{where}.usage.{key}") for key in ("prompt_tokens", "completion_tokens"))
    return None if sent is None and received is None else Usage(input_tokens=sent or 0, output_tokens=received or 0)


def _tokens(value: Json, where: str) -> int | None:
    if value is None:
        return None
    found = required(value, int, where)
    if found < 0:
        raise RecordingError(f"{where} is {found}; tokens are >= 0")
    return found


def _named(info: Node, *keys: str) -> str | None:
    """Return a text inside of `info`; None where there is none."""
    value: Json = info
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) and value else None
